//! Operating system services: cancellation, threads, files and the environment.

pub mod cancel;
pub mod environment;
pub(crate) mod files;
#[cfg(test)]
pub(crate) mod numbers;
pub(crate) mod pool;
