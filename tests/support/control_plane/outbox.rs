//! The queue of commands for one connection, and a wake-up for its thread.
//!
//! Pushing never blocks, so it happens under the lock of the model, and commands have the order of its changes.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

/// How the control plane ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disconnect {
    /// The TCP connection is closed without a close frame.
    Fin,
    /// The TCP connection is reset.
    Rst,
    /// A close frame with code 1001, then up to 30 s for the worker to close, as the real one does when it shuts down.
    Close1001,
}

/// A command to the thread of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send a text frame.
    Text(String),
    /// Send a binary frame.
    Binary(Vec<u8>),
    /// Stop reading, or resume.
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
        // If the pipe is full, the thread wakes up anyway.
        let _ = (&self.wake).write(&[0]);
    }

    /// Returns the next command.
    pub fn pop(&self) -> Option<Command> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Returns a descriptor that is readable when there may be a command.
    pub fn wakes(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }

    /// Discards the wake-ups so far. Call it before emptying the queue.
    pub fn acknowledge(&self) {
        while matches!((&self.woken).read(&mut [0; 64]), Ok(1..)) {}
    }
}
