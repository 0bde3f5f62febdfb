//! A control plane that speaks the worker's protocol with its REST part, for tests and the demo. Not part of the worker.
//!
//! It behaves as the known one does, its oddities included, on one TCP listener of this machine, with threads and no
//! async. Whatever a worker sends that the protocol does not allow is kept in [`ControlPlane::violations`]: a test
//! should end with `plane.assert_no_violations()`.
//!
//! [`model`] holds the rules, without a socket; [`server`], [`socket`] and [`rest`] are its doors.

use std::borrow::Borrow;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

pub mod check;
pub mod model;
mod outbox;
mod rest;
pub mod run;
mod server;
mod socket;

pub use model::Model;
pub use outbox::Disconnect;
pub use run::{Received, Run, RunSpec, State};

use outbox::Command;

/// Disconnect long [`ControlPlane::wait_state`] and its like wait before they give up.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// When pending runs are sent to workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pacing {
    /// At once, in turn to all connections.
    Prompt,
    /// One to each connection in every such time; the known one takes 1.5 s.
    Poll(Duration),
}

/// Disconnect a control plane is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The admin key.
    pub key: String,
    /// A run that is not claimed for this long is pending again.
    pub claim_timeout: Duration,
    /// When pending runs are sent.
    pub pacing: Pacing,
    /// The port on 127.0.0.1, or 0 for a free one.
    pub port: u16,
}

impl Default for Options {
    fn default() -> Self {
        let claim_timeout = Duration::from_secs(120);
        Self { key: "test-key".to_owned(), claim_timeout, pacing: Pacing::Prompt, port: 0 }
    }
}

/// What all threads share.
pub struct Shared {
    model: Mutex<Model>,
    changed: Condvar,
    /// Readable as soon as the control plane stops.
    stop: UnixStream,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A running control plane; dropping it ends all its connections and threads.
pub struct ControlPlane {
    shared: Arc<Shared>,
    address: SocketAddr,
    key: String,
    stopper: Option<UnixStream>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Model> {
        // A test that panics inside `wait_for` must not hide its own message behind a poisoned lock.
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }
}

impl ControlPlane {
    /// Starts one on 127.0.0.1; panics when the port is taken.
    pub fn start(options: Options) -> Self {
        Self::try_start(options).expect("a port on 127.0.0.1")
    }

    /// Starts one; an error when the port is taken.
    pub fn try_start(options: Options) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", options.port))?;
        let (address, key) = (listener.local_addr()?, options.key.clone());
        let (stopper, stop) = UnixStream::pair()?;
        let shared = Arc::new(Shared {
            model: Mutex::new(Model::new(options)),
            changed: Condvar::new(),
            stop,
            threads: Mutex::default(),
        });
        let (acceptor, ticker) = (Arc::clone(&shared), Arc::clone(&shared));
        let accept = std::thread::spawn(move || server::accept(&acceptor, &listener));
        let tick = std::thread::spawn(move || tick(&ticker));
        shared.threads.lock().unwrap_or_else(PoisonError::into_inner).extend([accept, tick]);
        Ok(Self { shared, address, key, stopper: Some(stopper) })
    }

    /// For the worker's `--web-socket-url`.
    pub fn ws_url(&self) -> String {
        format!("ws://{}{}", self.address, server::WS_PATH)
    }

    /// For the worker's `--server-root-url`.
    pub fn root_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The admin key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Adds a run; the result is its id.
    pub fn submit(&self, spec: impl Borrow<RunSpec>) -> String {
        self.shared.update(|model| model.submit(spec.borrow(), Instant::now()))
    }

    /// Adds a run whose assignment is `data` as it is, however wrong. When its `task_id` is no non-blank string it is
    /// sent to the newest connection at once and `None` comes back.
    pub fn submit_raw(&self, data: impl Borrow<Value>) -> Option<String> {
        self.shared.update(|model| model.submit_raw(data.borrow(), Instant::now()))
    }

    /// Sends a text frame to the newest connection, as it is.
    pub fn send_text(&self, text: impl Into<String>) {
        let text = text.into();
        self.shared.update(|model| model.push_newest(Command::Text(text)));
    }

    /// Sends a binary frame to the newest connection.
    pub fn send_binary(&self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.shared.update(|model| model.push_newest(Command::Binary(bytes)));
    }

    /// Sends the assignment of a run that has not ended to the newest connection once more, as the known one does with what
    /// was not claimed in time; `false` when there is nothing or nobody to send it to.
    pub fn resend(&self, id: &str) -> bool {
        self.shared.update(|model| model.resend(id))
    }

    /// Forgets the runs that have ended and of which `done` says so, and every message so far: for those who run for long.
    /// Gives the runs.
    pub fn forget(&self, done: impl FnMut(&Run) -> bool) -> Vec<Run> {
        self.shared.update(|model| model.forget(done))
    }

    /// Cancels a run: CANCELLED first, then `task_cancel` to the newest connection of its worker.
    pub fn cancel(&self, id: &str) {
        assert!(self.shared.update(|model| model.cancel(id)), "no run {id}");
    }

    /// The same, but the message is lost on its way.
    pub fn cancel_silently(&self, id: &str) {
        self.shared.update(|model| model.cancel_silently(id));
    }

    /// A run as it is now.
    pub fn run(&self, id: &str) -> Run {
        self.shared.lock().run(id).cloned().unwrap_or_else(|| panic!("no run {id}"))
    }

    /// All runs as they are now, in order of submission.
    pub fn runs(&self) -> Vec<Run> {
        self.shared.lock().runs.clone()
    }

