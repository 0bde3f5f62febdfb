//! The messages that wait to be sent: a bounded queue, and a pipe that wakes the link's thread out of poll(2).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::pipe::{PipeFlags, pipe_with};
use thiserror::Error;

use super::{Epoch, Outbound};

/// The most messages that may wait. Each task sends a few at most, so the queue fills only when the peer stops
/// reading.
const CAPACITY: usize = 1024;

/// While the received messages that were not taken have this many bytes, no more are read. The last may exceed it by its own
/// length, so at most 20 MiB wait.
const MAX_UNTAKEN: usize = 4 << 20;

/// The queue is full: the message was not queued, and the link will drop its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many messages wait to be sent")]
pub struct OutboxFull;

/// The writing end of the wake pipe, and the flags that the link's thread reads after a wake-up.
struct Waker {
    pipe: OwnedFd,
    /// A byte is in the pipe or about to be written, so no other is needed.
    pending: AtomicBool,
    closing: AtomicBool,
    stop_waiting: AtomicBool,
    /// The upgrade request may be sent.
    may_upgrade: AtomicBool,
    /// A message was lost. A pong for a later message would confirm it too, so the connection must end.
    overflowed: AtomicBool,
    /// The bytes of the received messages that were not taken.
    untaken: AtomicUsize,
    /// By when the link's thread goes on, in milliseconds since `created`.
    goes_on_by: AtomicU64,
    created: Instant,
}

impl Waker {
    fn wake(&self) {
        if self.pending.swap(true, Ordering::AcqRel) {
            return;
        }
        // This fails only if the pipe is full, which wakes the reader too, or if the reader has ended.
        let _ = rustix::io::write(&self.pipe, &[1]);
    }
}

/// The sender's end.
pub(super) struct Outbox {
    queue: Sender<Outbound>,
    waker: Arc<Waker>,
}

/// The end of the link's thread.
pub(super) struct Inbox {
    queue: Receiver<Outbound>,
    waker: Arc<Waker>,
    pipe: OwnedFd,
}

