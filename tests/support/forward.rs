//! A TCP port that leads to another place: for what speaks to an engine over TCP, and to hold back what is on its way.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread::JoinHandle;

/// A listening port; dropping it ends the listening, and its connections end with those who made them.
pub(crate) struct Forward {
    address: SocketAddr,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    over: AtomicBool,
    connections: AtomicUsize,
    open: Mutex<bool>,
    opened: Condvar,
    /// So many bytes of each connection's answers go through while it is closed; none: no request goes through.
    free: Option<u64>,
    /// Connections whose answers are held back, so far.
    held: AtomicUsize,
}

impl State {
    fn wait_open(&self) {
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
    }
}

impl Forward {
    /// To this address, `unix:///path` or `tcp://host:port`.
    pub(crate) fn to(host: &str) -> Self {
        let forward = Self::held(host);
        forward.open();
        forward
    }

    /// The same, but until [`Forward::open`] connections are taken and nothing that comes on them goes on.
    pub(crate) fn held(host: &str) -> Self {
        Self::new(host, None)
    }

    /// The same, but until [`Forward::open`] only so many bytes come back on each connection.
    pub(crate) fn held_after(host: &str, bytes: u64) -> Self {
        Self::new(host, Some(bytes))
    }

    fn new(host: &str, free: Option<u64>) -> Self {
        let (scheme, target) = host.split_once("://").unwrap();
        let (unix, target) = (scheme == "unix", target.to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::new(State { free, ..State::default() }));
        let shared = Arc::clone(&state);
        let acceptor = std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                if shared.over.load(Ordering::SeqCst) {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                if unix {
                    let far = UnixStream::connect(PathBuf::from(&target)).unwrap();
                    let halves = (far.try_clone().unwrap(), far.try_clone().unwrap());
                    join(&near, halves, &shared, move || drop(far.shutdown(Shutdown::Write)));
                } else {
                    let far = TcpStream::connect(&target).unwrap();
                    let halves = (far.try_clone().unwrap(), far.try_clone().unwrap());
                    join(&near, halves, &shared, move || drop(far.shutdown(Shutdown::Write)));
                }
            }
        });
        Self { address, state, acceptor: Some(acceptor) }
    }

    /// For `DOCKER_HOST`.
    pub(crate) fn host(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Lets everything through.
    pub(crate) fn open(&self) {
        *self.state.open.lock().unwrap() = true;
        self.state.opened.notify_all();
    }

    /// How many connections are held in the middle of what comes back on them, or have been.
    pub(crate) fn held_back(&self) -> usize {
        self.state.held.load(Ordering::SeqCst)
    }

    /// How many have been made.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

/// Copies both ways, each until its end.
fn join<F: Read + Write + Send + 'static>(
    near: &TcpStream,
    far: (F, F),
    state: &Arc<State>,
    finish_far: impl FnOnce() + Send + 'static,
) {
    let (mut from_near, mut to_near) = (near.try_clone().unwrap(), near.try_clone().unwrap());
    let (mut from_far, mut to_far) = far;
    let (state, back) = (Arc::clone(state), Arc::clone(state));
    std::thread::spawn(move || {
        if state.free.is_none() {
            state.wait_open();
        }
        let _ = io::copy(&mut from_near, &mut to_far);
        finish_far();
    });
    std::thread::spawn(move || {
        let copied = back.free.map(|free| (free, io::copy(&mut (&mut from_far).take(free), &mut to_near)));
        if copied.is_some_and(|(free, copied)| copied.is_ok_and(|copied| copied == free)) {
            back.held.fetch_add(1, Ordering::SeqCst);
            back.wait_open();
        }
        let _ = io::copy(&mut from_far, &mut to_near);
        let _ = to_near.shutdown(Shutdown::Both);
    });
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        self.open();
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
