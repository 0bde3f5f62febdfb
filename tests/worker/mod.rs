//! The worker as a process, against a control plane and a real engine.

mod adopt;
mod agent_script;
mod cancel;
mod check;
mod concurrency;
mod container_limits;
mod cost;
mod egress;
mod engine_faults;
mod executions;
mod exit_codes;
mod failed_tasks;
mod floods;
mod frozen;
mod idle;
mod invalid_messages;
mod limits;
mod log_format;
mod monitoring;
mod notify;
mod output;
mod podman;
mod policies;
mod print_settings;
mod prometheus;
mod prune;
mod pull;
mod reconcile;
mod reconnect;
mod registry_credentials;
mod secrets;
mod settings;
mod shared_id;
mod sidecar_volumes;
mod signals;
mod start;
mod status;
mod stop;
mod stored;
mod system_calls;
mod task_lifecycle;
mod threads;
mod upstream;
mod warm;

use std::io::Read;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};

use crate::support::stage::DEADLINE;

/// Accepts a connection, reads its first byte and never answers. The peer waits until the result is dropped.
pub(crate) fn accept_and_stall<S: Read>(listener: &impl AsFd, accept: impl Fn() -> std::io::Result<S>) -> S {
    let timeout = rustix::event::Timespec::try_from(DEADLINE).unwrap();
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1), "no connection");
    let mut stream = accept().unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}
