//! One socket of a connection, TCP or Unix, shared by the threads of both directions.
//!
//! The descriptor is never duplicated: the kernel resets a connection only when its last descriptor is closed.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

/// A TCP or Unix socket.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects to `unix:///path` or `tcp://host:port`.
    pub(super) fn connect(host: &str) -> io::Result<Self> {
        match host.split_once("://").expect("a scheme") {
            ("unix", path) => UnixStream::connect(path).map(Self::Unix),
            (_, address) => TcpStream::connect(address).map(Self::tcp),
        }
    }

    /// Wraps a TCP socket without Nagle's algorithm, so that each write becomes a packet.
    pub(super) fn tcp(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self::Tcp(stream)
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&mut &*stream).read(buffer),
            Self::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }

    pub(super) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => (&mut &*stream).write_all(bytes),
            Self::Unix(stream) => (&mut &*stream).write_all(bytes),
        }
    }

    /// Shuts it down; it may have been closed by the peer.
    pub(super) fn shut(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }

    /// Ends it at once; TCP sends an RST.
    pub(super) fn reset(&self) {
        if let Self::Tcp(stream) = self {
            // Unlike SO_LINGER, this resets a socket that other threads are still using.
            let _ = rustix::net::connect_unspec(stream);
        }
        self.shut(Shutdown::Both);
    }
}
