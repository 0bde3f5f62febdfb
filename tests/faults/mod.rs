//! Faults put in on purpose: nothing is lost, run twice or left behind.

mod engine;
