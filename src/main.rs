//! The command: arguments, logger, run, exit code.

fn main() {}
