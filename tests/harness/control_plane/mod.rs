//! Tests of the stand-in for the control plane, on which the tests of the worker depend.

mod check;
mod claims;
mod disconnects;
pub(crate) mod fake_worker;
mod faults;
mod handshake;
mod upstream;
