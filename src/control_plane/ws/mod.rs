//! The WebSocket link to the control plane: a thread that connects, sends and receives messages, pings and reconnects.

mod answer;
mod confirm;
mod dial;
mod error;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod outbox;
mod probe;
mod session;
mod socket;
mod supervise;
mod timers;
mod upgrade;
mod wait;
mod wire;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use http::Uri;

use super::Network;
use crate::control_plane::key::ApiKey;
use crate::protocol::{Incoming, Invalid, Outgoing};
use crate::sys::cancel::Never;

pub use self::dial::Passed;
pub use self::error::{LinkError, LinkErrorKind, Refusal};
pub use self::outbox::OutboxFull;
pub use self::probe::{NotConnected, probe, proxy_of};
pub use self::timers::Timing;

/// The settings of the link.
#[derive(Clone)]
pub struct LinkConfig {
    /// A `ws` or `wss` URL with the `worker_id` in its query.
    pub url: Uri,
    /// The bearer token. Its file is read again before each attempt to connect.
    pub api_key: ApiKey,
    /// Sent with claims.
    pub worker_id: String,
    /// The link gives up after this many consecutive failures; 0 means never.
    pub max_attempts: u32,
    /// Only failures within this time count towards `max_attempts`; zero means all of them.
    pub window: Duration,
    /// Deadlines and intervals.
    pub timing: Timing,
    /// Proxies and certificates.
    pub network: Network,
}

/// The number of a connection, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// An event of the link. `Fatal` and `Closed` are the last. `Debug` shows no assignment, because it contains secrets.
#[derive(Clone, PartialEq)]
pub enum LinkEvent {
    /// Connected.
    Up {
        /// Its number, for [`Outbound::epoch`].
        epoch: Epoch,
    },
    /// A text message, decoded, or a message that was too long.
    Message {
        /// The message, or why it is none.
        message: Result<Incoming, Invalid>,
        /// Its bytes, for [`Link::taken`].
        bytes: usize,
    },
    /// A binary message, whose content is dropped.
    Binary {
        /// Its length.
        bytes: usize,
    },
    /// The peer has received the message with this number and all messages before it on this connection.
    Confirmed {
        /// [`Outbound::seq`].
        seq: u64,
    },
    /// An attempt to connect has failed, and another follows unless [`LinkEvent::Fatal`] comes next.
    Failed,
    /// An attempt to connect was refused, as by an answer such as 404. Another follows unless [`LinkEvent::Fatal`] comes next: whether
    /// a refusal ends the worker is decided by the receiver.
    Refused(Refused),
    /// The connection of the last `Up` has ended, and another attempt follows.
    Down {
        /// The cause, for people.
        reason: String,
    },
    /// The link has ended because of an error.
    Fatal(LinkError),
    /// The link has ended after [`Link::close`].
    Closed,
}

/// A refused attempt to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why, and what an operator can check.
    pub refusal: Refusal,
    /// The beginning of the answer's body, at most 200 characters, without the API key. Log it escaped.
    pub body: String,
    /// The wait before the next attempt; `None` if there is none.
    pub retry_in: Option<Duration>,
}

/// A message to send. `Debug` shows only its kind.
#[derive(Clone, PartialEq)]
pub struct Outbound {
    /// The connection to send it on. Without that connection the message is dropped.
    pub epoch: Epoch,
    /// A number for [`LinkEvent::Confirmed`], higher than that of every earlier message on the connection. `None` asks for
    /// no confirmation.
    pub seq: Option<u64>,
    /// The message. The link's thread encodes it just before sending.
    pub message: Outgoing,
}

impl fmt::Debug for LinkEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up { epoch } => write!(f, "Up({})", epoch.0),
            Self::Message { message: Ok(Incoming::Assignment(assignment)), .. } => {
                write!(f, "Assignment({})", assignment.key)
            }
            Self::Message { message, .. } => write!(f, "Message({message:?})"),
            Self::Binary { bytes } => write!(f, "Binary({bytes} bytes)"),
            Self::Confirmed { seq } => write!(f, "Confirmed({seq})"),
            Self::Failed => f.write_str("Failed"),
            Self::Refused(refused) => write!(f, "{refused:?}"),
            Self::Down { reason } => write!(f, "Down({reason:?})"),
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

/// The handle of the link's thread. Dropping it closes the link without waiting for the thread.
pub struct Link {
    outbox: outbox::Outbox,
    thread: Option<JoinHandle<()>>,
    /// Disconnected once the thread has ended.
    ended: Receiver<Never>,
}

impl Link {
    /// Starts the thread `oz-link`, which connects and sends its events to `events`. It goes as far as the TLS handshake at
    /// once; the upgrade, which makes it appear at the control plane, follows after [`allow_upgrade`](Self::allow_upgrade).
    ///
    /// The thread blocks while the channel is full, so read it until the last event. The thread ends with the next event
    /// after the receiver is dropped.
    ///
    /// # Errors
    /// The pipe or the thread cannot be created.
    pub fn start(config: LinkConfig, events: Sender<LinkEvent>) -> io::Result<Self> {
        let (outbox, inbox) = outbox::pair()?;
        let body = move |events: &Sender<LinkEvent>| supervise::supervise(&config, inbox, events);
        let (thread, ended) = spawn(events, body)?;
        Ok(Self { outbox, thread: Some(thread), ended })
    }

