//! A stand-in for the control plane, for the tests, the demo and the soak. It serves the WebSocket and the REST part on one
//! port, by default of 127.0.0.1.
//!
//! It behaves like the real one, including its oddities; there are two kinds, see [`dialect`]. Messages that the protocol does not allow are recorded in
//! [`ControlPlane::violations`]: a test should end with `plane.assert_no_violations()`.
//!
//! [`model`] has the state and the rules, without I/O. [`server`] accepts connections and passes them to [`socket`] or
//! [`rest`].

use std::borrow::Borrow;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

pub mod check;
pub mod dialect;
pub mod faults;
pub mod model;
mod outbox;
mod requests;
mod rest;
pub mod run;
mod server;
mod socket;

pub use dialect::Dialect;
pub use faults::Faults;
pub use model::Model;
pub use outbox::Disconnect;
pub use run::{Received, Run, RunSpec, State};

use dialect::RETRY;
use outbox::Command;

use crate::support::rng::Rng;

/// How long [`ControlPlane::wait_state`] and the like wait before they panic.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// When pending runs are sent to workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pacing {
    /// At once, alternately to all connections.
    Prompt,
    /// One to each connection per interval; the real one uses 1.5 s.
    Poll(Duration),
}

/// The settings of a control plane.
#[derive(Debug, Clone)]
pub struct Options {
    /// How it behaves.
    pub dialect: Dialect,
    /// The admin key.
    pub key: String,
    /// A run that is not claimed within this time becomes pending again.
    pub claim_timeout: Duration,
    /// When pending runs are sent.
    pub pacing: Pacing,
    /// The address that it listens on.
    pub address: Ipv4Addr,
    /// The port, or 0 for a free one.
    pub port: u16,
}

impl Default for Options {
    fn default() -> Self {
        let claim_timeout = Duration::from_secs(120);
        let dialect = Dialect::Old;
        let (key, address) = ("test-key".to_owned(), Ipv4Addr::LOCALHOST);
        Self { dialect, key, claim_timeout, pacing: Pacing::Prompt, address, port: 0 }
    }
}

/// The state that all threads share.
pub struct Shared {
    model: Mutex<Model>,
    changed: Condvar,
    /// Wakes the timers when the control plane stops.
    ticker: Condvar,
    /// Becomes readable when the control plane stops.
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
        // After a panic inside `wait_for` the test's own message matters, not the poisoned lock.
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }
}

impl ControlPlane {
    /// Starts a control plane. Panics if the port is in use.
    pub fn start(options: Options) -> Self {
        Self::try_start(options).expect("a free port")
    }

    /// Starts a control plane. Returns an error if the port is in use.
    pub fn try_start(options: Options) -> std::io::Result<Self> {
        Self::with(Model::new(options))
    }

    /// Stops it for this long, and starts it again on the same port with the same runs. Its connections end as at a shutdown.
    pub fn restart_after(mut self, outage: Duration) -> Self {
        self.end();
        let mut options = self.shared.lock().options().clone();
        options.port = self.address.port();
        let mut model = std::mem::replace(&mut *self.shared.lock(), Model::new(options.clone()));
        model.resume(options);
        std::thread::sleep(outage);
        Self::with(model).expect("the port is free")
    }

    fn with(model: Model) -> std::io::Result<Self> {
        let Options { address, port, key, .. } = model.options().clone();
        let listener = TcpListener::bind((address, port))?;
        let address = listener.local_addr()?;
        let (stopper, stop) = UnixStream::pair()?;
        let shared = Arc::new(Shared {
            model: Mutex::new(model),
            changed: Condvar::new(),
            ticker: Condvar::new(),
            stop,
            threads: Mutex::default(),
        });
        let (acceptor, ticker) = (Arc::clone(&shared), Arc::clone(&shared));
        let accept = std::thread::spawn(move || server::accept(&acceptor, &listener));
        let tick = std::thread::spawn(move || tick(&ticker));
        shared.threads.lock().unwrap_or_else(PoisonError::into_inner).extend([accept, tick]);
        Ok(Self { shared, address, key, stopper: Some(stopper) })
    }

    /// Returns the value for the worker's `--web-socket-url`.
    pub fn ws_url(&self) -> String {
        format!("ws://{}{}", self.address, server::WS_PATH)
    }

    /// Returns the value for the worker's `--server-root-url`.
    pub fn root_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the admin key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Adds a run and returns its id.
    pub fn submit(&self, spec: impl Borrow<RunSpec>) -> String {
        self.shared.update(|model| model.submit(spec.borrow(), Instant::now()))
    }

