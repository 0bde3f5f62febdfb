//! A TLS proxy in front of an engine or a control plane, on a port of 127.0.0.1. It terminates TLS with OpenSSL and
//! forwards the bytes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use openssl::ssl::{ShutdownState, SslAcceptor, SslFiletype, SslMethod, SslVerifyMode, SslVersion};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::peer::Peer;

/// How often a thread checks whether the proxy was dropped.
const INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const BLOCK: usize = 64 * 1024;

/// How TLS ends after the target's last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsEnd {
    /// With close_notify; the socket stays open.
    CloseNotify,
    /// With the end of the TCP connection, without close_notify.
    Eof,
}

/// A proxy; dropping it closes the listener and all connections.
pub struct TlsProxy {
    port: u16,
    stopping: Arc<AtomicBool>,
    passed: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// The server's side of TLS.
pub struct ServerTls {
    acceptor: SslAcceptor,
    end: TlsEnd,
}

impl ServerTls {
    /// Uses this certificate chain and key. If `clients` is given, clients need a certificate of that authority.
    pub fn new((certificate, key): &(impl AsRef<Path>, impl AsRef<Path>), clients: Option<&Path>) -> Self {
        Self::with(certificate.as_ref(), key.as_ref(), clients, SslVersion::TLS1_3, TlsEnd::CloseNotify)
    }

    /// As [`ServerTls::new`], with the newest protocol version and how a connection ends.
    pub fn with(
        certificate: &Path,
        key: &Path,
        clients: Option<&Path>,
        newest: SslVersion,
        end: TlsEnd,
    ) -> Self {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        builder.set_max_proto_version(Some(newest)).unwrap();
        builder.set_certificate_chain_file(certificate).unwrap();
        builder.set_private_key_file(key, SslFiletype::PEM).unwrap();
        if let Some(authority) = clients {
            builder.set_ca_file(authority).unwrap();
            builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        }
        Self { acceptor: builder.build(), end }
    }
}

impl TlsProxy {
    /// Starts a proxy to `host` (`unix:///path` or `tcp://host:port`).
    pub fn start(host: &str, tls: ServerTls) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stopping = Arc::new(AtomicBool::new(false));
        let passed = Arc::new(AtomicUsize::new(0));
        let (stop, count, host, tls) =
            (Arc::clone(&stopping), Arc::clone(&passed), host.to_owned(), Arc::new(tls));
        let thread = std::thread::spawn(move || {
            let mut open = Vec::new();
            while let Ok((client, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (stop, count, host, tls) =
                    (Arc::clone(&stop), Arc::clone(&count), host.clone(), Arc::clone(&tls));
                // Errors are ignored: in some tests the client breaks off the handshake.
                open.push(std::thread::spawn(move || drop(forward(client, &host, &tls, &stop, &count))));
            }
            for thread in open {
                let _ = thread.join();
            }
        });
        Self { port, stopping, passed, thread: Some(thread) }
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns how many connections reached the target.
    pub fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn connect(host: &str) -> io::Result<File> {
    let socket = match host.strip_prefix("unix://") {
        Some(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_nonblocking(true)?;
            OwnedFd::from(stream)
        }
        None => {
            let stream = TcpStream::connect(host.trim_start_matches("tcp://"))?;
            stream.set_nonblocking(true)?;
            OwnedFd::from(stream)
        }
    };
    Ok(File::from(socket))
}

/// Forwards one connection until both directions have ended.
fn forward(
    client: TcpStream,
    host: &str,
    tls: &ServerTls,
    stopping: &AtomicBool,
    passed: &AtomicUsize,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    // Bounds the handshake.
    client.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    let mut client = tls.acceptor.accept(Peer(client)).map_err(io::Error::other)?;
    client.get_ref().set_nonblocking(true)?;
    let mut target = connect(host)?;
    passed.fetch_add(1, Ordering::SeqCst);
    let (mut up, mut down) = (Pipe::default(), Pipe::default());
    loop {
        let mut moved = up.step(&mut client, &mut target)?;
        moved |= down.step(&mut target, &mut client)?;
        if down.drained() && !down.closed {
            down.closed = true;
            if tls.end == TlsEnd::Eof {
                return Ok(());
            }
            let _ = client.shutdown();
            if !client.get_shutdown().contains(ShutdownState::SENT) {
                return Ok(());
            }
        }
        if up.drained() && !up.closed {
            up.closed = true;
            let _ = rustix::net::shutdown(&target, rustix::net::Shutdown::Write);
        }
        if (up.closed && down.closed) || stopping.load(Ordering::SeqCst) {
            return Ok(());
        }
        // OpenSSL may hold data that the socket does not show.
        if !moved && client.ssl().pending() == 0 {
            let mut fds = [
                PollFd::new(&client.get_ref().0, interest(&up, &down)),
                PollFd::new(&target, interest(&down, &up)),
            ];
            match poll(&mut fds, Some(&INTERVAL)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Returns the events to wait for on the socket that `from` reads and `to` writes.
fn interest(from: &Pipe, to: &Pipe) -> PollFlags {
    let mut flags = PollFlags::empty();
    if !from.ended && from.bytes.is_empty() {
        flags |= PollFlags::IN;
    }
    if !to.bytes.is_empty() {
        flags |= PollFlags::OUT;
    }
    flags
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    /// The sender has ended.
    ended: bool,
    /// The receiver's side was closed.
    closed: bool,
}

impl Pipe {
    fn drained(&self) -> bool {
        self.ended && self.bytes.is_empty()
    }

    /// Reads and writes once; returns whether anything moved.
    fn step(&mut self, from: &mut impl Read, to: &mut impl Write) -> io::Result<bool> {
        let mut moved = false;
        if self.bytes.is_empty() && !self.ended {
            self.bytes.resize(BLOCK, 0);
            let read = would_block(from.read(&mut self.bytes));
            self.bytes.truncate(*read.as_ref().ok().and_then(Option::as_ref).unwrap_or(&0));
            // An error also ends a direction, such as a client that closes without close_notify.
            self.ended = !matches!(read, Ok(None)) && self.bytes.is_empty();
            moved |= self.ended || !self.bytes.is_empty();
        }
        if !self.bytes.is_empty()
            && let Some(n) = would_block(to.write(&self.bytes))?
        {
            self.bytes.drain(..n);
            moved = true;
        }
        Ok(moved)
    }
}

fn would_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
