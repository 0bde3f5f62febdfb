//! What the operating system gives: cancellable waits, threads and files.

pub mod cancel;
pub mod environment;
pub mod files;
pub mod pool;
