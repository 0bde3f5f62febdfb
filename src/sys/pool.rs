//! Threads: a bounded pool for jobs, detached threads, and parallel work within one job. A panic ends only its own job.
//!
//! No thread exists before there is work for it, and a lack of threads is an error that the caller gets. A pool keeps one thread
//! that has done its job for some seconds, because starting one takes as long as a short call.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, scope};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::cancel::Never;

/// The stack of a thread that is started here, in bytes. Only the pages that were used take memory, so it is generous: twice what
/// the deepest use takes in a build without optimization, which is JSON at serde_json's limit of 127 levels. A TLS handshake
/// takes a quarter of that. Below 2 MiB, so that the kernel never backs it with a huge page.
const STACK: usize = 512 * 1024;

/// How long the thread that a pool keeps waits for a job.
const IDLE: Duration = Duration::from_secs(10);

/// Runs each job on a thread of its own. Dropping the pool waits for the jobs that were given.
pub(crate) struct Pool<J: Send + 'static> {
    shared: Arc<Shared<J>>,
    /// Each thread has a clone: `ended` closes once the pool and all threads have dropped theirs.
    running: Option<Sender<Never>>,
    ended: Receiver<Never>,
}

struct Shared<J> {
    /// What the threads are called, before their number.
    name: &'static str,
    size: usize,
    /// The stack of a thread, in bytes.
    stack: usize,
    idle: Duration,
    /// Returns what a thread runs for each of its jobs.
    make: Box<dyn Fn() -> Box<dyn FnMut(J)> + Send + Sync>,
    state: Mutex<State<J>>,
    /// Tells the idle thread that there is a job, or that the pool is dropped.
    changed: Condvar,
}

struct State<J> {
    threads: usize,
    /// How many threads were started so far.
    started: u64,
    /// One of the threads waits for `next`.
    idle: bool,
    /// The job of the idle thread.
    next: Option<J>,
    /// Jobs that were given while every thread had one. A thread that ends its job takes the next from here.
    waiting: VecDeque<J>,
    /// No job will be given any more.
    dropped: bool,
}

impl<J: Send + 'static> Pool<J> {
    /// Returns a pool of at most `size` threads, named `name` and a number, that run `work` for each job.
    pub(crate) fn new(name: &'static str, size: usize, work: impl Fn(J) + Send + Sync + 'static) -> Self {
        let work = Arc::new(work);
        Self::with_own(name, size, move || {
            let work = Arc::clone(&work);
            move |job| work(job)
        })
    }

    /// As [`Pool::new`], but each thread has what `make` returns for it, until it ends or a job panics.
    pub(crate) fn with_own<W: FnMut(J) + 'static>(
        name: &'static str,
        size: usize,
        make: impl Fn() -> W + Send + Sync + 'static,
    ) -> Self {
        let make: Box<dyn Fn() -> Box<dyn FnMut(J)> + Send + Sync> = Box::new(move || Box::new(make()));
        let waiting = VecDeque::new();
        let state = State { threads: 0, started: 0, idle: false, next: None, waiting, dropped: false };
        let (running, ended) = bounded(0);
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { name, size, stack: STACK, idle: IDLE, make, state, changed });
        Self { shared, running: Some(running), ended }
    }

    /// Gives a job to the idle thread, or starts one. While all threads have a job, it queues as many as there are threads, because
    /// a job frees its slot shortly before its thread is free.
    ///
    /// # Errors
    /// The job will not run: the system has no more threads, or the queue is full.
    pub(crate) fn give(&self, job: J) -> io::Result<()> {
        let mut state = self.shared.lock();
        if state.idle && state.next.is_none() {
            state.next = Some(job);
            self.shared.changed.notify_one();
            return Ok(());
        }
        if state.threads >= self.shared.size {
            if state.waiting.len() >= self.shared.size {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "the pool is full"));
            }
            state.waiting.push_back(job);
            return Ok(());
        }
        let (shared, running) = (Arc::clone(&self.shared), self.running.clone());
        let name = format!("{}-{}", shared.name, state.started);
        Builder::new().name(name).stack_size(shared.stack).spawn(move || {
            shared.run(job);
            drop(running);
        })?;
        state.threads += 1;
        state.started += 1;
        Ok(())
    }

    /// Makes the drop not wait for the jobs: for a process that is about to end.
    pub(crate) fn abandon(&mut self) {
        self.running = None;
        self.ended = crossbeam_channel::never();
    }
}

