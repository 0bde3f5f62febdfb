//! The REST look-ups: against the test control plane and against faulty servers.

mod faulty_servers;
mod lookups;
mod tls;
