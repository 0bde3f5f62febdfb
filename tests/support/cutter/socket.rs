//! One end of a line: TCP or a Unix socket, shared by the threads of both directions.
//!
//! There is one descriptor for each, never a copy: the kernel resets a connection only with its last descriptor, and what is
//! ended for one thread is to be ended for all.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

/// The socket.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// To `unix:///path` or `tcp://host:port`.
    pub(super) fn dial(host: &str) -> io::Result<Self> {
        match host.split_once("://").expect("a scheme") {
            ("unix", path) => UnixStream::connect(path).map(Self::Unix),
            (_, address) => TcpStream::connect(address).map(Self::tcp),
        }
    }

    /// What is written goes out as it is, in as many packets.
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

    /// The peer may have gone before.
    pub(super) fn shut(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }

    /// Ends it at once, whatever is under way, with an RST where there is such a thing.
    pub(super) fn reset(&self) {
        if let Self::Tcp(stream) = self {
            // The kernel's own way to say so for a descriptor that others still read from and write to.
            let _ = rustix::net::connect_unspec(stream);
        }
        self.shut(Shutdown::Both);
    }
}
