//! A TCP door in front of an engine, plain or with TLS that wants a client's certificate. It terminates the TLS with OpenSSL
//! itself and passes bytes on, so that what is spoken through it is real.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use openssl::ssl::{
    ShutdownState, SslAcceptor, SslFiletype, SslMethod, SslStream, SslVerifyMode, SslVersion,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// How often a thread looks whether the door is shut.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const BLOCK: usize = 64 * 1024;

/// What comes after the engine's last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// TLS's own end, and the socket stays open.
    Notify,
    /// The socket is closed without a word.
    Cut,
}

/// A door; dropping it closes it and all that went through.
pub struct Door {
    port: u16,
    shut: Arc<AtomicBool>,
    passed: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// How TLS is spoken at a door.
pub struct Lock {
    acceptor: SslAcceptor,
    ending: Ending,
}

impl Lock {
    /// Shows this certificate, and lets only those in who show one of that authority, if one is given.
    pub fn new((certificate, key): &(impl AsRef<Path>, impl AsRef<Path>), clients: Option<&Path>) -> Self {
        Self::with(certificate.as_ref(), key.as_ref(), clients, SslVersion::TLS1_3, Ending::Notify)
    }

    /// As [`Lock::new`], with the newest version that is spoken and how a connection ends.
    pub fn with(
        certificate: &Path,
        key: &Path,
        clients: Option<&Path>,
        newest: SslVersion,
        ending: Ending,
    ) -> Self {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        builder.set_max_proto_version(Some(newest)).unwrap();
        builder.set_certificate_chain_file(certificate).unwrap();
        builder.set_private_key_file(key, SslFiletype::PEM).unwrap();
        if let Some(authority) = clients {
            builder.set_ca_file(authority).unwrap();
            builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        }
        Self { acceptor: builder.build(), ending }
    }
}

impl Door {
    /// A door to the engine at `host` (`unix://` or `tcp://`), on a port of 127.0.0.1.
    pub fn open(host: &str, lock: Option<Lock>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (shut, passed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (over, count, host, lock) =
            (Arc::clone(&shut), Arc::clone(&passed), host.to_owned(), lock.map(Arc::new));
        let thread = std::thread::spawn(move || {
            let mut open = Vec::new();
            while let Ok((client, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let (over, count, host, lock) =
                    (Arc::clone(&over), Arc::clone(&count), host.clone(), lock.clone());
                // A client that breaks off is what some tests are about.
                open.push(std::thread::spawn(move || {
                    drop(pass(client, &host, lock.as_deref(), &over, &count));
                }));
            }
            for thread in open {
                let _ = thread.join();
            }
        });
        Self { port, shut, passed, thread: Some(thread) }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections got through to the engine.
    pub fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shut.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn engine(host: &str) -> io::Result<File> {
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

enum Outside {
    Plain(TcpStream),
    Tls(SslStream<TcpStream>, Ending),
}

impl Outside {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream, _) => stream.get_ref(),
        }
    }

    /// Whether there is something that the socket does not show any more.
    fn pending(&self) -> bool {
        matches!(self, Self::Tls(stream, _) if stream.ssl().pending() > 0)
    }

    /// Ends our side of it; `false` when all of it is to end.
    fn end(&mut self) -> bool {
        match self {
            Self::Plain(stream) => stream.shutdown(std::net::Shutdown::Write).is_ok(),
            Self::Tls(_, Ending::Cut) => false,
            Self::Tls(stream, Ending::Notify) => {
                let _ = stream.shutdown();
                stream.get_shutdown().contains(ShutdownState::SENT)
            }
        }
    }
}

impl Read for Outside {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream, _) => stream.read(buffer),
        }
    }
}

impl Write for Outside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream, _) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pass(
    client: TcpStream,
    host: &str,
    lock: Option<&Lock>,
    over: &AtomicBool,
    passed: &AtomicUsize,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    // A handshake that the client does not go on with.
    client.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    let mut outside = match lock {
        None => Outside::Plain(client),
        Some(lock) => {
            let stream = lock.acceptor.accept(client).map_err(io::Error::other)?;
            Outside::Tls(stream, lock.ending)
        }
    };
    outside.socket().set_nonblocking(true)?;
    let mut inside = engine(host)?;
    passed.fetch_add(1, Ordering::SeqCst);
    let (mut up, mut down) = (Pipe::default(), Pipe::default());
    loop {
        let mut moved = up.step(&mut outside, &mut inside)?;
        moved |= down.step(&mut inside, &mut outside)?;
        if down.drained() && !down.told {
            down.told = true;
            if !outside.end() {
                return Ok(());
            }
        }
        if up.drained() && !up.told {
            up.told = true;
            let _ = rustix::net::shutdown(&inside, rustix::net::Shutdown::Write);
        }
        if (up.told && down.told) || over.load(Ordering::SeqCst) {
            return Ok(());
        }
        if !moved && !outside.pending() {
            let mut fds = [
                PollFd::new(outside.socket(), interest(&up, &down)),
                PollFd::new(&inside, interest(&down, &up)),
            ];
            match poll(&mut fds, Some(&LOOK)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What the end that `from` reads and `to` writes is to be waited for.
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

#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    ended: bool,
    told: bool,
}

impl Pipe {
    fn drained(&self) -> bool {
        self.ended && self.bytes.is_empty()
    }

    fn step(&mut self, from: &mut impl Read, to: &mut impl Write) -> io::Result<bool> {
        let mut moved = false;
        if self.bytes.is_empty() && !self.ended {
            self.bytes.resize(BLOCK, 0);
            let read = would_block(from.read(&mut self.bytes));
            self.bytes.truncate(*read.as_ref().ok().and_then(Option::as_ref).unwrap_or(&0));
            // A client that closes without TLS's own end has ended too.
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
