//! What is to be sent: a bounded queue, and a byte in a pipe that wakes the link's thread out of its poll.
//!
//! Owns the order "push, then wake" and its mirror "take the wake back, then look". It must not know the socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::pipe::{PipeFlags, pipe_with};
use thiserror::Error;

use super::{Epoch, Outbound};

/// How many messages may wait. Main sends at most a few for each task, so this is reached only when the peer takes
/// nothing any more.
const CAPACITY: usize = 1024;

/// There is no room for another message; it was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many messages wait to be sent")]
pub struct OutboxFull;

/// What both ends share.
struct Bell {
    pipe: OwnedFd,
    /// A byte is in the pipe, or is about to be: nobody need write another.
    rung: AtomicBool,
    closing: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        // It fails only for a pipe that is full, which wakes as well, or for a reader that is gone.
        let _ = rustix::io::write(&self.pipe, &[1]);
    }
}

/// The end that main holds.
pub(super) struct Outbox {
    queue: Sender<Outbound>,
    bell: Arc<Bell>,
}

/// The end that the link's thread holds.
pub(super) struct Inbox {
    queue: Receiver<Outbound>,
    bell: Arc<Bell>,
    pipe: OwnedFd,
}

/// A new pair.
pub(super) fn pair() -> io::Result<(Outbox, Inbox)> {
    let (queue, waiting) = bounded(CAPACITY);
    let (pipe, ringer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let (rung, closing) = (AtomicBool::new(false), AtomicBool::new(false));
    let bell = Arc::new(Bell { pipe: ringer, rung, closing });
    Ok((Outbox { queue, bell: Arc::clone(&bell) }, Inbox { queue: waiting, bell, pipe }))
}

impl Outbox {
    /// Queues a message; never blocks. One for a thread that has ended is dropped like one for a connection that
    /// has ended.
    pub(super) fn push(&self, message: Outbound) -> Result<(), OutboxFull> {
        match self.queue.try_send(message) {
            Ok(()) => self.bell.ring(),
            Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => return Err(OutboxFull),
        }
        Ok(())
    }

    /// Asks for the orderly end.
    pub(super) fn close(&self) {
        self.bell.closing.store(true, Ordering::Release);
        self.bell.ring();
    }
}

impl Inbox {
    /// Takes the wake back. Must come before a look at the queue, or a message pushed in between is left lying.
    pub(super) fn quiet(&self) {
        let mut bytes = [0; 16];
        while matches!(rustix::io::read(&self.pipe, &mut bytes), Ok(n) if n > 0) {}
        self.bell.rung.swap(false, Ordering::AcqRel);
    }

    /// Whether the end was asked for.
    pub(super) fn closing(&self) -> bool {
        self.bell.closing.load(Ordering::Acquire)
    }

    /// The next message for this connection; those meant for another are dropped.
    pub(super) fn next(&self, epoch: Epoch) -> Option<Outbound> {
        while let Ok(message) = self.queue.try_recv() {
            if message.epoch == epoch {
                return Some(message);
            }
            log::debug!("message dropped why=\"meant for an earlier connection\" epoch={}", message.epoch.0);
        }
        None
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Drops what waits. Between two connections it can only be meant for those that have ended.
    pub(super) fn clear(&self) {
        while self.queue.try_recv().is_ok() {}
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
