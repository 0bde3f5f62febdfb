//! One connection, from its first frame to its end: the poll loop.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use log::debug;

use super::confirm::Confirms;
use super::frames::Skipped;
use super::outbox::{Inbox, OutboxFull};
use super::socket::{CloseReason, Fault, Received, Socket};
use super::timers::Heartbeat;
use super::wait::{Want, wait};
use super::wire::LIMITS;
use super::{Epoch, LinkConfig, LinkEvent, Outbound};
use crate::logging::message;
use crate::protocol::{Dialect, Incoming, Invalid, decode, encode, too_long};

/// The most messages that are read or sent before the other direction has its turn.
const TURN: usize = 64;

/// The most bytes that are read, and that are decoded, before the other direction has its turn. A single message may be longer
/// than what is decoded.
const INPUT_BUDGET: usize = 1 << 20;

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SessionEnd {
    /// The connection was lost, refused or closed by the peer, for this reason.
    Lost(String),
    /// The link was asked to close.
    Closed,
    /// The receiver of the link's events was dropped.
    ReceiverDropped,
}

/// Why the poll loop ended.
enum LoopEnd {
    Fault(Fault),
    /// The peer sent a close frame, described here.
    PeerClosed(String),
    /// The link was asked to close, and the peer has replied or its reply is overdue.
    Closed,
    ReceiverDropped,
}

impl LoopEnd {
    fn lost(reason: impl Into<String>) -> Self {
        Self::Fault(Fault::Lost(reason.into()))
    }
}

impl From<Fault> for LoopEnd {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

pub(super) struct Session<'a> {
    socket: Socket,
    inbox: &'a Inbox,
    events: &'a Sender<LinkEvent>,
    worker_id: &'a str,
    /// The dialect of the control plane's host, if it is known.
    host: Option<Dialect>,
    epoch: Epoch,
    close_wait: Duration,
    dead_after: Duration,
    heart: Heartbeat,
    confirms: Confirms,
    /// When the wait for the oldest missing pong began. It restarts with every pong and while `blocked`.
    awaiting_pong_since: Option<Instant>,
    /// The kernel's send buffer was full at the last flush.
    blocked: bool,
    /// While closing: when the kernel last accepted bytes, and how many in all.
    close_progress: Option<(Instant, u64)>,
    /// Our close frame is queued, and nothing can follow it.
    close_sent: bool,
}

