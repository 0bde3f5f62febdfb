//! The stand-in for the control plane: what it gets wrong, every test with a whole worker gets wrong.

mod check;
mod claims;
pub(crate) mod client;
mod door;
mod ends;
