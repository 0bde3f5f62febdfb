//! Operating system services: cancellation, threads, files, limits and the environment.

pub mod cancel;
pub mod environment;
pub(crate) mod files;
pub mod host_lock;
pub(crate) mod limits;
#[cfg(test)]
pub(crate) mod numbers;
pub(crate) mod pool;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod uptime;
