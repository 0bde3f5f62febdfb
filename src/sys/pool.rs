//! Threads: a bounded pool for jobs, detached threads, and parallel work within one job. A panic ends only its own job.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle, scope};

use crossbeam_channel::{Receiver, Sender, bounded};

/// A fixed number of threads that run jobs. Dropping it waits for the jobs that were given, and ends the threads.
pub(crate) struct Pool<J: Send + 'static> {
    jobs: Option<Sender<J>>,
    threads: Vec<JoinHandle<()>>,
}

impl<J: Send + 'static> Pool<J> {
    /// Starts `size` threads, named `oz-task-0` and so on, that run `work` for each job.
    ///
    /// # Errors
    /// If the system has no more threads.
    pub(crate) fn start(size: usize, work: impl Fn(J) + Send + Sync + 'static) -> io::Result<Self> {
        Self::named((0..size).map(|number| format!("oz-task-{number}")), work)
    }

    /// Starts one thread of this name that runs `work` for each job.
    ///
    /// # Errors
    /// If the system has no more threads.
    pub(crate) fn single(name: &str, work: impl Fn(J) + Send + Sync + 'static) -> io::Result<Self> {
        Self::named(std::iter::once(name.to_owned()), work)
    }

    fn named(
        names: impl ExactSizeIterator<Item = String>,
        work: impl Fn(J) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        // Holds one job for each thread, so that `give` succeeds for a free thread that has not come back to the channel yet.
        let (sender, receiver) = bounded(names.len());
        let work = Arc::new(work);
        let start = |name: String| {
            let receiver = receiver.clone();
            let work = Arc::clone(&work);
            Builder::new().name(name).spawn(move || serve(&receiver, work.as_ref()))
        };
        let threads = names.map(start).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { jobs: Some(sender), threads })
    }

    /// Queues a job for the next free thread. Returns `false` if the queue, which has one place for each thread, is full.
    pub(crate) fn give(&self, job: J) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }

    /// Detaches the threads, so that the drop does not wait for them: for a process that is about to end.
    pub(crate) fn abandon(&mut self) {
        self.threads.clear();
    }
}

impl<J: Send + 'static> Drop for Pool<J> {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // Never fails, because panics of jobs are caught.
            let _ = thread.join();
        }
    }
}

fn serve<J>(jobs: &Receiver<J>, work: &(impl Fn(J) + ?Sized)) {
    for job in jobs {
        // The panic hook has logged it.
        let _ = catch_unwind(AssertUnwindSafe(|| work(job)));
    }
}

/// Runs `work` on a detached thread of this name. The panic hook logs its panics.
///
/// # Errors
/// If the system has no more threads.
pub(crate) fn spawn_detached(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// Runs `work` for all items in parallel and returns the results in their order. The calling thread takes the first item, and
/// each other item has its own thread. A result is `None` if its work panicked or its thread could not be started.
pub(crate) fn parallel<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<Option<R>> {
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
    fn each_thread_runs_one_job_at_a_time() {
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
    fn a_panic_ends_the_job_and_not_its_thread() {
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
    fn dropping_the_pool_waits_for_its_jobs() {
        let (done, results) = bounded(8);
        let pool = Pool::start(2, move |number: u32| done.send(number).unwrap()).unwrap();
        assert!(pool.give(1));
        drop(pool);
        assert_eq!(results.try_recv(), Ok(1));
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
    fn parallel_work_runs_at_once_and_keeps_its_order() {
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
