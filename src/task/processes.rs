//! The processes of this worker, by the ids in the labels of what they created: which have ended.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use log::debug;

use crate::logging::value;
use crate::sys::host_lock::{self, HostLock};

/// The kind of a process's lock.
const LOCK: &str = "process";

/// This process, and those that it knows to have ended. Each process holds a lock while it runs.
#[derive(Debug)]
pub struct Processes {
    own: String,
    /// The locks of this process and of those that it has taken over. They are held until this process ends, so that no
    /// other process takes over the same objects. `None` where the system has no locks.
    locks: Mutex<BTreeMap<String, Option<HostLock>>>,
}

impl Processes {
    /// Takes the lock of this process, whose id is `own`.
    ///
    /// # Errors
    /// The system has no lock for it. Another process with this id is not expected.
    pub fn new(own: &str) -> io::Result<Self> {
        let lock = HostLock::take(&host_lock::name(LOCK, own))?.ok_or(io::ErrorKind::AddrInUse)?;
        Ok(Self::with(own, Some(lock)))
    }

    /// As [`Processes::new`], on a system without locks: every other process counts as ended.
    pub fn without_lock(own: &str) -> Self {
        Self::with(own, None)
    }

    fn with(own: &str, lock: Option<HostLock>) -> Self {
        Self { own: own.to_owned(), locks: Mutex::new(BTreeMap::from([(own.to_owned(), lock)])) }
    }

    /// The id of this process.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// Whether what the process `id` has created is this process's to handle: the process is this one or has ended. `None`
    /// stands for an object without a process. One that has ended is taken over; another process's call then returns `false`.
    pub fn owns(&self, id: Option<&str>) -> bool {
        let Some(id) = id else { return true };
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if locks.contains_key(id) {
            return true;
        }
        match HostLock::take(&host_lock::name(LOCK, id)) {
            Ok(None) => false,
            Ok(lock) => {
                locks.insert(id.to_owned(), lock);
                true
            }
            Err(error) => {
                debug!("process lock failed process={} error={}", value(id), value(&error.to_string()));
                locks.insert(id.to_owned(), None);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::hash_map::RandomState;
    use std::hash::{BuildHasher, Hasher};

    use super::*;

    fn process() -> Processes {
        Processes::new(&format!("{:x}", RandomState::new().build_hasher().finish())).unwrap()
    }

    #[test]
    fn a_process_owns_its_own_objects_and_not_those_of_one_that_runs() {
        let (first, second) = (process(), process());
        assert!(first.owns(Some(first.own())) && first.owns(None));
        assert!(!first.owns(Some(second.own())) && !second.owns(Some(first.own())));
    }

    #[test]
    fn objects_of_an_ended_process_go_to_one_process() {
        let (ended, first, second) = (process(), process(), process());
        let id = ended.own().to_owned();
        drop(ended);
        assert!(first.owns(Some(&id)) && first.owns(Some(&id)));
        assert!(!second.owns(Some(&id)), "the first has it");
        drop(first);
        assert!(second.owns(Some(&id)), "the first has ended, too");
    }

    #[test]
    fn without_locks_all_others_count_as_ended() {
        let process = Processes::without_lock("a");
        assert!(process.owns(Some("a")) && process.owns(Some("another one")));
    }
}
