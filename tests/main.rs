//! Every integration test, in one binary: one folder a subject.

// Clippy's leave for tests covers functions marked #[test]; here the helpers fail a test as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod link;
