//! The regular check of the engine and its disk, on a thread of its own.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;

use super::disk::DiskWatch;
use crate::docker::Docker;
use crate::logging::error_chain;
use crate::sys::cancel::CancelToken;
use crate::sys::pool::spawn_detached;

/// What a check found: why the engine does not answer, and why its disk has too little space, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) engine: Option<String>,
    pub(super) disk: Option<String>,
}

/// Makes one check at a time.
pub(super) struct Checker {
    docker: Docker,
    disk: Option<DiskWatch>,
    results: Sender<Found>,
    is_running: Arc<AtomicBool>,
}

impl Checker {
    /// Returns a checker that sends to `results`.
    pub(super) fn new(docker: Docker, disk: Option<DiskWatch>, results: Sender<Found>) -> Self {
        Self { docker, disk, results, is_running: Arc::default() }
    }

    /// Starts a check, unless one is running. Its result is sent if something cannot be used, or else if `tell` is set. Without that,
    /// the main thread sleeps on.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(super) fn start(&self, tell: bool) -> io::Result<()> {
        if self.is_running.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let (docker, disk) = (self.docker.clone(), self.disk.clone());
        let (results, is_running) = (self.results.clone(), Arc::clone(&self.is_running));
        let check = move || {
            let check = || {
                let engine = docker.ping(&CancelToken::new()).err().map(|error| error_chain(&error));
                Found { engine, disk: disk.as_ref().and_then(DiskWatch::low) }
            };
            // A panic, which is logged, must not end the checks.
            let found = catch_unwind(AssertUnwindSafe(check)).ok();
            is_running.store(false, Ordering::Release);
            if let Some(found) = found.filter(|found| tell || found.engine.is_some() || found.disk.is_some())
            {
                // If the channel is full, the main thread has a result that it did not take yet.
                let _ = results.try_send(found);
            }
        };
        let started = spawn_detached("oz-ping", check);
        if started.is_err() {
            self.is_running.store(false, Ordering::Release);
        }
        started
    }
}