/// Creates an empty queue.
///
/// # Errors
/// The pipe cannot be created.
pub(super) fn pair() -> io::Result<(Outbox, Inbox)> {
    let (sender, receiver) = bounded(CAPACITY);
    let (pipe, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let waker = Arc::new(Waker {
        pipe: writer,
        pending: AtomicBool::new(false),
        closing: AtomicBool::new(false),
        stop_waiting: AtomicBool::new(false),
        may_upgrade: AtomicBool::new(false),
        overflowed: AtomicBool::new(false),
        untaken: AtomicUsize::new(0),
        goes_on_by: AtomicU64::new(0),
        created: Instant::now(),
    });
    Ok((Outbox { queue: sender, waker: Arc::clone(&waker) }, Inbox { queue: receiver, waker, pipe }))
}

impl Outbox {
    /// Queues a message and wakes the link's thread; never blocks. Drops the message if the thread has ended.
    ///
    /// # Errors
    /// 1024 messages wait already.
    pub(super) fn push(&self, message: Outbound) -> Result<(), OutboxFull> {
        match self.queue.try_send(message) {
            Ok(()) => self.waker.wake(),
            Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.waker.overflowed.store(true, Ordering::Release);
                self.waker.wake();
                return Err(OutboxFull);
            }
        }
        Ok(())
    }

    /// Records that a received message was taken, and wakes the link's thread if it waits for that.
    pub(super) fn taken(&self, bytes: usize) {
        let before = self.waker.untaken.fetch_sub(bytes, Ordering::AcqRel);
        if before >= MAX_UNTAKEN && before - bytes < MAX_UNTAKEN {
            self.waker.wake();
        }
    }

    /// Tells the link to send the queued messages and close.
    pub(super) fn close(&self) {
        self.waker.closing.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Tells the link to end its wait between two attempts and to keep later ones short.
    pub(super) fn stop_waiting(&self) {
        self.waker.stop_waiting.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Returns how long the link's thread should have gone on before `now`.
    pub(super) fn overdue(&self, now: Instant) -> Duration {
        let goes_on_by = Duration::from_millis(self.waker.goes_on_by.load(Ordering::Acquire));
        now.saturating_duration_since(self.waker.created).saturating_sub(goes_on_by)
    }

    /// Lets the link send upgrade requests from now on.
    pub(super) fn allow_upgrade(&self) {
        self.waker.may_upgrade.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether the link may send upgrade requests.
    pub(super) fn may_upgrade(&self) -> bool {
        self.waker.may_upgrade.load(Ordering::Acquire)
    }
}

impl Inbox {
    /// Records a received message that is about to be handed on.
    pub(super) fn received(&self, bytes: usize) {
        self.waker.untaken.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Records by when the link's thread goes on, if nothing happens before.
    pub(super) fn goes_on_by(&self, until: Instant) {
        let millis = until.saturating_duration_since(self.waker.created).as_millis();
        self.waker.goes_on_by.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Whether no more messages may be received until some are taken.
    pub(super) fn is_full(&self) -> bool {
        self.waker.untaken.load(Ordering::Acquire) >= MAX_UNTAKEN
    }

    /// Empties the wake pipe. Call it before looking at the queue, or a message pushed in between is not noticed.
    pub(super) fn clear_wake(&self) {
        let mut bytes = [0; 16];
        while matches!(rustix::io::read(&self.pipe, &mut bytes), Ok(n) if n > 0) {}
        self.waker.pending.swap(false, Ordering::AcqRel);
    }

    /// Whether the link was asked to close.
    pub(super) fn closing(&self) -> bool {
        self.waker.closing.load(Ordering::Acquire)
    }

    /// Whether the link may send upgrade requests.
    pub(super) fn may_upgrade(&self) -> bool {
        self.waker.may_upgrade.load(Ordering::Acquire)
    }

    /// Whether the link was asked to stop waiting since the last call.
    pub(super) fn take_stop_waiting(&self) -> bool {
        self.waker.stop_waiting.swap(false, Ordering::AcqRel)
    }

    /// Whether a message was lost because the queue was full, since the last call.
    pub(super) fn take_overflowed(&self) -> bool {
        self.waker.overflowed.swap(false, Ordering::AcqRel)
    }

    /// Returns the next message for this connection, and drops those for any other.
    pub(super) fn next(&self, epoch: Epoch) -> Option<Outbound> {
        while let Ok(message) = self.queue.try_recv() {
            if message.epoch == epoch {
                return Some(message);
            }
            log::debug!("message dropped reason=\"connection has ended\" epoch={}", message.epoch.0);
        }
        None
    }

    /// Drops every queued message. Without a connection they are all for earlier ones.
    pub(super) fn discard_queued(&self) {
        while self.queue.try_recv().is_ok() {}
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::wait::wait;
    use super::*;
    use crate::protocol::{Dialect, ExecutionKey, Outgoing};

    fn message(epoch: u64, seq: u64) -> Outbound {
        let message = Outgoing::Claimed { key: ExecutionKey::default(), dialect: Dialect::Old };
        Outbound { epoch: Epoch(epoch), seq: Some(seq), message }
    }

    fn wakes(inbox: &Inbox) -> bool {
        wait(inbox, None, Instant::now()).unwrap().waker
    }

    #[test]
    fn pushes_wake_once_until_the_wake_is_cleared() {
        let (outbox, inbox) = pair().unwrap();
        assert!(!wakes(&inbox));
        outbox.push(message(1, 1)).unwrap();
        outbox.push(message(1, 2)).unwrap();
        assert!(wakes(&inbox));
        assert_eq!(rustix::io::read(&inbox.pipe, &mut [0; 16]).unwrap(), 1, "one byte for two pushes");
        inbox.clear_wake();
        assert!(!wakes(&inbox));
        outbox.push(message(1, 3)).unwrap();
        assert!(wakes(&inbox), "a push after the clear");
    }

    #[test]
    fn no_push_goes_unnoticed() {
        let (outbox, inbox) = pair().unwrap();
        let sender = std::thread::spawn(move || {
            for seq in 0..20_000 {
                while outbox.push(message(1, seq)).is_err() {
                    std::thread::yield_now();
                }
            }
            outbox
        });
        let mut expected = 0;
        while expected < 20_000 {
            let woken = wait(&inbox, None, Instant::now() + Duration::from_secs(20)).unwrap();
            assert!(woken.waker, "no wake after {expected} messages");
            inbox.clear_wake();
            while let Some(message) = inbox.next(Epoch(1)) {
                assert_eq!(message.seq, Some(expected));
                expected += 1;
            }
        }
        drop(sender.join().unwrap());
    }

    #[test]
    fn the_queue_is_bounded_and_never_blocks() {
        let (outbox, inbox) = pair().unwrap();
        for seq in 0..1024 {
            outbox.push(message(1, seq)).unwrap();
        }
        assert_eq!(outbox.push(message(1, 1024)), Err(OutboxFull));
        inbox.discard_queued();
        outbox.push(message(1, 1025)).unwrap();
        drop(inbox);
        assert_eq!(outbox.push(message(1, 1026)), Ok(()), "a thread that has ended is not a full queue");
    }

    #[test]
    fn messages_for_another_connection_are_dropped() {
        let (outbox, inbox) = pair().unwrap();
        for (epoch, seq) in [(1, 1), (1, 2), (2, 3), (1, 4), (3, 5), (2, 6)] {
            outbox.push(message(epoch, seq)).unwrap();
        }
        let sent: Vec<_> =
            std::iter::from_fn(|| inbox.next(Epoch(2))).filter_map(|message| message.seq).collect();
        assert_eq!(sent, [3, 6]);
    }

    #[test]
    fn stop_waiting_wakes_and_is_reported_once() {
        let (outbox, inbox) = pair().unwrap();
        assert!(!inbox.take_stop_waiting());
        outbox.stop_waiting();
        assert!(wakes(&inbox));
        assert!(inbox.take_stop_waiting());
        assert!(!inbox.take_stop_waiting());
        assert!(!inbox.closing());
    }

    #[test]
    fn a_close_keeps_the_messages_pushed_before_it() {
        let (outbox, inbox) = pair().unwrap();
        outbox.push(message(1, 1)).unwrap();
        assert!(!inbox.closing());
        outbox.close();
        assert!(wakes(&inbox) && inbox.closing() && inbox.next(Epoch(1)).is_some());
    }
}
