//! At most one process of this host has a worker's id, unless the operator shares it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use log::warn;

use crate::logging::value;
use crate::sys::cancel::CancelToken;
use crate::sys::host_lock::{self, HostLock};
use crate::task::processes::Processes;

/// How long a lock may still be held by a process that is being killed.
const KILLED: Duration = Duration::from_secs(1);

/// The pause between two attempts to take it.
const PAUSE: Duration = Duration::from_millis(20);

/// What sharing an id costs, for the warning.
const SHARED: &str = "several processes may have this worker id; some control planes send a cancel to one of them only, and fail \
                      the tasks of all when one disconnects";

/// The worker's id is in use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "worker id {worker_id:?} is in use by {}; stop that, set another --worker-id, or set --shared-id to run both",
    processes(.others)
)]
pub struct InUse {
    worker_id: String,
    /// The process ids of the others.
    others: Vec<String>,
}

/// This process as the holder of a worker's id, until it is dropped.
pub(super) struct Instance {
    /// `None` if another process has it too, or where the system has no locks.
    _exclusive: Option<HostLock>,
    /// Its name ends with the process id, for the others.
    _present: Option<HostLock>,
}

impl Instance {
    /// Takes the worker's id. With `shared`, others may have it too; `warns` tells whether the control plane may not expect that. Where the system has no locks, logs that and succeeds.
    ///
    /// # Errors
    /// Another process of this host has the id.
    pub(super) fn take(
        worker_id: &str,
        shared: bool,
        warns: bool,
        starting: &CancelToken,
    ) -> Result<Self, InUse> {
        let name = host_lock::name("worker", worker_id);
        let present = format!("{name}/{}", std::process::id());
        if shared {
            // First, so that a process that does not share sees it.
            let present = lock(&present, Duration::ZERO, starting);
            if warns {
                warn!("worker id shared others={} reason={}", others(&name).len(), value(SHARED));
            }
            let exclusive = lock(&name, Duration::ZERO, starting).flatten();
            return Ok(Self { _exclusive: exclusive, _present: present.flatten() });
        }
        let give_up = Instant::now() + KILLED;
        let exclusive = lock(&name, KILLED, starting);
        let mut others_left = others(&name);
        while !others_left.is_empty() && Instant::now() < give_up && starting.sleep(PAUSE) {
            others_left = others(&name);
        }
        let is_held = matches!(exclusive, Some(None));
        if is_held || !others_left.is_empty() {
            return Err(InUse { worker_id: worker_id.to_owned(), others: others_left });
        }
        let present = lock(&present, Duration::ZERO, starting).flatten();
        Ok(Self { _exclusive: exclusive.flatten(), _present: present })
    }
}

/// Returns the process ids of the processes of this host that have a worker's id.
pub(super) fn pids_of(worker_id: &str) -> Vec<String> {
    others(&host_lock::name("worker", worker_id))
}

/// Returns a new process of this worker, with its lock.
pub(super) fn new_process() -> Processes {
    let id = format!("{:016x}", RandomState::new().build_hasher().finish());
    Processes::new(&id).unwrap_or_else(|error| {
        warn!("process lock failed error={}", value(&error.to_string()));
        Processes::without_lock(&id)
    })
}

/// Takes a lock, and waits for it for at most `limit`. Returns `Some(None)` if it is held. If the system has no locks, logs that and
/// returns `None`.
fn lock(name: &str, limit: Duration, starting: &CancelToken) -> Option<Option<HostLock>> {
    let give_up = Instant::now() + limit;
    loop {
        match HostLock::take(name) {
            Ok(None) if Instant::now() < give_up && starting.sleep(PAUSE) => {}
            Ok(lock) => return Some(lock),
            Err(error) => {
                warn!("worker id not locked error={}", value(&error.to_string()));
                return None;
            }
        }
    }
}

/// Returns the process ids of the other processes with this worker id.
fn others(name: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    host_lock::held(&format!("{name}/")).into_iter().filter(|id| *id != own).collect()
}

fn processes(ids: &[String]) -> String {
    match ids {
        [] => "another process on this host".to_owned(),
        [one] => format!("process {one} on this host"),
        several => format!("the processes {} on this host", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_processes() {
        let message = |others: &[&str]| {
            let others = others.iter().map(|id| (*id).to_owned()).collect();
            InUse { worker_id: "w".to_owned(), others }.to_string()
        };
        let rest = "; stop that, set another --worker-id, or set --shared-id to run both";
        assert_eq!(message(&["7"]), format!("worker id \"w\" is in use by process 7 on this host{rest}"));
        assert!(message(&["7", "8"]).contains(" by the processes 7, 8 on this host;"));
        assert!(message(&[]).contains(" by another process on this host;"));
    }

    #[test]
    fn an_id_is_taken_once_unless_it_is_shared() {
        let id = new_process().own().to_owned();
        let starting = CancelToken::new();
        let first = Instance::take(&id, false, false, &starting).unwrap();
        assert!(Instance::take(&id, false, false, &starting).is_err());
        let second = Instance::take(&id, true, true, &starting).unwrap();
        drop(first);
        drop(second);
        assert!(Instance::take(&id, false, false, &starting).is_ok());
    }
}
