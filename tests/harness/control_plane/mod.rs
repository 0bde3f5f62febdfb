//! The stand-in for the control plane: what it gets wrong, every test with a whole worker gets wrong.

mod check;
mod claims;
mod ends;
pub(crate) mod fake_worker;
mod handshake;
