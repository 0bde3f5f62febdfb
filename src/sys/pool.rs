//! The bounded pool: so many named threads, each of which takes one job after the other.
//!
//! Owns the threads that may block in Docker or in REST, the short-lived ones that one job may use beside its own, and those for a single errand.
//! It must not know what a job is. A job that panics ends alone.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle, scope};

use crossbeam_channel::{Receiver, Sender, bounded};

/// Threads that wait for jobs; dropping it waits for the jobs that run and ends them.
pub struct Pool<J: Send + 'static> {
    jobs: Option<Sender<J>>,
    threads: Vec<JoinHandle<()>>,
}

impl<J: Send + 'static> Pool<J> {
    /// Starts `size` threads, `oz-task-0` and so on, that run `work` on every job given.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start(size: usize, work: impl Fn(J) + Send + Sync + 'static) -> io::Result<Self> {
        Self::named((0..size).map(|number| format!("oz-task-{number}")), work)
    }

    /// Starts one thread of this name that runs `work` on every job given.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn single(name: &str, work: impl Fn(J) + Send + Sync + 'static) -> io::Result<Self> {
        Self::named(std::iter::once(name.to_owned()), work)
    }

    fn named(
        names: impl ExactSizeIterator<Item = String>,
        work: impl Fn(J) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        // As many jobs as threads can be handed over before one has taken its own: `give` never blocks as long as
        // its caller counts slots.
        let (sender, receiver) = bounded(names.len());
        let work = Arc::new(work);
        let start = |name: String| {
            let (receiver, work) = (receiver.clone(), Arc::clone(&work));
            Builder::new().name(name).spawn(move || serve(&receiver, work.as_ref()))
        };
        let threads = names.map(start).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { jobs: Some(sender), threads })
    }

    /// Hands a job to the next free thread. `false` when more jobs are under way than there are threads, or when the
    /// threads have ended.
    pub fn give(&self, job: J) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }

    /// Lets the threads be, for a process that ends at once.
    pub fn abandon(&mut self) {
        self.threads.clear();
    }
}

impl<J: Send + 'static> Drop for Pool<J> {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread ends with the channel only; its jobs' panics are caught.
            let _ = thread.join();
        }
    }
}

fn serve<J>(jobs: &Receiver<J>, work: &(impl Fn(J) + ?Sized)) {
    for job in jobs {
        // The panic hook has logged it; what the job held is dropped by the unwinding.
        let _ = catch_unwind(AssertUnwindSafe(|| work(job)));
    }
}

/// Runs `work` on a thread of this name that nobody waits for.
///
/// # Errors
/// When the system has no more threads.
pub fn spawn_detached(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // The panic hook logs what it panics with.
    Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// Runs `work` on every item at the same time, one thread each, and gives the results in the items' order. The first
/// item is worked on by the calling thread. `None` stands for one that panicked or could not be started.
pub fn parallel<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<Option<R>> {
    let name = std::thread::current().name().unwrap_or("oz-task").to_owned();
    let mut items = items.into_iter();
    let Some(first) = items.next() else { return Vec::new() };
    let work = &work;
    scope(|scope| {
        let start = |item| Builder::new().name(name.clone()).spawn_scoped(scope, move || work(item)).ok();
        let others: Vec<_> = items.map(start).collect();
        let first = catch_unwind(AssertUnwindSafe(|| work(first))).ok();
        let joined = others.into_iter().map(|thread| thread.and_then(|thread| thread.join().ok()));
        std::iter::once(first).chain(joined).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    #[test]
    fn as_many_jobs_run_at_once_as_there_are_threads() {
        let (arrived, arrivals) = bounded(8);
        let (open, gate) = bounded::<()>(0);
        let work = move |number: usize| {
            arrived.send((number, std::thread::current().name().unwrap_or_default().to_owned())).unwrap();
            let _ = gate.recv();
        };
        let pool = Pool::start(3, work).unwrap();
        for number in 0..3 {
            assert!(pool.give(number));
        }
        let mut names: Vec<_> = (0..3).map(|_| arrivals.recv_timeout(DEADLINE).unwrap().1).collect();
        names.sort();
        assert_eq!(names, ["oz-task-0", "oz-task-1", "oz-task-2"]);
        for number in 3..6 {
            assert!(pool.give(number));
        }
        assert!(!pool.give(6), "the pool is bounded");
        drop(open);
        for _ in 3..6 {
            arrivals.recv_timeout(DEADLINE).unwrap();
        }
    }

    #[test]
    fn a_panic_ends_one_job_and_not_its_thread() {
        let (done, results) = bounded(8);
        let pool = Pool::start(1, move |number: u32| {
            assert_ne!(number, 0, "this one panics");
            done.send(number).unwrap();
        })
        .unwrap();
        for number in 0..3 {
            while !pool.give(number) {
                std::thread::yield_now();
            }
        }
        assert_eq!(results.recv_timeout(DEADLINE), Ok(1));
        assert_eq!(results.recv_timeout(DEADLINE), Ok(2));
    }

    #[test]
    fn dropping_it_waits_for_the_jobs() {
        let (done, results) = bounded(8);
        let pool = Pool::start(2, move |number: u32| done.send(number).unwrap()).unwrap();
        assert!(pool.give(1));
        drop(pool);
        assert_eq!(results.try_recv(), Ok(1));
    }

    #[test]
    fn what_is_done_once_has_a_thread_of_its_own_that_nobody_waits_for() {
        let (open, gate) = bounded::<()>(0);
        let (done, results) = bounded(1);
        let work = move || {
            let _ = gate.recv();
            done.send(std::thread::current().name().map(str::to_owned)).unwrap();
        };
        spawn_detached("oz-sweep", work).unwrap();
        assert!(results.try_recv().is_err(), "it is still at it");
        drop(open);
        assert_eq!(results.recv_timeout(DEADLINE).unwrap().as_deref(), Some("oz-sweep"));
    }

    #[test]
    fn parallel_work_meets_and_keeps_its_order() {
        let barrier = std::sync::Barrier::new(3);
        let work = |number: u32| {
            barrier.wait();
            assert_ne!(number, 2, "this one panics");
            number * 10
        };
        assert_eq!(parallel(vec![1, 2, 3], work), [Some(10), None, Some(30)]);
        assert_eq!(parallel(Vec::new(), |number: u32| number), []);
    }
}
