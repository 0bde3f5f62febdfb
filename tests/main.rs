//! Every integration test, in one binary: one folder a subject.
