//! One connection, from its first frame to its end: the poll loop.
//!
//! Owns the order of a turn: read what is there, send what can be sent, look at the clock, wait. It must not know how the
//! connection came to be, or what follows it.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use log::{debug, warn};

use super::confirm::Confirms;
use super::outbox::Inbox;
use super::socket::{CloseReason, Fault, Incoming, Socket};
use super::timers::Heartbeat;
use super::wait::{Want, wait};
use super::{Epoch, LinkConfig, LinkEvent};
use crate::logging::{message, value};
use crate::protocol::{decode, encode};

/// The most messages that are read, and the most that are sent, before the other direction has its turn.
const TURN: usize = 64;

/// The most bytes that are decoded before the other direction has its turn; a single message may be longer.
const INPUT_BUDGET: usize = 1 << 20;

/// Why the connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was lost, refused or closed by the peer.
    Lost(String),
    /// Nobody listens to the events any more.
    Abandoned,
    /// The end that was asked for.
    Closed,
}

enum Stop {
    Fault(Fault),
    PeerClosed(String),
    End(End),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

pub(super) struct Session<'a> {
    socket: Socket,
    inbox: &'a Inbox,
    events: &'a Sender<LinkEvent>,
    worker_id: &'a str,
    epoch: Epoch,
    close_wait: Duration,
    dead_after: Duration,
    heart: Heartbeat,
    confirms: Confirms,
    /// Since when a confirmation is waited for without any that came; a full send buffer puts it off.
    unanswered: Option<Instant>,
    /// The last flush was stopped by a full send buffer.
    blocked: bool,
    /// Set once the end was asked for: when the close last made progress, and bytes accepted until then.
    closing: Option<(Instant, u64)>,
    /// Our close frame is queued.
    close_sent: bool,
}

/// What one turn may read: so many messages, and so many bytes of them to decode.
struct Budget {
    messages: usize,
    bytes: usize,
}

impl Budget {
    fn new() -> Self {
        Self { messages: TURN, bytes: INPUT_BUDGET }
    }

    fn is_left(&self) -> bool {
        self.messages > 0 && self.bytes > 0
    }

    fn next_message(&mut self) {
        self.messages = self.messages.saturating_sub(1);
    }

    fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl<'a> Session<'a> {
    pub(super) fn new(
        socket: Socket,
        inbox: &'a Inbox,
        events: &'a Sender<LinkEvent>,
        link: &'a LinkConfig,
        epoch: Epoch,
    ) -> Self {
        let timing = &link.timing;
        Self {
            socket,
            inbox,
            events,
            worker_id: &link.worker_id,
            epoch,
            close_wait: timing.close_wait,
            dead_after: timing.dead_after,
            heart: Heartbeat::new(timing, Instant::now()),
            confirms: Confirms::default(),
            unanswered: None,
            blocked: false,
            closing: None,
            close_sent: false,
        }
    }

    /// Runs until the connection has ended; the socket is closed when it returns.
    pub(super) fn run(mut self) -> End {
        let stop = loop {
            match self.turn() {
                Ok(until) => {
                    if let Err(error) = self.wait(until) {
                        break Stop::End(End::Lost(format!("cannot wait for the socket: {error}")));
                    }
                }
                Err(stop) => break stop,
            }
        };
        match stop {
            Stop::End(end) => end,
            Stop::Fault(Fault::Lost(why)) => End::Lost(why),
            Stop::PeerClosed(why) => {
                // The control plane waits for us to end the connection: only our reply goes out first.
                self.linger(false);
                End::Lost(why)
            }
            Stop::Fault(Fault::Refused(reason, why)) => {
                warn!("closing the connection reply={reason:?} why={}", message(&why));
                if self.socket.queue_close(reason).is_ok() {
                    self.linger(true);
                }
                End::Lost(why)
            }
        }
    }

    /// Everything that can be done without waiting, within bounds; then says until when to wait.
    fn turn(&mut self) -> Result<Instant, Stop> {
        // Before anything is read: a pong that is there by now may be for what came after the lost message.
        if self.inbox.overflowed() {
            return Err(Stop::End(End::Lost("too many messages wait to be sent".to_owned())));
        }
        let was_blocked = self.blocked;
        // Not `||`: both have their turn.
        let more = self.read_some()? | self.write_some()?;
        let now = Instant::now();
        let (received, accepted) = self.socket.counts();
        self.heart.observe(now, received, accepted, was_blocked || self.blocked);
        // After the close frame there are no pings either.
        let mute = self.blocked || self.close_sent;
        if self.heart.dead(now, mute) {
            return Err(Stop::End(End::Lost("the peer has fallen silent".to_owned())));
        }
        self.check_answers(now, mute)?;
        let next = self.heart.next(mute);
        let close_by = self.close_by(now, accepted)?;
        Ok(if more { now } else { close_by.map_or(next, |at| at.min(next)) })
    }

    /// A peer that talks but does not answer pings would keep a claim or a report waiting for ever. The heartbeat's own
    /// wake-ups are often enough to notice.
    fn check_answers(&mut self, now: Instant, mute: bool) -> Result<(), Stop> {
        if !self.confirms.waiting() {
            self.unanswered = None;
        } else if mute || self.unanswered.is_none() {
            self.unanswered = Some(now);
        }
        match self.unanswered {
            Some(since) if now >= since + self.dead_after => {
                Err(Stop::End(End::Lost("the peer does not answer pings".to_owned())))
            }
            _ => Ok(()),
        }
    }

    /// When a close that was asked for is given up: after so long a time without progress.
    fn close_by(&mut self, now: Instant, accepted: u64) -> Result<Option<Instant>, Stop> {
        if !self.inbox.closing() {
            return Ok(None);
        }
        let (progress, before) = *self.closing.get_or_insert((now, accepted));
        if accepted != before {
            self.closing = Some((now, accepted));
            return Ok(Some(now + self.close_wait));
        }
        if now >= progress + self.close_wait {
            debug!("close given up why=\"no answer\"");
            return Err(Stop::End(End::Closed));
        }
        Ok(Some(progress + self.close_wait))
    }

    fn wait(&self, until: Instant) -> io::Result<()> {
        let want = Want { socket: self.socket.as_fd(), write: self.blocked, read: true };
        if wait(self.inbox, Some(want), until)?.waker {
            self.inbox.clear();
        }
        Ok(())
    }

    /// Reads until nothing is there; `true` says that there may be more.
    fn read_some(&mut self) -> Result<bool, Stop> {
        let mut budget = Budget::new();
        while budget.is_left() {
            let event = match self.socket.read()? {
                Incoming::Nothing => return Ok(false),
                Incoming::Closed(_) if self.close_sent => return Err(Stop::End(End::Closed)),
                Incoming::Closed(why) => return Err(Stop::PeerClosed(why)),
                Incoming::Pong(payload) => {
                    let seq = self.confirms.pong(&payload);
                    if seq.is_some() {
                        self.unanswered = None;
                    }
                    seq.map(|seq| LinkEvent::Confirmed { seq })
                }
                // Nothing is taken any more.
                Incoming::Text(_) | Incoming::Binary(_) if self.close_sent => None,
                Incoming::Text(text) => {
                    budget.spend(text.len());
                    Some(LinkEvent::Message(decode(&text)))
                }
                Incoming::Binary(bytes) => Some(LinkEvent::Binary { bytes }),
                Incoming::Handled => None,
            };
            budget.next_message();
            if let Some(event) = event {
                self.events.send(event).map_err(|_| Stop::End(End::Abandoned))?;
            }
        }
        Ok(true)
    }

    /// Flush, take one, flush: tungstenite never holds a second message while the first is not out. `true` says that
    /// there may be more.
    fn write_some(&mut self) -> Result<bool, Stop> {
        for _ in 0..TURN {
            self.blocked = !self.socket.flush()?;
            if self.blocked || !self.queue_one()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Queues the next frame that is due; `false` says that none is.
    fn queue_one(&mut self) -> Result<bool, Stop> {
        if self.close_sent {
            return Ok(false);
        }
        // Before the look at the queue: what was pushed before the close was asked for is then seen.
        let closing = self.inbox.closing();
        if self.confirms.full() || self.heart.ping_due(Instant::now()) {
            self.queue_ping()?;
        } else if let Some(message) = self.inbox.next(self.epoch) {
            let text = encode(&message.message, self.worker_id);
            let (task, kind) = (value(message.message.task_id()), message.message.kind());
            debug!("message sent task={task} type={kind} bytes={}", text.len());
            self.socket.queue_text(text)?;
            message.seq.into_iter().for_each(|seq| self.confirms.sent(seq));
        } else if self.confirms.pending() {
            self.queue_ping()?;
        } else if closing {
            self.socket.queue_close(CloseReason::Leaving)?;
            self.close_sent = true;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn queue_ping(&mut self) -> Result<(), Fault> {
        self.heart.pinged(Instant::now());
        self.socket.queue_ping(self.confirms.ping())
    }

    /// Sends what is queued, within `close_wait`. With `linger` it also takes what the peer still sends, until it closes:
    /// bytes left unread would make the kernel reset the connection, and the close frame could be lost with it.
    fn linger(&mut self, linger: bool) {
        let until = Instant::now() + self.close_wait;
        while Instant::now() < until && !self.inbox.closing() {
            let Ok(flushed) = self.socket.flush() else { return };
            if linger && !self.socket.discard() || flushed && !linger {
                return;
            }
            let want = Want { socket: self.socket.as_fd(), write: !flushed, read: linger };
            match wait(self.inbox, Some(want), until) {
                Ok(woken) if woken.waker => self.inbox.clear(),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many messages of `bytes` each are read in one turn.
    fn read_in_a_turn(bytes: usize) -> usize {
        let mut budget = Budget::new();
        std::iter::from_fn(|| {
            budget.is_left().then(|| {
                budget.spend(bytes);
                budget.next_message();
            })
        })
        .count()
    }

    #[test]
    fn a_turn_reads_no_more_than_its_budget() {
        assert_eq!(read_in_a_turn(0), TURN);
        assert_eq!(read_in_a_turn(100), TURN);
        assert_eq!(read_in_a_turn(INPUT_BUDGET / 4), 4);
        assert_eq!(read_in_a_turn(INPUT_BUDGET - 1), 2);
        assert_eq!(read_in_a_turn(16 << 20), 1, "a long message is read whole");
    }
}
