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

/// There is no room for another message; it was not queued, and its connection will be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many messages wait to be sent")]
pub struct OutboxFull;

/// What both ends share.
struct Waker {
    pipe: OwnedFd,
    /// A byte is in the pipe, or is about to be: nobody need write another.
    woken: AtomicBool,
    closing: AtomicBool,
    stop_waiting_requested: AtomicBool,
    /// A message found no room, so what comes after it must not be confirmed: that would confirm it too.
    overflowed: AtomicBool,
}

impl Waker {
    fn wake(&self) {
        if self.woken.swap(true, Ordering::AcqRel) {
            return;
        }
        // It fails only for a pipe that is full, which wakes as well, or for a reader that is gone.
        let _ = rustix::io::write(&self.pipe, &[1]);
    }
}

/// The end that main holds.
pub(super) struct Outbox {
    queue: Sender<Outbound>,
    waker: Arc<Waker>,
}

/// The end that the link's thread holds.
pub(super) struct Inbox {
    queue: Receiver<Outbound>,
    waker: Arc<Waker>,
    pipe: OwnedFd,
}

/// A new pair.
pub(super) fn pair() -> io::Result<(Outbox, Inbox)> {
    let (queue, waiting) = bounded(CAPACITY);
    let (pipe, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let [woken, closing, stop_waiting_requested, overflowed] = [const { AtomicBool::new(false) }; 4];
    let waker = Arc::new(Waker { pipe: writer, woken, closing, stop_waiting_requested, overflowed });
    Ok((Outbox { queue, waker: Arc::clone(&waker) }, Inbox { queue: waiting, waker, pipe }))
}

impl Outbox {
    /// Queues a message; never blocks. One for a thread that has ended is dropped like one for a connection that
    /// has ended.
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

    /// Asks for the orderly end.
    pub(super) fn close(&self) {
        self.waker.closing.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Asks for shorter waits between connections.
    pub(super) fn stop_waiting(&self) {
        self.waker.stop_waiting_requested.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Inbox {
    /// Takes the wake back. Must come before a look at the queue, or a message pushed in between is left lying.
    pub(super) fn clear(&self) {
        let mut bytes = [0; 16];
        while matches!(rustix::io::read(&self.pipe, &mut bytes), Ok(n) if n > 0) {}
        self.waker.woken.swap(false, Ordering::AcqRel);
    }

    /// Whether the end was asked for.
    pub(super) fn closing(&self) -> bool {
        self.waker.closing.load(Ordering::Acquire)
    }

    /// Whether haste was asked for since the last time this was asked.
    pub(super) fn stop_waiting_requested(&self) -> bool {
        self.waker.stop_waiting_requested.swap(false, Ordering::AcqRel)
    }

    /// Whether a message has found no room since the last time this was asked.
    pub(super) fn overflowed(&self) -> bool {
        self.waker.overflowed.swap(false, Ordering::AcqRel)
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

    /// Drops what waits. Between two connections it can only be meant for those that have ended.
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
    use crate::protocol::Outgoing;

    fn message(epoch: u64, seq: u64) -> Outbound {
        let message = Outgoing::Claimed { task_id: String::new() };
        Outbound { epoch: Epoch(epoch), seq: Some(seq), message }
    }

    fn wakes(inbox: &Inbox) -> bool {
        wait(inbox, None, Instant::now()).unwrap().waker
    }

    #[test]
    fn a_push_wakes_once_until_it_is_quieted() {
        let (outbox, inbox) = pair().unwrap();
        assert!(!wakes(&inbox));
        outbox.push(message(1, 1)).unwrap();
        outbox.push(message(1, 2)).unwrap();
        assert!(wakes(&inbox));
        assert_eq!(rustix::io::read(&inbox.pipe, &mut [0; 16]).unwrap(), 1, "one byte for both");
        inbox.clear();
        assert!(!wakes(&inbox));
        outbox.push(message(1, 3)).unwrap();
        assert!(wakes(&inbox), "again after the quiet");
    }

    #[test]
    fn no_push_is_ever_left_lying() {
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
            assert!(woken.waker, "{expected} came, and then no wake");
            inbox.clear();
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
        assert_eq!(outbox.push(message(1, 1026)), Ok(()), "nobody there is no lack of room");
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
    fn haste_wakes_and_is_told_once() {
        let (outbox, inbox) = pair().unwrap();
        assert!(!inbox.stop_waiting_requested());
        outbox.stop_waiting();
        assert!(
            wakes(&inbox)
                && inbox.stop_waiting_requested()
                && !inbox.stop_waiting_requested()
                && !inbox.closing()
        );
    }

    #[test]
    fn the_close_is_seen_with_what_was_pushed_before_it() {
        let (outbox, inbox) = pair().unwrap();
        outbox.push(message(1, 1)).unwrap();
        assert!(!inbox.closing());
        outbox.close();
        assert!(wakes(&inbox) && inbox.closing() && inbox.next(Epoch(1)).is_some());
    }
}