    /// Adds a run whose assignment is `data`, valid or not, and returns its id. If `task_id` is not a non-blank string, sends
    /// the assignment to the newest connection and returns `None`.
    pub fn submit_raw(&self, data: impl Borrow<Value>) -> Option<String> {
        self.shared.update(|model| model.submit_raw(data.borrow(), Instant::now()))
    }

    /// Sends a text frame to the newest connection.
    pub fn send_text(&self, text: impl Into<String>) {
        let text = text.into();
        self.shared.update(|model| model.push_newest(Command::Text(text)));
    }

    /// Sends a text frame to the newest connection of a worker. Returns `false` if it has none.
    pub fn send_text_to(&self, worker: &str, text: impl Into<String>) -> bool {
        let text = text.into();
        self.shared.update(|model| model.push_to(worker, Command::Text(text)))
    }

    /// Sends a binary frame to the newest connection.
    pub fn send_binary(&self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.shared.update(|model| model.push_newest(Command::Binary(bytes)));
    }

    /// Sends the assignment of a claimed or running run to the newest connection again, as the real one does after a claim
    /// time-out. Returns `false` if there is no such run or no connection.
    pub fn resend(&self, id: &str) -> bool {
        self.shared.update(|model| model.resend(id, Instant::now()))
    }

    /// Makes an ended run pending again, as if its user had restarted it.
    pub fn restart(&self, id: &str) {
        self.shared.update(|model| model.restart(id, Instant::now()));
    }

    /// Removes and returns the ended runs for which `done` holds, and removes all recorded messages, so that memory does not
    /// grow.
    pub fn forget(&self, done: impl FnMut(&Run) -> bool) -> Vec<Run> {
        self.shared.update(|model| model.forget(done))
    }

    /// Cancels a run: sets CANCELLED, then sends `task_cancel` to the newest connection of its worker.
    pub fn cancel(&self, id: &str) {
        assert!(self.shared.update(|model| model.cancel(id, None, Instant::now())), "no run {id}");
    }

    /// Cancels one execution of a run.
    pub fn cancel_execution(&self, id: &str, execution: &str) {
        let cancelled = self.shared.update(|model| model.cancel(id, Some(execution), Instant::now()));
        assert!(cancelled, "no run {id}");
    }

    /// Starts another execution of a run, also while the others run, and returns its id.
    pub fn launch_again(&self, id: &str) -> String {
        let execution = self.shared.update(|model| model.launch_again(id, Instant::now()));
        execution.unwrap_or_else(|| panic!("no run {id}"))
    }

    /// Shows this state of a run in the REST part, as an agent sets it whose conversation has ended. Changes nothing else.
    pub fn set_agent_state(&self, id: &str, state: State) {
        self.shared.update(|model| model.set_agent_state(id, state));
    }

    /// Waits until an execution has ended in any state.
    pub fn wait_execution_ended(&self, id: &str, execution: &str) -> Run {
        let ended = |model: &Model| model.execution(id, execution).is_some_and(|run| run.state.ended());
        self.wait_for(DEADLINE, ended);
        self.view(|model| model.execution(id, execution).cloned()).expect("it has ended")
    }

    /// Cancels a run without a message to the worker.
    pub fn cancel_silently(&self, id: &str) {
        self.shared.update(|model| model.cancel_silently(id, Instant::now()));
    }

    /// Returns a run.
    pub fn run(&self, id: &str) -> Run {
        self.shared.lock().run(id).cloned().unwrap_or_else(|| panic!("no run {id}"))
    }

    /// Returns all runs in order of submission.
    pub fn runs(&self) -> Vec<Run> {
        self.shared.lock().runs.clone()
    }

    /// Returns all received messages in order.
    pub fn messages(&self) -> Vec<Received> {
        self.shared.lock().messages.clone()
    }

    /// Returns the result of a function of the whole state.
    pub fn view<T>(&self, read: impl FnOnce(&Model) -> T) -> T {
        read(&self.shared.lock())
    }

    /// Waits until `holds`, which is checked after every change. Panics with the whole state after `deadline`.
    pub fn wait_for(&self, deadline: Duration, mut holds: impl FnMut(&Model) -> bool) {
        if !self.holds_within(deadline, &mut holds) {
            let dump = self.shared.lock().describe();
            panic!("timed out after {deadline:?}; the control plane's state is\n{dump}");
        }
    }

    /// Waits until `holds`. Returns `false` after `deadline`.
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

    /// Waits until a run has this state. Panics if it ends in another one.
    pub fn wait_state(&self, id: &str, state: State) -> Run {
        self.wait_for(DEADLINE, |model| {
            let run = model.run(id).unwrap_or_else(|| panic!("no run {id}"));
            assert!(
                run.state == state || !run.state.ended(),
                "{id} ended as {}\n{}",
                run.state,
                model.describe()
            );
            run.state == state
        });
        self.run(id)
    }