impl<J: Send + 'static> Drop for Pool<J> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            drop(running);
            self.shared.lock().dropped = true;
            self.shared.changed.notify_one();
            // Fails once every thread has ended its jobs.
            let _ = self.ended.recv();
        }
    }
}

impl<J> Shared<J> {
    /// Runs a job, and then those that wait or are given later. The calling thread must end afterwards: it no longer counts.
    fn run(&self, first: J) {
        let mut next = Some(first);
        let mut work = (self.make)();
        while let Some(job) = next {
            // The panic hook has logged it.
            if catch_unwind(AssertUnwindSafe(|| work(job))).is_err() {
                work = (self.make)();
            }
            next = self.next();
        }
    }

    /// Returns the next job. Waits some time for it if no other thread does; else, and once the pool is dropped, there may be none.
    fn next(&self) -> Option<J> {
        let mut state = self.lock();
        let mut next = state.waiting.pop_front();
        if next.is_none() && !state.idle && !state.dropped {
            state.idle = true;
            let has_none = |state: &mut State<J>| state.next.is_none() && !state.dropped;
            let waited = self.changed.wait_timeout_while(state, self.idle, has_none);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            state.idle = false;
            next = state.next.take();
        }
        state.threads -= usize::from(next.is_none());
        next
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work` on a detached thread of this name. The panic hook logs its panics.
///
/// # Errors
/// The system has no more threads.
pub(crate) fn spawn_detached(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().name(name.to_owned()).stack_size(STACK).spawn(work).map(drop)
}

/// Runs `other` on a thread of this name while `work` runs on this one, and returns both results. Without another thread `other`
/// runs after `work`. A panic is passed on.
pub(crate) fn alongside<T, R: Send>(
    name: &str,
    other: impl Fn() -> R + Sync,
    work: impl FnOnce() -> T,
) -> (T, R) {
    scope(|scope| {
        let thread = Builder::new().name(name.to_owned()).stack_size(STACK).spawn_scoped(scope, &other);
        let done = work();
        let result = match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // The system has no more threads.
            Err(_) => other(),
        };
        (done, result)
    })
}

/// Runs `work` for all items on up to `threads` further threads, and `own` on the calling thread meanwhile. Returns the result of
/// `own`, and those of `work` in the order of the items: `None` if it panicked. The calling thread does what is left after `own`,
/// so that a lack of threads only makes it slower.
pub(crate) fn beside<A, T: Send, R: Send>(
    threads: usize,
    own: impl FnOnce() -> A,
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
) -> (A, Vec<Option<R>>) {
    beside_with(STACK, threads, own, items, work)
}

fn beside_with<A, T: Send, R: Send>(
    stack: usize,
    threads: usize,
    own: impl FnOnce() -> A,
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
) -> (A, Vec<Option<R>>) {
    let count = items.len();
    let name = std::thread::current().name().unwrap_or("oz-task").to_owned();
    let (give, waiting) = bounded(count);
    let (done, results) = bounded(count);
    // Neither send fails: there is room for all, and the other end of the channel is here.
    items.into_iter().enumerate().for_each(|item| drop(give.send(item)));
    let run = || {
        while let Ok((place, item)) = waiting.try_recv() {
            let _ = done.send((place, catch_unwind(AssertUnwindSafe(|| work(item))).ok()));
        }
    };
    let own = scope(|scope| {
        for _ in 0..count.min(threads) {
            let thread = Builder::new().name(name.clone()).stack_size(stack);
            if thread.spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        let own = own();
        run();
        own
    });
    let mut results: Vec<(usize, Option<R>)> = results.try_iter().collect();
    results.sort_unstable_by_key(|(place, _)| *place);
    (own, results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// No system has that much memory for a stack, so no thread can be started.
    const NO_THREAD: usize = 1 << 60;

    fn this_thread() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    #[test]
    fn each_job_has_a_thread_and_further_ones_wait_for_it() {
        let (arrived, arrivals) = bounded(8);
        let (open, gate) = bounded::<()>(0);
        let work = move |number: usize| {
            arrived.send((number, this_thread())).unwrap();
            let _ = gate.recv();
        };
        let pool = Pool::new("oz-task", 3, work);
        for number in 0..3 {
            pool.give(number).unwrap();
        }
        let mut names: Vec<_> = (0..3).map(|_| arrivals.recv_timeout(DEADLINE).unwrap().1).collect();
        names.sort();
        assert_eq!(names, ["oz-task-0", "oz-task-1", "oz-task-2"]);
        for number in 3..6 {
            pool.give(number).unwrap();
        }
        assert!(pool.give(6).is_err(), "the pool is bounded");
        assert!(arrivals.is_empty(), "no thread has two jobs");
        drop(open);
        for _ in 3..6 {
            let (_, name) = arrivals.recv_timeout(DEADLINE).unwrap();
            assert!(names.contains(&name), "{name} is a further thread");
        }
    }

    /// Waits until a pool has no more than its idle thread.
    fn wait_idle<J: Send>(pool: &Pool<J>) {
        let end = Instant::now() + DEADLINE;
        let is_idle = |state: MutexGuard<'_, State<J>>| state.threads == 1 && state.idle;
        while !is_idle(pool.shared.lock()) {
            assert!(Instant::now() < end, "the threads go on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn one_thread_stays_for_the_next_job_and_the_others_end() {
        let (done, results) = bounded(8);
        let barrier = std::sync::Barrier::new(3);
        let work = move |together: bool| {
            done.send(this_thread()).unwrap();
            if together {
                barrier.wait();
            }
        };
        let mut pool = Pool::new("oz-task", 3, work);
        Arc::get_mut(&mut pool.shared).unwrap().idle = Duration::MAX;
        (0..3).for_each(|_| pool.give(true).unwrap());
        let names: Vec<_> = (0..3).map(|_| results.recv_timeout(DEADLINE).unwrap()).collect();
        for _ in 0..3 {
            wait_idle(&pool);
            pool.give(false).unwrap();
            let name = results.recv_timeout(DEADLINE).unwrap();
            assert!(names.contains(&name), "{name} is a further thread");
        }
        wait_idle(&pool);
        // Waits for the idle thread.
        drop(pool);
        assert!(results.recv().is_err(), "every thread has ended");
    }

    #[test]
    fn a_thread_without_a_job_ends_after_some_time_and_drops_what_it_has() {
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let (done, results) = bounded(8);
        let mut pool = Pool::with_own("oz-task", 1, move || {
            let (held, done) = (Arc::clone(&held), done.clone());
            move |()| done.send((Arc::strong_count(&held), this_thread())).unwrap()
        });
        Arc::get_mut(&mut pool.shared).unwrap().idle = Duration::ZERO;
        for number in 0..2 {
            pool.give(()).unwrap();
            let name = format!("oz-task-{number}");
            assert_eq!(results.recv_timeout(DEADLINE), Ok((3, name)), "a thread of its own");
            let end = Instant::now() + DEADLINE;
            while pool.shared.lock().threads > 0 || Arc::strong_count(&alive) > 2 {
                assert!(Instant::now() < end, "the thread stays");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn without_a_thread_a_job_is_refused() {
        let (done, results) = bounded(8);
        let mut pool = Pool::new("oz-task", 1, move |number: u32| done.send(number).unwrap());
        Arc::get_mut(&mut pool.shared).unwrap().stack = NO_THREAD;
        for number in 0..3 {
            assert_eq!(pool.give(number).unwrap_err().kind(), io::ErrorKind::WouldBlock, "EAGAIN");
        }
        Arc::get_mut(&mut pool.shared).unwrap().stack = STACK;
        pool.give(3).unwrap();
        drop(pool);
        assert_eq!(results.iter().collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn a_panic_ends_the_job_and_not_its_thread() {
        let (done, results) = bounded(8);
        let made = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let pool = Pool::with_own("oz-task", 1, move || {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let done = done.clone();
            move |number: u32| {
                assert_ne!(number, 0, "this one panics");
                done.send((number, this_thread())).unwrap();
            }
        });
        let mut state = pool.shared.lock();
        state.waiting.extend([1, 2]);
        drop(state);
        pool.give(0).unwrap();
        for number in [1, 2] {
            assert_eq!(results.recv_timeout(DEADLINE), Ok((number, "oz-task-0".to_owned())));
        }
        assert_eq!(
            made.load(std::sync::atomic::Ordering::SeqCst),
            2,
            "a panic may have left it in any state"
        );
    }

    #[test]
    fn dropping_the_pool_waits_for_its_jobs() {
        let (done, results) = bounded(8);
        let pool = Pool::new("oz-task", 1, move |number: u32| done.send(number).unwrap());
        pool.give(1).unwrap();
        pool.give(2).unwrap();
        drop(pool);
        assert_eq!(results.try_iter().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_detached_thread_has_its_name_and_does_not_block_its_caller() {
        let (open, gate) = bounded::<()>(0);
        let (done, results) = bounded(1);
        let work = move || {
            let _ = gate.recv();
            done.send(std::thread::current().name().map(str::to_owned)).unwrap();
        };
        spawn_detached("oz-sweep", work).unwrap();
        assert!(results.try_recv().is_err(), "the thread still waits");
        drop(open);
        assert_eq!(results.recv_timeout(DEADLINE).unwrap().as_deref(), Some("oz-sweep"));
    }

    #[test]
    fn the_deepest_json_fits_on_the_stack() {
        // serde_json accepts 127 levels. An overflow would end the process.
        let json = format!("{}{}", "[".repeat(127), "]".repeat(127));
        let (done, parsed) = bounded(1);
        let parse = move || done.send(serde_json::from_str::<serde_json::Value>(&json).is_ok()).unwrap();
        spawn_detached("oz-task", parse).unwrap();
        assert_eq!(parsed.recv_timeout(DEADLINE), Ok(true));
    }

    #[test]
    fn other_work_runs_alongside_on_a_thread_of_its_own() {
        let (sender, receiver) = bounded(0);
        let other = || {
            sender.send(std::thread::current().name().map(str::to_owned)).unwrap();
            2
        };
        // Ends only if both run at once, because the channel has no room.
        let (name, result) = alongside("oz-trust", other, || receiver.recv_timeout(DEADLINE).unwrap());
        assert_eq!((name.as_deref(), result), (Some("oz-trust"), 2));
        let panics = || alongside("oz-trust", || panic!("on purpose"), || ());
        assert!(catch_unwind(panics).is_err());
    }

    #[test]
    fn parallel_work_runs_at_once_and_keeps_its_order() {
        let barrier = std::sync::Barrier::new(4);
        let work = |number: u32| {
            barrier.wait();
            assert_ne!(number, 2, "this one panics");
            number * 10
        };
        let own = || barrier.wait().is_leader();
        assert_eq!(beside(3, own, vec![1, 2, 3], work).1, [Some(10), None, Some(30)]);
        let own_thread = || std::thread::current().id();
        assert_eq!(beside(1, own_thread, Vec::new(), |number: u32| number), (own_thread(), Vec::new()));
        let (_, threads) = beside(0, || (), vec![1, 2], |_| std::thread::current().id());
        assert_eq!(threads, [Some(own_thread()); 2], "no further thread was allowed");
    }

    #[test]
    fn without_further_threads_parallel_work_is_done_by_the_caller() {
        let caller = this_thread();
        let work = |number: u32| {
            assert_ne!(number, 2, "this one panics");
            (number, this_thread())
        };
        let expected = [Some((1, caller.clone())), None, Some((3, caller))];
        assert_eq!(
            beside_with(NO_THREAD, 3, this_thread, vec![1, 2, 3], work),
            (this_thread(), expected.to_vec())
        );
    }
}
