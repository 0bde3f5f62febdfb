//! The WebSocket link to the control plane: one thread that owns the socket, dials, reads, writes, pings and
//! reconnects.
//!
//! Owns the handle [`Link`] and what crosses the door: events out, messages in, both as text. It must not know what the
//! messages mean, and it decides nothing about tasks.

mod answer;
mod confirm;
mod dial;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod outbox;
mod session;
mod socket;
mod supervise;
mod timers;
mod wait;
mod wire;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use http::Uri;

use crate::protocol::{Incoming, Invalid, Outgoing};
use crate::secret::Secret;
use crate::sys::cancel::Never;

pub use self::error::{LinkError, LinkErrorKind};
pub use self::outbox::OutboxFull;
pub use self::timers::Timing;

/// Where to connect, as whom, and how long to try.
#[derive(Clone)]
pub struct LinkConfig {
    /// `ws` or `wss`, with the `worker_id` already in the query.
    pub url: Uri,
    /// Sent as the bearer.
    pub api_key: Secret,
    /// Part of claims.
    pub worker_id: String,
    /// After so many failures in a row the link gives up; 0 for never.
    pub max_attempts: u32,
    /// The failures count only when they all lie within so long a time; zero for any time.
    pub window: Duration,
    /// Deadlines and intervals.
    pub timing: Timing,
}

/// The number of a connection: 1 for the first, and higher for each later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// What the link tells. `Fatal` and `Closed` are the last. Its `Debug` shows no message: an assignment holds secrets.
#[derive(Clone, PartialEq)]
pub enum LinkEvent {
    /// A connection stands.
    Up {
        /// Its number, for [`Outbound::epoch`].
        epoch: Epoch,
    },
    /// A text frame came, at most 16 MiB: a message, or what is wrong with the frame.
    Message(Result<Incoming, Invalid>),
    /// A binary message came; its content is dropped.
    Binary {
        /// Its size.
        bytes: usize,
    },
    /// The peer's process has received the message with this number, and all that were sent before it on this
    /// connection.
    Confirmed {
        /// [`Outbound::seq`].
        seq: u64,
    },
    /// The first attempt to connect has failed; another follows. Only ever before an `Up`.
    Failed,
    /// The connection has ended; another attempt follows. Only ever after an `Up`.
    Down {
        /// For people.
        why: String,
    },
    /// No other attempt will be made.
    Fatal(LinkError),
    /// The end that [`Link::close`] asked for.
    Closed,
}

/// A message for the peer. Its `Debug` does not show the text.
#[derive(Clone, PartialEq)]
pub struct Outbound {
    /// The connection that it is meant for: it is dropped, never sent, on any other.
    pub epoch: Epoch,
    /// With a number the link finds out whether it has arrived ([`LinkEvent::Confirmed`]). Numbers rise within a
    /// connection.
    pub seq: Option<u64>,
    /// The message. The link's thread encodes it when its turn comes.
    pub message: Outgoing,
}

impl fmt::Debug for LinkEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up { epoch } => write!(f, "Up({})", epoch.0),
            Self::Message(Ok(Incoming::Assignment(assignment))) => {
                write!(f, "Assignment({:?})", assignment.task_id)
            }
            Self::Message(message) => write!(f, "Message({message:?})"),
            Self::Binary { bytes } => write!(f, "Binary({bytes} bytes)"),
            Self::Confirmed { seq } => write!(f, "Confirmed({seq})"),
            Self::Failed => f.write_str("Failed"),
            Self::Down { why } => write!(f, "Down({why:?})"),
            Self::Fatal(error) => write!(f, "Fatal({error:?})"),
            Self::Closed => f.write_str("Closed"),
        }
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outbound({}, {:?}, {})", self.epoch.0, self.seq, self.message.kind())
    }
}

/// The handle of the link's thread. Dropping it closes the link, without waiting for the end.
pub struct Link {
    outbox: outbox::Outbox,
    thread: Option<JoinHandle<()>>,
    /// Closes when the thread has ended.
    ended: Receiver<Never>,
}

