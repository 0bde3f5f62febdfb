//! The Docker client: against a scripted engine for stalls, cuts and lies, and against a real one.

mod calls;
mod cancel;
mod engine;
mod real;
mod stalls;
mod uploads;
