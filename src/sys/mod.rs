//! Operating system services: cancellation, threads, files and the environment.

pub mod cancel;
pub mod environment;
pub mod files;
pub mod pool;
