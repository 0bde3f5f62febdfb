//! Operating system services: cancellation, threads, files and the environment.

pub mod cancel;
pub mod environment;
pub(crate) mod files;
pub(crate) mod pool;