    /// Every message received, in order.
    pub fn messages(&self) -> Vec<Received> {
        self.shared.lock().messages.clone()
    }

    /// Looks at everything at once.
    pub fn view<T>(&self, look: impl FnOnce(&Model) -> T) -> T {
        look(&self.shared.lock())
    }

    /// Waits until `holds`; it is asked after every change. Panics with everything that is known when the deadline
    /// passes.
    pub fn wait_for(&self, deadline: Duration, mut holds: impl FnMut(&Model) -> bool) {
        if !self.holds_within(deadline, &mut holds) {
            let dump = self.shared.lock().dump();
            panic!("the control plane has waited {deadline:?} in vain\n{dump}");
        }
    }

    /// Waits until `holds`; `false` when the deadline passes first.
    pub fn holds_within(&self, deadline: Duration, mut holds: impl FnMut(&Model) -> bool) -> bool {
        let (end, mut model) = (Instant::now() + deadline, self.shared.lock());
        loop {
            if holds(&model) {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            model = self.shared.changed.wait_timeout(model, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the run has this state.
    pub fn wait_state(&self, id: &str, state: State) -> Run {
        self.wait_for(DEADLINE, |model| {
            let run = model.run(id).unwrap_or_else(|| panic!("no run {id}"));
            assert!(
                run.state == state || !run.state.ended(),
                "{id} ended as {}\n{}",
                run.state,
                model.dump()
            );
            run.state == state
        });
        self.run(id)
    }

    /// Waits until the run has ended in any way.
    pub fn wait_ended(&self, id: &str) -> Run {
        self.wait_for(DEADLINE, |model| model.run(id).is_some_and(|run| run.state.ended()));
        self.run(id)
    }

    /// Waits until a message of this type has come for the run, even one that changes nothing.
    pub fn wait_message(&self, id: &str, kind: &str) -> Received {
        let find = |run: &Run| run.history.iter().find(|received| received.kind == kind).cloned();
        self.wait_for(DEADLINE, |model| model.run(id).is_some_and(|run| find(run).is_some()));
        find(&self.run(id)).expect("it was there")
    }

    /// Waits until `count` connections have been made in all, and the last of them is open.
    pub fn wait_connected(&self, count: usize) {
        self.wait_for(DEADLINE, |model| {
            let open = model.connections.last().is_some_and(|connection| connection.ended.is_none());
            model.connections.len() >= count && open
        });
    }

    /// Disconnect many connections have been made so far, including those that have ended.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// Ends every open connection.
    pub fn drop_connections(&self, how: Disconnect) {
        self.shared.update(|model| model.drop_connections(how));
    }

    /// Ends the newest connection of one worker; `false` when it has none that is open.
    pub fn drop_worker(&self, worker: &str, how: Disconnect) -> bool {
        self.shared.update(|model| model.drop_worker(worker, how))
    }

    /// Answers every handshake with this status, or as usual again.
    pub fn refuse_with(&self, status: Option<u16>) {
        self.shared.update(|model| model.refuse = status);
    }

    /// Answers every REST request with 404, or with 503 for any other status, or as usual again.
    pub fn fail_rest_with(&self, status: Option<u16>) {
        self.shared.update(|model| model.rest_failure = status);
    }

    /// Stops reading from the connections that are open now (half-open: no pong, nothing received), or goes on.
    /// When this returns it is so. Later connections are not held. What a worker sent meanwhile is read when it goes on.
    pub fn hold_pongs(&self, hold: bool) {
        self.shared.update(|model| model.push_all(&Command::Hold(hold)));
        let reached = |one: &model::Connection| one.ended.is_some() || one.held == hold;
        let last = self.connections();
        self.wait_for(DEADLINE, |model| model.connections.iter().take(last).all(reached));
    }

    /// Ends every new connection right after its handshake, or lets them be again.
    pub fn accept_and_close(&self, close: bool) {
        self.shared.update(|model| model.accept_and_close = close);
    }

    /// Everything that a worker has sent and the protocol does not allow.
    pub fn violations(&self) -> Vec<String> {
        self.shared.lock().violations.clone()
    }

    /// Panics when there are [`ControlPlane::violations`].
    pub fn assert_no_violations(&self) {
        let model = self.shared.lock();
        assert!(model.violations.is_empty(), "the worker broke the protocol\n{}", model.dump());
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        drop(self.stopper.take());
        self.shared.update(|model| model.stopping = true);
        loop {
            let thread = self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(thread) = thread else { return };
            let whole = thread.join().is_ok();
            assert!(whole || std::thread::panicking(), "a thread of the control plane panicked");
        }
    }
}

/// What happens with time alone: claims that expire, and the poll.
fn tick(shared: &Shared) {
    let mut next_poll = Instant::now();
    let mut model = shared.lock();
    while !model.stopping {
        let now = Instant::now();
        let expired = model.next_expiry().is_some_and(|at| at <= now);
        if expired {
            model.expire(now);
        }
        let mut wake = model.next_expiry();
        if let Pacing::Poll(every) = model.options().pacing {
            if next_poll <= now {
                model.deliver_round(now);
                next_poll = now + every;
                shared.changed.notify_all();
            }
            wake = Some(wake.map_or(next_poll, |at| at.min(next_poll)));
        }
        if expired {
            shared.changed.notify_all();
        }
        let left = wake.map_or(DEADLINE, |at| at.saturating_duration_since(Instant::now()));
        model = shared.changed.wait_timeout(model, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}
