//! Tracks which messages the peer has received: the pong for a ping confirms every message sent before that ping.

use std::collections::VecDeque;

/// The first bytes of every ping payload. Pongs without them are ignored.
const TAG: &[u8] = b"oz";

/// A ping is sent after this many messages even if more are queued.
const BATCH: u32 = 16;

/// The confirmations of one connection.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    /// Numbered messages sent since the last ping.
    batch: u32,
    /// The highest number sent.
    last: Option<u64>,
    /// The numbers in pings without a pong, oldest first.
    unanswered: VecDeque<u64>,
}

impl Confirms {
    /// Records that the message with this number was handed to the socket.
    pub(super) fn sent(&mut self, seq: u64) {
        self.batch += 1;
        self.last = Some(seq);
    }

    /// Whether messages were sent since the last ping.
    pub(super) fn needs_ping(&self) -> bool {
        self.batch > 0
    }

    /// Whether the ping must go before any further message.
    pub(super) fn batch_is_full(&self) -> bool {
        self.batch >= BATCH
    }

    /// Whether a ping that followed a message has no pong yet.
    pub(super) fn awaits_pong(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Returns the payload of the next ping, at most 10 bytes. A heartbeat carries the highest number too, because a
    /// peer with several unanswered pings may answer only the last (RFC 6455, 5.5.3).
    pub(super) fn next_ping(&mut self) -> Vec<u8> {
        let mut payload = TAG.to_vec();
        if let Some(seq) = self.last {
            payload.extend(seq.to_be_bytes());
            if self.batch > 0 {
                self.unanswered.push_back(seq);
            }
        }
        self.batch = 0;
        payload
    }

    /// Returns the highest number that a pong confirms, or `None` if it confirms nothing new.
    pub(super) fn pong(&mut self, payload: &[u8]) -> Option<u64> {
        let seq = payload.strip_prefix(TAG)?.try_into().ok().map(u64::from_be_bytes)?;
        let position = self.unanswered.iter().position(|&sent| sent == seq)?;
        self.unanswered.drain(..=position);
        Some(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ping_confirms_all_messages_before_it() {
        let mut confirms = Confirms::default();
        assert!(!confirms.needs_ping());
        confirms.sent(3);
        confirms.sent(4);
        assert!(confirms.needs_ping() && !confirms.batch_is_full());
        let ping = confirms.next_ping();
        assert!(!confirms.needs_ping() && confirms.awaits_pong());
        assert_eq!(confirms.pong(&ping), Some(4));
        assert!(!confirms.awaits_pong());
        assert_eq!(confirms.pong(&ping), None, "the second pong");
    }

    #[test]
    fn a_long_queue_does_not_delay_the_ping_for_ever() {
        let mut confirms = Confirms::default();
        (0..16).for_each(|seq| confirms.sent(seq));
        assert!(confirms.batch_is_full());
    }

    #[test]
    fn a_pong_does_not_confirm_later_messages() {
        let mut confirms = Confirms::default();
        let pings: Vec<_> = (1..=3)
            .map(|seq| {
                confirms.sent(seq);
                confirms.next_ping()
            })
            .collect();
        assert_eq!(confirms.pong(&pings[1]), Some(2));
        assert_eq!(confirms.pong(&pings[0]), None, "late");
        assert_eq!(confirms.pong(&pings[2]), Some(3));
    }

    #[test]
    fn the_pong_for_a_heartbeat_replaces_a_missing_one() {
        let mut confirms = Confirms::default();
        assert_eq!(confirms.next_ping(), b"oz");
        confirms.sent(7);
        confirms.next_ping();
        let heartbeat = confirms.next_ping();
        assert_eq!(confirms.pong(&heartbeat), Some(7));
    }

    #[test]
    fn unknown_pongs_confirm_nothing() {
        let mut confirms = Confirms::default();
        confirms.sent(1);
        let ping = confirms.next_ping();
        let long = [&ping[..], b"x"].concat();
        for payload in [&b""[..], b"oz", b"hello", &ping[..9], &long, b"oz\0\0\0\0\0\0\0\x02"] {
            assert_eq!(confirms.pong(payload), None, "{payload:?}");
        }
        assert_eq!(confirms.pong(&ping), Some(1));
    }
}
