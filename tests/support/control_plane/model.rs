//! The state of the control plane and its rules, as observed from the real one.
//!
//! No I/O and no clock: the time is an argument, and messages go into the outbox of a connection.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::check::{self, Message};
use super::dialect::{Dialect, is_terminal};
use super::faults::{Chance, Fate, Faults};
use super::outbox::{Command, Disconnect, Outbox};
use super::run::{Received, Run, RunSpec, State, new_id, timestamp};
use super::{Options, Pacing};
use crate::support::rng::Rng;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The worker sent a close frame, with this code if it had one.
    Closed(Option<u16>),
    /// It ended without a close frame, or the control plane ended it.
    Lost,
}

/// A WebSocket connection, open or ended.
pub struct Connection {
    /// Its number; the first is 1.
    pub number: usize,
    /// The worker's id, from the query.
    pub worker: String,
    /// How it ended; `None` while it is open.
    pub ended: Option<Ended>,
    /// How many pings arrived.
    pub pings: usize,
    /// The value of `X-Warp-Worker-Capabilities`, or empty.
    pub capabilities: String,
    /// When it was made.
    pub at: Instant,
    /// Whether reading is stopped.
    pub held: bool,
    /// Whether the control plane crashed while it was open: its end changes no run.
    pub crashed: bool,
    pub(super) outbox: Arc<Outbox>,
}

/// The state of the control plane.
pub struct Model {
    /// All runs in order of submission.
    pub runs: Vec<Run>,
    /// All connections in order, including ended ones.
    pub connections: Vec<Connection>,
    /// The number of handshakes, whether they succeeded or not.
    pub attempts: usize,
    /// All messages received, in order.
    pub messages: Vec<Received>,
    /// Methods and paths of REST requests, such as `GET /health`.
    pub requests: Vec<String>,
    /// What workers have sent that the protocol does not allow.
    pub violations: Vec<String>,
    pub(super) refuse: Option<u16>,
    pub(super) rest_failure: Option<u16>,
    /// How long each answer of the REST part takes.
    pub(super) rest_delay: Duration,
    /// How much text is put before the fields of a run in the REST part.
    pub(super) rest_padding: usize,
    /// The store is locked: it loses what it receives, and no run is sent.
    pub(super) locked: bool,
    chance: Option<Chance>,
    /// How many faults of the store there were.
    pub faults: usize,
    pub(super) accept_and_close: bool,
    pub(super) stopping: bool,
    options: Options,
    turn: usize,
}

impl Model {
    pub(super) fn change_key(&mut self, key: &str) {
        key.clone_into(&mut self.options.key);
    }

    /// Creates an empty state.
    pub(super) fn new(options: Options) -> Self {
        Self {
            runs: Vec::new(),
            connections: Vec::new(),
            attempts: 0,
            messages: Vec::new(),
            requests: Vec::new(),
            violations: Vec::new(),
            refuse: None,
            rest_failure: None,
            rest_delay: Duration::ZERO,
            rest_padding: 0,
            locked: false,
            chance: None,
            faults: 0,
            accept_and_close: false,
            stopping: false,
            options,
            turn: 0,
        }
    }

    /// Goes on after a stop.
    pub(super) fn resume(&mut self, options: Options) {
        self.options = options;
        self.stopping = false;
    }

    /// Returns the settings.
    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// Returns the run with this id, or its last execution.
    pub fn run(&self, id: &str) -> Option<&Run> {
        self.runs.iter().rfind(|run| run.id == id)
    }