impl Link {
    /// Starts the thread `oz-link`, which connects at once and sends what it has to tell to `events`.
    ///
    /// `events` should be bounded: the thread waits while it is full, so its receiver must be read until the last
    /// event. When the receiver is dropped the thread ends: at once when it waits for room, else with the next event.
    ///
    /// # Errors
    /// No pipe or no thread can be made.
    pub fn start(config: LinkConfig, events: Sender<LinkEvent>) -> io::Result<Self> {
        let (outbox, inbox) = outbox::pair()?;
        let body = move |events: &Sender<LinkEvent>| supervise::supervise(&config, inbox, events);
        let (thread, ended) = spawn(events, body)?;
        Ok(Self { outbox, thread: Some(thread), ended })
    }

    /// Queues a message; never blocks. It is dropped when its connection has ended by the time its turn comes.
    ///
    /// # Errors
    /// 1024 messages wait already. The connection is then given up, since a later message's confirmation would stand for this
    /// one too.
    pub fn send(&self, message: Outbound) -> Result<(), OutboxFull> {
        self.outbox.push(message)
    }

    /// Asks for the orderly end: what is queued is sent, then a close frame, then the peer's is waited for, for at most
    /// [`Timing::close_wait`]. Without a connection the end comes at once (a DNS look-up is not interrupted).
    /// [`LinkEvent::Closed`] follows.
    pub fn close(&self) {
        self.outbox.close();
    }

    /// From now on no wait before another attempt is longer than 2 s, and one that is under way ends now: for a worker that
    /// is about to stop and still has something to tell. Failures count as before.
    pub fn stop_waiting(&self) {
        self.outbox.stop_waiting();
    }

    /// Waits for the thread's end, which a [`close`](Self::close) or a fatal error brings, until `deadline`;
    /// `false` says that it still runs.
    pub fn join(&mut self, deadline: Instant) -> bool {
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_deadline(deadline) {
            return false;
        }
        // A panic in the thread has been an event already.
        self.thread.take().map(JoinHandle::join);
        true
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

/// Runs `body` in the thread `oz-link`; a panic in it becomes an event.
fn spawn(
    events: Sender<LinkEvent>,
    body: impl FnOnce(&Sender<LinkEvent>) + Send + 'static,
) -> io::Result<(JoinHandle<()>, Receiver<Never>)> {
    let (alive, ended) = bounded(0);
    let thread = std::thread::Builder::new().name("oz-link".to_owned()).spawn(move || {
        let _alive: Sender<Never> = alive;
        if catch_unwind(AssertUnwindSafe(|| body(&events))).is_err() {
            // A receiver that is gone has ended the process already.
            let _ = events.send(LinkEvent::Fatal(LinkError::Panicked));
        }
    })?;
    Ok((thread, ended))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::{Assignment, EncodedReport, FailureReason, Report};

    #[test]
    fn a_panic_in_the_thread_is_an_event_and_the_end() {
        let (events, told) = bounded(4);
        let (thread, ended) = spawn(events, |_| panic!("on purpose")).unwrap();
        assert_eq!(told.recv().unwrap(), LinkEvent::Fatal(LinkError::Panicked));
        assert!(ended.recv().is_err());
        thread.join().unwrap();
    }

    #[test]
    fn no_message_is_shown() {
        let assignment = Assignment {
            task_id: "t".to_owned(),
            additional_oz_args: vec!["hunter2".to_owned()],
            ..Assignment::default()
        };
        let message = LinkEvent::Message(Ok(Incoming::Assignment(Arc::new(assignment))));
        let report =
            Report { output: "hunter2".to_owned(), ..Report::failed("t", FailureReason::Internal, "m") };
        let report = Arc::new(EncodedReport::new(report, "w"));
        let outbound = Outbound { epoch: Epoch(1), seq: None, message: Outgoing::Report(report) };
        assert_eq!(format!("{message:?} {outbound:?}"), "Assignment(\"t\") Outbound(1, None, task_failed)");
    }

    #[test]
    fn each_error_is_of_one_kind() {
        assert!(LinkError::Unauthorized.permanent());
        assert_eq!(LinkError::GaveUp { failures: 3, why: String::new() }.kind(), LinkErrorKind::GaveUp);
        assert_eq!(LinkError::Panicked.kind(), LinkErrorKind::Panicked);
        assert!(!LinkError::Panicked.permanent());
    }
}
