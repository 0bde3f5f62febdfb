//! Faults put in on purpose, many of them and at random moments: nothing is lost, run twice or left behind.
//!
//! Each test says what it counts.

mod signals;
