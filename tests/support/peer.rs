//! A TCP stream for a peer that a test plays.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Deref;

/// Reads and writes again after `EINTR`: when a process was stopped and continues, Linux ends calls on a socket with a time limit so
/// (see signal(7)). tungstenite passes it on.
#[derive(Debug)]
pub struct Peer(pub TcpStream);

impl Read for Peer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| self.0.read(buffer))
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Deref for Peer {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