/// What one turn may still read and decode.
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
            host: link.url.host().and_then(Dialect::of_host),
            epoch,
            close_wait: timing.close_wait,
            dead_after: timing.dead_after,
            heart: Heartbeat::new(timing, Instant::now()),
            confirms: Confirms::default(),
            awaiting_pong_since: None,
            blocked: false,
            close_progress: None,
            close_sent: false,
        }
    }

    /// Runs until the connection has ended, and closes the socket.
    pub(super) fn run(mut self) -> SessionEnd {
        let end = loop {
            let until = match self.turn() {
                Ok(until) => until,
                Err(end) => break end,
            };
            if let Err(error) = self.wait(until) {
                break LoopEnd::lost(format!("cannot wait for the socket: {error}"));
            }
        };
        match end {
            LoopEnd::Closed => SessionEnd::Closed,
            LoopEnd::ReceiverDropped => SessionEnd::ReceiverDropped,
            LoopEnd::Fault(Fault::Lost(reason)) => SessionEnd::Lost(reason),
            LoopEnd::PeerClosed(reason) => {
                // The control plane leaves it to the worker to close the TCP connection, so only the reply is sent first.
                self.finish(false);
                SessionEnd::Lost(reason)
            }
            LoopEnd::Fault(Fault::Refused(close, reason)) => {
                debug!("closing connection code={} reason={}", close.code().0, message(&reason));
                if self.socket.queue_close(close).is_ok() {
                    self.finish(true);
                }
                SessionEnd::Lost(reason)
            }
        }
    }

    /// Does everything that can be done without waiting, within bounds. Returns until when to wait.
    ///
    /// # Errors
    /// The loop must end.
    fn turn(&mut self) -> Result<Instant, LoopEnd> {
        // Before reading: a pong that has arrived since may be for a message after the lost one.
        if self.inbox.take_overflowed() {
            return Err(LoopEnd::lost(OutboxFull.to_string()));
        }
        let was_blocked = self.blocked;
        let more_to_read = self.read_some()?;
        let more_to_write = self.write_some()?;
        let now = Instant::now();
        let (received, accepted) = self.socket.counts();
        self.heart.observe(now, received, accepted, was_blocked || self.blocked);
        let cannot_ping = self.blocked || self.close_sent;
        if self.heart.is_dead(now, cannot_ping) {
            return Err(LoopEnd::lost("the control plane has stopped responding"));
        }
        self.check_pongs(now, cannot_ping)?;
        let close_by = self.close_by(now, accepted)?;
        if more_to_read || more_to_write {
            return Ok(now);
        }
        let next = self.heart.next_check(cannot_ping);
        Ok(close_by.map_or(next, |close_by| close_by.min(next)))
    }

    /// Ends the loop if pongs are missing for `dead_after`: a peer that sends other frames but no pongs would keep claims
    /// and reports unconfirmed for ever. The wake-ups for the heartbeat are frequent enough for this check.
    fn check_pongs(&mut self, now: Instant, cannot_ping: bool) -> Result<(), LoopEnd> {
        if !self.confirms.awaits_pong() {
            self.awaiting_pong_since = None;
        } else if cannot_ping || self.awaiting_pong_since.is_none() {
            self.awaiting_pong_since = Some(now);
        }
        match self.awaiting_pong_since {
            Some(since) if now >= since + self.dead_after => {
                Err(LoopEnd::lost("the control plane does not answer pings"))
            }
            _ => Ok(()),
        }
    }

    /// While closing, returns when to give up: `close_wait` after the last progress.
    fn close_by(&mut self, now: Instant, accepted: u64) -> Result<Option<Instant>, LoopEnd> {
        if !self.inbox.closing() {
            return Ok(None);
        }
        let (mut progress_at, before) = *self.close_progress.get_or_insert((now, accepted));
        if accepted != before {
            progress_at = now;
            self.close_progress = Some((now, accepted));
        }
        let close_by = progress_at + self.close_wait;
        if now >= close_by {
            debug!("close given up reason=\"no reply\"");
            return Err(LoopEnd::Closed);
        }
        Ok(Some(close_by))
    }

    fn wait(&self, until: Instant) -> io::Result<()> {
        self.inbox.goes_on_by(until);
        let read = !self.inbox.is_full();
        let want = Want { socket: self.socket.as_fd(), write: self.blocked, read };
        // poll(2) reports a hang-up also if nothing is asked for.
        let want = (self.blocked || read).then_some(want);
        if wait(self.inbox, want, until)?.waker {
            self.inbox.clear_wake();
        }
        Ok(())
    }

    /// Reads within the budget of a turn, and nothing while too much waits to be taken. Returns whether there may be more to
    /// read.
    fn read_some(&mut self) -> Result<bool, LoopEnd> {
        let mut budget = Budget::new();
        self.socket.allow(INPUT_BUDGET);
        while budget.is_left() {
            if self.inbox.is_full() {
                return Ok(false);
            }
            let event = match self.socket.read()? {
                Received::Nothing => return Ok(self.socket.is_exhausted()),
                Received::Closed(_) if self.close_sent => return Err(LoopEnd::Closed),
                Received::Closed(reason) => return Err(LoopEnd::PeerClosed(reason)),
                Received::Pong(payload) => {
                    let seq = self.confirms.pong(&payload);
                    if seq.is_some() {
                        self.awaiting_pong_since = None;
                    }
                    seq.map(|seq| LinkEvent::Confirmed { seq })
                }
                // Nothing is accepted after our close frame.
                Received::Text(_) | Received::Skipped(_) | Received::Binary(_) if self.close_sent => None,
                Received::Text(text) => {
                    budget.spend(text.len());
                    Some(self.message(decode(&text, self.host), text.len()))
                }
                Received::Skipped(Skipped { beginning, bytes, .. }) => {
                    let message = Err(too_long(&beginning, bytes, LIMITS.stored, self.host));
                    Some(self.message(message, beginning.len()))
                }
                Received::Binary(bytes) => {
                    budget.spend(bytes);
                    Some(LinkEvent::Binary { bytes })
                }
                Received::Handled => None,
            };
            budget.next_message();
            if let Some(event) = event {
                self.events.send(event).map_err(|_| LoopEnd::ReceiverDropped)?;
            }
        }
        Ok(true)
    }

    fn message(&self, message: Result<Incoming, Invalid>, bytes: usize) -> LinkEvent {
        // Many small members take more memory than their text.
        let bytes = match &message {
            Ok(Incoming::Assignment(assignment)) => bytes.max(assignment.size()),
            _ => bytes,
        };
        self.inbox.received(bytes);
        LinkEvent::Message { message, bytes }
    }

    /// Sends at most [`TURN`] frames. Returns whether there may be more to send. It flushes every frame before it queues
    /// the next, so that tungstenite buffers one at a time.
    fn write_some(&mut self) -> Result<bool, LoopEnd> {
        for _ in 0..TURN {
            self.blocked = !self.socket.flush()?;
            if self.blocked || !self.queue_one()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Queues the next frame that is due. Returns false if none is.
    fn queue_one(&mut self) -> Result<bool, LoopEnd> {
        if self.close_sent {
            return Ok(false);
        }
        // Read before the queue, so that every message pushed before the close is sent.
        let closing = self.inbox.closing();
        if self.confirms.batch_is_full() || self.heart.ping_due(Instant::now()) {
            self.queue_ping()?;
        } else if let Some(Outbound { seq, message, .. }) = self.inbox.next(self.epoch) {
            let text = encode(&message, self.worker_id);
            let key = message.key();
            debug!("message sent {key} type={} bytes={}", message.kind(), text.len());
            self.socket.queue_text(text)?;
            if let Some(seq) = seq {
                self.confirms.sent(seq);
            }
        } else if self.confirms.needs_ping() {
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
        self.socket.queue_ping(self.confirms.next_ping())
    }

    fn finish(&mut self, linger: bool) {
        finish(&mut self.socket, self.inbox, self.close_wait, linger);
    }
}

/// Sends the queued frames, for at most `limit`. With `linger` it also reads and drops what the peer sends, until the peer closes:
/// with unread bytes the kernel would reset the connection, and the peer might never get the close frame.
pub(super) fn finish(socket: &mut Socket, inbox: &Inbox, limit: Duration, linger: bool) {
    let until = Instant::now() + limit;
    inbox.goes_on_by(until);
    while Instant::now() < until && !inbox.closing() {
        let Ok(flushed) = socket.flush() else { return };
        let done = if linger { !socket.discard() } else { flushed };
        if done {
            return;
        }
        let want = Want { socket: socket.as_fd(), write: !flushed, read: linger };
        match wait(inbox, Some(want), until) {
            Ok(woken) if woken.waker => inbox.clear_wake(),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how many messages of this size one turn reads.
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
        assert_eq!(read_in_a_turn(16 << 20), 1, "a long message is read completely");
    }
}
