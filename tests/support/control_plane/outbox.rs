//! What the control plane wants done on one connection: a queue, and a wake-up for the thread that polls.
//!
//! Pushing never blocks, so it may be done under the lock of the model and the order of things is the order of its
//! changes. It must not know what the frames mean.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

/// Disconnect a connection is ended by this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disconnect {
    /// The TCP connection is closed without a close frame.
    Fin,
    /// The TCP connection is reset.
    Rst,
    /// A close frame with code 1001, then up to 30 s for the other side to close: the shutdown of the known one.
    Close1001,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send a text frame.
    Text(String),
    /// Send a binary frame.
    Binary(Vec<u8>),
    /// Stop reading, or read again.
    Hold(bool),
    /// End the connection.
    End(Disconnect),
}

/// The queue of one connection.
pub struct Outbox {
    queue: Mutex<VecDeque<Command>>,
    wake: UnixStream,
    woken: UnixStream,
}

impl Outbox {
    /// An empty queue.
    pub fn new() -> Self {
        let (wake, woken) = UnixStream::pair().expect("a socket pair");
        wake.set_nonblocking(true).expect("non-blocking");
        woken.set_nonblocking(true).expect("non-blocking");
        Self { queue: Mutex::new(VecDeque::new()), wake, woken }
    }

    /// Adds a command and wakes the thread of the connection.
    pub fn push(&self, command: Command) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
        // A full pipe wakes as well as one more byte would.
        let _ = (&self.wake).write(&[0]);
    }

    /// The next command.
    pub fn pop(&self) -> Option<Command> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Readable when there may be a command.
    pub fn wakes(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }

    /// Forgets the wake-ups so far; to be called before the queue is emptied.
    pub fn acknowledge(&self) {
        while matches!((&self.woken).read(&mut [0; 64]), Ok(1..)) {}
    }
}
