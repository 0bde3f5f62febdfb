//! Which messages the peer's process has received: the bookkeeping of the pings that follow them.
//!
//! Pure. A peer answers pings in order, so the pong for a ping that was sent after a message proves its arrival. Owns
//! the payload of every ping. It must not know the socket.

use std::collections::VecDeque;

/// Starts the payload of each of our pings; a pong without it is not an answer to one of them.
const TAG: &[u8] = b"oz";

/// After so many messages the ping is sent even though more are waiting.
const BATCH: u32 = 16;

/// The state of one connection.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    /// Messages with a number that were sent since the last ping.
    batch: u32,
    /// The newest number that was sent.
    last: Option<u64>,
    /// The numbers that pings have asked for, oldest first.
    asked: VecDeque<u64>,
}

impl Confirms {
    /// A message with this number has been handed to the socket.
    pub(super) fn sent(&mut self, seq: u64) {
        self.batch += 1;
        self.last = Some(seq);
    }

    /// Whether a message waits for its ping.
    pub(super) fn pending(&self) -> bool {
        self.batch > 0
    }

    /// Whether so many wait that the ping is to go before any other message.
    pub(super) fn full(&self) -> bool {
        self.batch >= BATCH
    }

    /// Whether a ping that asked for a message has had no answer yet.
    pub(super) fn waiting(&self) -> bool {
        !self.asked.is_empty()
    }

    /// The payload of the next ping, of at most 10 bytes. That of a mere heartbeat has the newest number as well: a
    /// peer with several pings to answer may answer only the last (RFC 6455, 5.5.3).
    pub(super) fn ping(&mut self) -> Vec<u8> {
        let mut payload = TAG.to_vec();
        if let Some(seq) = self.last {
            payload.extend(seq.to_be_bytes());
            if self.batch > 0 {
                self.asked.push_back(seq);
            }
        }
        self.batch = 0;
        payload
    }

    /// The number that a pong confirms, and all before it with it; `None` for one that confirms nothing new.
    pub(super) fn pong(&mut self, payload: &[u8]) -> Option<u64> {
        let seq = payload.strip_prefix(TAG)?.try_into().ok().map(u64::from_be_bytes)?;
        let position = self.asked.iter().position(|&asked| asked == seq)?;
        self.asked.drain(..=position);
        Some(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ping_asks_for_all_that_were_sent_together() {
        let mut confirms = Confirms::default();
        assert!(!confirms.pending());
        confirms.sent(3);
        confirms.sent(4);
        assert!(confirms.pending() && !confirms.full());
        let ping = confirms.ping();
        assert!(!confirms.pending() && confirms.waiting());
        assert_eq!(confirms.pong(&ping), Some(4));
        assert!(!confirms.waiting());
        assert_eq!(confirms.pong(&ping), None, "twice");
    }

    #[test]
    fn a_long_queue_does_not_put_the_ping_off_for_ever() {
        let mut confirms = Confirms::default();
        (0..16).for_each(|seq| confirms.sent(seq));
        assert!(confirms.full());
    }

    #[test]
    fn a_pong_confirms_those_before_it_and_no_later_one() {
        let mut confirms = Confirms::default();
        let pings: Vec<_> = (1..=3)
            .map(|seq| {
                confirms.sent(seq);
                confirms.ping()
            })
            .collect();
        assert_eq!(confirms.pong(&pings[1]), Some(2));
        assert_eq!(confirms.pong(&pings[0]), None, "late");
        assert_eq!(confirms.pong(&pings[2]), Some(3));
    }

    #[test]
    fn the_answer_to_a_heartbeat_can_stand_for_a_swallowed_pong() {
        let mut confirms = Confirms::default();
        assert_eq!(confirms.ping(), b"oz");
        confirms.sent(7);
        confirms.ping();
        let heartbeat = confirms.ping();
        assert_eq!(confirms.pong(&heartbeat), Some(7));
    }

    #[test]
    fn foreign_pongs_confirm_nothing() {
        let mut confirms = Confirms::default();
        confirms.sent(1);
        let ping = confirms.ping();
        let long = [&ping[..], b"x"].concat();
        for payload in [&b""[..], b"oz", b"hello", &ping[..9], &long, b"oz\0\0\0\0\0\0\0\x02"] {
            assert_eq!(confirms.pong(payload), None, "{payload:?}");
        }
        assert_eq!(confirms.pong(&ping), Some(1));
    }
}
