//! Remembers which images have no output file, so that only the first task of an image looks for one before its start.
//!
//! The files of an image, and of a volume that is populated from one, do not change. With a mount of the operator or a volume that
//! the task may write to, nothing is remembered.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::plan::Plan;
use super::prepare::Prepared;

/// The most entries that are remembered.
const MAX_KNOWN: usize = 256;

/// The images, with their sidecars, that have no output file.
#[derive(Default)]
pub(super) struct NoOutput(Mutex<HashSet<String>>);

impl NoOutput {
    pub(super) fn contains(&self, key: &str) -> bool {
        self.lock().contains(key)
    }

    /// Remembers an answer that is certain: the container existed after it.
    pub(super) fn insert(&self, key: String) {
        let mut known = self.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the key of a container that is created from this; `None` if its files may differ each time.
pub(super) fn key(plan: &Plan, prepared: &Prepared<'_>) -> Option<String> {
    if !plan.binds.is_empty() || plan.sidecars.iter().any(|sidecar| sidecar.read_write) {
        return None;
    }
    let mounts = plan.sidecars.iter().zip(&prepared.volumes);
    let mounts = mounts.map(|(sidecar, populated)| format!("{} {}", populated.volume, sidecar.mount_path));
    Some(std::iter::once(prepared.image.clone()).chain(mounts).collect::<Vec<_>>().join("\n"))
}