    /// Returns an execution of a run.
    pub fn execution(&self, id: &str, execution: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.id == id && run.execution.as_deref() == Some(execution))
    }

    /// Returns how many connections are open.
    pub fn connected(&self) -> usize {
        self.connections.iter().filter(|connection| connection.ended.is_none()).count()
    }

    pub(super) fn run_mut(&mut self, id: &str) -> Option<&mut Run> {
        self.runs.iter_mut().rfind(|run| run.id == id)
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.options.dialect
    }

    /// Returns the run, or the execution, that a message of a worker is about.
    fn addressed(&mut self, data: &Value) -> Option<&mut Run> {
        let id = data["task_id"].as_str()?;
        let execution = data["execution_id"].as_str().filter(|_| self.dialect() == Dialect::Upstream);
        let is_named = |run: &&mut Run| execution.is_none() || run.execution.as_deref() == execution;
        self.runs.iter_mut().filter(|run| run.id == id).rfind(is_named)
    }

    /// Adds a run and returns its id.
    pub(super) fn submit(&mut self, spec: &RunSpec, now: Instant) -> String {
        let id = spec.id.clone().unwrap_or_else(new_id);
        let assignment = match self.dialect() {
            Dialect::Old => spec.assignment(&id),
            Dialect::Upstream => spec.upstream_assignment(&id, &new_id()),
        };
        self.runs.push(Run::new(id.clone(), assignment, now));
        self.deliver_promptly(now);
        id
    }

    /// Adds a run whose assignment is `data`. Without a usable id there is no run, and the assignment is sent to the newest
    /// connection at once.
    pub(super) fn submit_raw(&mut self, data: &Value, now: Instant) -> Option<String> {
        let id = data["task_id"].as_str().filter(|id| !id.trim().is_empty());
        let Some(id) = id else {
            self.push_newest(Command::Text(json!({"type": "task_assignment", "data": data}).to_string()));
            return None;
        };
        self.runs.push(Run::new(id.to_owned(), data.clone(), now));
        self.deliver_promptly(now);
        Some(id.to_owned())
    }

    /// Sends the assignment of a claimed or running run again. Returns `false` if there is no such run or no connection.
    pub(super) fn resend(&mut self, id: &str, now: Instant) -> bool {
        let sent = |run: &&mut Run| matches!(run.state, State::Claimed | State::InProgress);
        let newest = self.connections.iter().rfind(|connection| connection.ended.is_none());
        let run = self.runs.iter_mut().find(|run| run.id == id).filter(sent);
        let Some((run, newest)) = run.zip(newest) else { return false };
        if run.state == State::Claimed {
            run.changed = now;
        }
        newest.outbox.push(assignment(run));
        true
    }

    /// Removes and returns the ended runs for which `done` holds, and removes all recorded messages and requests.
    pub(super) fn forget(&mut self, mut done: impl FnMut(&Run) -> bool) -> Vec<Run> {
        self.messages.clear();
        self.requests.clear();
        self.runs.extract_if(.., |run| run.state.ended() && done(run)).collect()
    }

    /// Adds a connection and returns its number.
    pub(super) fn connect(
        &mut self,
        worker: &str,
        capabilities: &str,
        outbox: Arc<Outbox>,
        now: Instant,
    ) -> usize {
        let number = self.connections.len() + 1;
        let (worker, capabilities) = (worker.to_owned(), capabilities.to_owned());
        let (ended, pings, held, crashed) = (None, 0, false, false);
        self.connections.push(Connection {
            number,
            worker,
            ended,
            pings,
            capabilities,
            at: now,
            held,
            crashed,
            outbox,
        });
        self.deliver_promptly(now);
        number
    }

    /// Ends a connection. At the old control plane, runs belong to the worker's id, not to the connection, so this also affects
    /// runs that a newer connection of the same worker has claimed.
    pub(super) fn disconnect(&mut self, number: usize, ended: Ended, now: Instant) {
        let dialect = self.dialect();
        let connection = &mut self.connections[number - 1];
        connection.ended = Some(ended);
        let worker = Some(connection.worker.clone()).filter(|_| !connection.crashed);
        for run in self.runs.iter_mut().filter(|run| worker.is_some() && run.worker == worker) {
            let is_own = run.connection == Some(number);
            dialect.disconnected(run, is_own, now);
        }
        self.deliver_promptly(now);
    }

    /// Sets how often each fault happens.
    pub(super) fn set_faults(&mut self, faults: Faults, rng: Rng) {
        self.chance = Some(Chance::new(faults, rng));
    }

    /// Ends every connection as if the process had crashed: their end changes no run.
    pub(super) fn crash(&mut self) {
        for connection in self.connections.iter_mut().filter(|connection| connection.ended.is_none()) {
            connection.crashed = true;
            connection.outbox.push(Command::End(Disconnect::Rst));
        }
    }

    /// Returns whether a look-up fails, and how much its answer is padded.
    pub(super) fn look_up(&mut self) -> (bool, usize) {
        let (fails, is_large) = self.chance.as_mut().map(Chance::of_look_up).unwrap_or_default();
        (fails, if is_large { 64 << 20 } else { self.rest_padding })
    }

    /// Handles a text frame. Returns false if the control plane crashes before it reads on.
    pub(super) fn receive(&mut self, number: usize, text: &str, now: Instant) -> bool {
        let worker = self.connections[number - 1].worker.clone();
        let message = match check::parse(text) {
            Ok(message) => message,
            Err(error) => {
                self.violation(number, &format!("{error}: {}", short(text)));
                return true;
            }
        };
        for violation in check::violations(self.dialect(), &message, &worker) {
            self.violation(number, &violation);
        }
        let Message { kind, data } = message;
        let received = Received { connection: number, kind, data, at: now };
        self.messages.push(received.clone());
        let fate = match self.chance.as_mut() {
            Some(_) if self.locked => Fate::Lost,
            Some(chance) => chance.of_message(&received.kind),
            None if self.locked => Fate::Lost,
            None => Fate::Stored,
        };
        self.faults += usize::from(fate != Fate::Stored);
        self.apply(&worker, &received, fate != Fate::Lost, now);
        if fate == Fate::Crash {
            self.crash();
        }
        fate != Fate::Crash
    }

    fn apply(&mut self, worker: &str, received: &Received, stored: bool, now: Instant) {
        let (number, dialect) = (received.connection, self.dialect());
        let capabilities = self.connections[number - 1].capabilities.clone();
        let id = received.data["task_id"].as_str().unwrap_or_default().to_owned();
        let Some(run) = self.addressed(&received.data) else {
            // With the old one it may be the answer to an assignment that was sent without a run (`send_text`).
            if dialect == Dialect::Upstream {
                self.violation(number, &format!("{}: no such execution of {id}", received.kind));
            }
            return;
        };
        let mut wrong = dialect.misplaced(run, received, &capabilities);
        run.history.push(received.clone());
        run.claims += usize::from(received.kind == "task_claimed");
        run.terminal_reports += usize::from(is_terminal(&received.kind));
        if received.kind == "task_completed" && run.claims == 0 {
            wrong.push("before task_claimed");
        }
        let is_its = run.state != State::Pending && run.worker.as_deref() == Some(worker);
        if stored && !run.state.ended() && is_its {
            dialect.change(run, received, now);
        }
        for what in wrong {
            self.violation(number, &format!("{} {what} for {id}", received.kind));
        }
        if received.kind == "task_rejected" {
            self.deliver_promptly(now);
        }
    }

    /// Records a violation.
    pub(super) fn violation(&mut self, number: usize, what: &str) {
        self.violations.push(format!("connection {number}: {what}"));
    }

    /// Makes runs pending again that were not claimed in time, and sends those again that were rejected.
    pub(super) fn expire(&mut self, now: Instant) {
        let limit = self.options.claim_timeout;
        for run in self.runs.iter_mut().filter(|run| run.state == State::Claimed) {
            if run.sent.is_none_or(|sent| now.duration_since(sent) >= limit) {
                run.enter(State::Pending, now);
            }
        }
        for run in self.runs.iter_mut().filter(|run| run.retry_at.is_some_and(|at| at <= now)) {
            run.retry_at = None;
            run.rejected_by.clear();
        }
        self.deliver_promptly(now);
    }

    /// Returns when the next claim expires, or the next rejected run is sent again.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let claimed = self.runs.iter().filter(|run| run.state == State::Claimed);
        let claimed = claimed.filter_map(|run| Some(run.sent? + self.options.claim_timeout));
        claimed.chain(self.runs.iter().filter_map(|run| run.retry_at)).min()
    }

    /// Sends a pending run to each open connection.
    pub(super) fn deliver_round(&mut self, now: Instant) {
        let numbers: Vec<usize> = self.open().map(|connection| connection.number).collect();
        for number in numbers {
            self.deliver_one(number, now);
        }
    }

    pub(super) fn deliver_promptly(&mut self, now: Instant) {
        if self.options.pacing != Pacing::Prompt {
            return;
        }
        let numbers: Vec<usize> = self.open().map(|connection| connection.number).collect();
        if numbers.is_empty() {
            return;
        }
        while (0..numbers.len())
            .any(|skip| self.deliver_one(numbers[(self.turn + skip) % numbers.len()], now))
        {
            self.turn += 1;
        }
    }

    fn deliver_one(&mut self, number: usize, now: Instant) -> bool {
        let connection = &self.connections[number - 1];
        let waits = |run: &&mut Run| run.state == State::Pending && !run.rejected_by.contains(&number);
        let Some(run) = self.runs.iter_mut().find(waits) else { return false };
        if self.locked || connection.crashed {
            return false;
        }
        run.worker = Some(connection.worker.clone());
        run.connection = Some(number);
        run.sent = Some(now);
        run.deliveries += 1;
        run.enter(State::Claimed, now);
        connection.outbox.push(assignment(run));
        true
    }

    pub(super) fn open(&self) -> impl DoubleEndedIterator<Item = &Connection> {
        self.connections.iter().filter(|connection| connection.ended.is_none())
    }

    /// Queues a command for every open connection.
    pub(super) fn push_all(&self, command: &Command) {
        self.open().for_each(|connection| connection.outbox.push(command.clone()));
    }

    /// Queues a command for the newest open connection.
    pub(super) fn push_newest(&self, command: Command) {
        let newest = self.open().next_back();
        newest.expect("no worker is connected").outbox.push(command);
    }

    /// Queues a command for the newest open connection of a worker. Returns `false` if it has none.
    pub(super) fn push_to(&self, worker: &str, command: Command) -> bool {
        let newest = self.open().rfind(|connection| connection.worker == worker);
        newest.map(|connection| connection.outbox.push(command)).is_some()
    }

    /// Ends the newest open connection of a worker. Returns `false` if it has none.
    pub(super) fn drop_worker(&self, worker: &str, how: Disconnect) -> bool {
        self.push_to(worker, Command::End(how))
    }

    /// Ends every open connection.
    pub(super) fn drop_connections(&self, how: Disconnect) {
        self.push_all(&Command::End(how));
    }

    /// Describes the whole state, for a test that timed out.
    pub fn describe(&self) -> String {
        let mut text = format!("attempts={} connections:\n", self.attempts);
        for Connection { number, worker, ended, pings, .. } in &self.connections {
            let _ = writeln!(text, "  {number} worker={worker} ended={ended:?} pings={pings}");
        }
        for run in &self.runs {
            let Run { id, execution, states, deliveries, .. } = run;
            let _ = writeln!(text, "run {id} {execution:?} states={states:?} deliveries={deliveries}");
            for received in &run.history {
                let data = short(&received.data.to_string());
                let _ = writeln!(text, "  on {}: {} {data}", received.connection, received.kind);
            }
        }
        let last = self.requests.len().saturating_sub(40);
        let requests = self.requests.get(last..).unwrap_or_default();
        let _ = writeln!(text, "last requests={requests:?}\nviolations={:#?}", self.violations);
        text
    }
}

/// The time in it is that of the run's state, which is CLAIMED.
fn assignment(run: &Run) -> Command {
    let mut data = run.assignment.clone();
    if let Some(task) = data.get_mut("task").and_then(Value::as_object_mut) {
        task.insert("updated_at".to_owned(), json!(timestamp(run.changed)));
    }
    Command::Text(json!({"type": "task_assignment", "data": data}).to_string())
}

fn short(text: &str) -> String {
    text.chars().take(400).collect()
}