    /// Waits until a run has ended in any state.
    pub fn wait_ended(&self, id: &str) -> Run {
        self.wait_for(DEADLINE, |model| model.run(id).is_some_and(|run| run.state.ended()));
        self.run(id)
    }

    /// Waits until a message of this type has arrived for a run, even if it has no effect.
    pub fn wait_message(&self, id: &str, kind: &str) -> Received {
        let find = |run: &Run| run.history.iter().find(|received| received.kind == kind).cloned();
        self.wait_for(DEADLINE, |model| model.run(id).is_some_and(|run| find(run).is_some()));
        find(&self.run(id)).expect("it was there")
    }

    /// Waits until `count` connections were made in total and the last one is open.
    pub fn wait_connected(&self, count: usize) {
        self.wait_for(DEADLINE, |model| {
            let open = model.connections.last().is_some_and(|connection| connection.ended.is_none());
            model.connections.len() >= count && open
        });
    }

    /// Returns how many connections were made, including those that have ended.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// Ends every open connection.
    pub fn drop_connections(&self, how: Disconnect) {
        self.shared.update(|model| model.drop_connections(how));
    }

    /// Ends the newest connection of a worker. Returns `false` if it has no open one.
    pub fn drop_worker(&self, worker: &str, how: Disconnect) -> bool {
        self.shared.update(|model| model.drop_worker(worker, how))
    }

    /// Answers every handshake with this status; `None` restores the default.
    pub fn refuse_with(&self, status: Option<u16>) {
        self.shared.update(|model| model.refuse = status);
    }

    /// Replaces the admin key; [`ControlPlane::key`] still returns the first one. Open connections stay.
    pub fn change_key(&self, key: &str) {
        self.shared.update(|model| model.change_key(key));
    }

    /// Answers every REST request with 404, or with 503 for any other status; `None` restores the default.
    pub fn fail_rest_with(&self, status: Option<u16>) {
        self.shared.update(|model| model.rest_failure = status);
    }

    /// Delays every answer of the REST part.
    pub fn delay_rest(&self, delay: Duration) {
        self.shared.update(|model| model.rest_delay = delay);
    }

    /// Puts this many bytes before the fields of a run in every answer of the REST part.
    pub fn pad_rest_with(&self, bytes: usize) {
        self.shared.update(|model| model.rest_padding = bytes);
    }

    /// Locks the store, or unlocks it. While it is locked, pings are answered and messages are lost, and no run is sent.
    pub fn lock_store(&self, locked: bool) {
        self.shared.update(|model| model.locked = locked);
    }

    /// Lets faults happen at moments that `rng` chooses.
    pub fn inject(&self, faults: Faults, rng: Rng) {
        self.shared.update(|model| model.set_faults(faults, rng));
    }

    /// Stops reading from the open connections, so that they send no pongs, or resumes. Takes effect before it returns, and
    /// does not affect later connections. What a worker sent in between is read afterwards.
    pub fn hold_pongs(&self, hold: bool) {
        self.shared.update(|model| model.push_all(&Command::Hold(hold)));
        let reached = |one: &model::Connection| one.ended.is_some() || one.held == hold;
        let last = self.connections();
        self.wait_for(DEADLINE, |model| model.connections.iter().take(last).all(reached));
    }

    /// Closes every new connection right after its handshake, or stops doing so.
    pub fn accept_and_close(&self, close: bool) {
        self.shared.update(|model| model.accept_and_close = close);
    }

    /// Returns what workers have sent that the protocol does not allow.
    pub fn violations(&self) -> Vec<String> {
        self.shared.lock().violations.clone()
    }

    /// Panics if there are [`ControlPlane::violations`].
    pub fn assert_no_violations(&self) {
        let model = self.shared.lock();
        assert!(model.violations.is_empty(), "the worker broke the protocol\n{}", model.describe());
    }
}

impl ControlPlane {
    /// Ends all its connections and threads.
    fn end(&mut self) {
        drop(self.stopper.take());
        self.shared.update(|model| model.stopping = true);
        self.shared.ticker.notify_all();
        loop {
            let thread = self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(thread) = thread else { return };
            let joined = thread.join().is_ok();
            assert!(joined || std::thread::panicking(), "a thread of the control plane panicked");
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs the timers: claim time-outs and polling.
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
        // Not woken by each change, because the runs may be many: what begins meanwhile is due later than that.
        let longest = model.options().claim_timeout.min(RETRY);
        let left = wake.map_or(longest, |at| at.saturating_duration_since(Instant::now()).min(longest));
        model = shared.ticker.wait_timeout(model, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}
