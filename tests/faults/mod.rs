//! What must never be lost, leaked or done twice, whatever happens to the worker: faults at seeded random moments, and counts.

mod kills;
