//! When to ping, when a connection is dead, when to try again and when to give up.
//!
//! Pure: the time and the randomness are passed in. It must not know sockets or threads.

use std::time::Duration;

/// The deadlines and intervals of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Reaching any of the peer's addresses (10 s).
    pub connect: Duration,
    /// The whole of connect, TLS and upgrade (20 s).
    pub handshake: Duration,
    /// Between two pings on an idle connection (30 s).
    pub ping_every: Duration,
    /// Without a byte from the peer for so long, the connection is dead (60 s).
    pub dead_after: Duration,
    /// The first wait before another attempt (1 s).
    pub backoff_min: Duration,
    /// The longest wait before another attempt (60 s).
    pub backoff_max: Duration,
    /// A connection that lasted so long was a success (30 s).
    pub stable_after: Duration,
    /// How long a close may go on without progress (5 s).
    pub close_wait: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(10),
            handshake: seconds(20),
            ping_every: seconds(30),
            dead_after: seconds(60),
            backoff_min: seconds(1),
            backoff_max: seconds(60),
            stable_after: seconds(30),
            close_wait: seconds(5),
        }
    }
}