    /// Lets the link appear at the control plane.
    pub fn allow_upgrade(&self) {
        self.outbox.allow_upgrade();
    }

    /// Returns how long the link's thread should have gone on before `now`; zero while it works as it should, and once it has
    /// ended.
    pub fn overdue(&self, now: Instant) -> Duration {
        let has_ended = self.ended.try_recv().is_err_and(|error| error.is_disconnected());
        if has_ended { Duration::ZERO } else { self.outbox.overdue(now) }
    }

    /// Closes the link and waits at most `limit` for its end. Does not wait if it may not have appeared at the control plane.
    pub fn end(&mut self, limit: Duration) {
        self.close();
        if self.outbox.may_upgrade() {
            self.join(Instant::now() + limit);
        }
    }

    /// Queues a message; never blocks.
    ///
    /// # Errors
    /// 1024 messages wait already. The link then drops the connection, because the confirmation of a later message would
    /// include this one.
    pub fn send(&self, message: Outbound) -> Result<(), OutboxFull> {
        self.outbox.push(message)
    }

    /// Call it for every [`LinkEvent::Message`] that was received. The link stops reading while 4 MiB of messages were not taken.
    pub fn taken(&self, bytes: usize) {
        self.outbox.taken(bytes);
    }

    /// Closes the link: sends the queued messages and a close frame, and waits for the peer's, for at most
    /// [`Timing::close_wait`] without progress. An attempt to connect is cut short, except during the DNS look-up.
    /// [`LinkEvent::Closed`] follows.
    pub fn close(&self) {
        self.outbox.close();
    }

    /// Ends the wait between two attempts and limits later ones to 2 s, for a worker that is stopping and still has
    /// reports to send. Failures count as before.
    pub fn stop_waiting(&self) {
        self.outbox.stop_waiting();
    }

    /// Waits until `deadline` for the thread to end, after [`close`](Self::close) or a fatal error. Returns whether it has.
    pub fn join(&mut self, deadline: Instant) -> bool {
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_deadline(deadline) {
            return false;
        }
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported as an event.
            let _ = thread.join();
        }
        true
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

/// Runs `body` on the thread `oz-link`. A panic becomes [`LinkError::Panicked`].
fn spawn(
    events: Sender<LinkEvent>,
    body: impl FnOnce(&Sender<LinkEvent>) + Send + 'static,
) -> io::Result<(JoinHandle<()>, Receiver<Never>)> {
    let (alive, ended) = bounded(0);
    let thread = std::thread::Builder::new().name("oz-link".to_owned()).spawn(move || {
        let _alive: Sender<Never> = alive;
        if catch_unwind(AssertUnwindSafe(|| body(&events))).is_err() {
            // Fails if the receiver is dropped; then the event is not needed.
            let _ = events.send(LinkEvent::Fatal(LinkError::Panicked));
        }
    })?;
    Ok((thread, ended))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::{Assignment, Dialect, EncodedReport, ExecutionKey, FailureReason, Report};

    #[test]
    fn a_panic_of_the_thread_is_its_last_event() {
        let (events, received) = bounded(4);
        let (thread, ended) = spawn(events, |_| panic!("on purpose")).unwrap();
        assert_eq!(received.recv().unwrap(), LinkEvent::Fatal(LinkError::Panicked));
        assert!(ended.recv().is_err());
        thread.join().unwrap();
    }

    #[test]
    fn debug_shows_no_message() {
        let assignment = Assignment {
            key: ExecutionKey::new("t", None),
            additional_oz_args: vec!["hunter2".to_owned()],
            ..Assignment::default()
        };
        let message =
            LinkEvent::Message { message: Ok(Incoming::Assignment(Arc::new(assignment))), bytes: 1 };
        let report = Report {
            output: "hunter2".to_owned(),
            ..Report::failed(&ExecutionKey::new("t", None), Dialect::Old, FailureReason::Internal, "m")
        };
        let report = Arc::new(EncodedReport::new(report, "w"));
        let outbound = Outbound { epoch: Epoch(1), seq: None, message: Outgoing::Report(report) };
        assert_eq!(format!("{message:?} {outbound:?}"), "Assignment(task=t) Outbound(1, None, task_failed)");
    }

    #[test]
    fn errors_have_kinds() {
        assert_eq!(LinkError::Unusable { reason: "" }.kind(), LinkErrorKind::Permanent);
        assert_eq!(LinkError::GaveUp { failures: 3, reason: String::new() }.kind(), LinkErrorKind::GaveUp);
        assert_eq!(LinkError::Panicked.kind(), LinkErrorKind::Panicked);
    }
}
