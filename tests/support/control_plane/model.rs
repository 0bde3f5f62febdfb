//! The state of the control plane and its rules, as observed from the real one.
//!
//! No I/O and no clock: the time is an argument, and messages go into the outbox of a connection.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::check::{self, Message};
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
    /// Whether reading is stopped.
    pub held: bool,
    /// Whether the control plane crashed while it was open: its end changes no run.
    pub crashed: bool,
    outbox: Arc<Outbox>,
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

    /// Returns the settings.
    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// Returns the run with this id.
    pub fn run(&self, id: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.id == id)
    }

    /// Returns how many connections are open.
    pub fn connected(&self) -> usize {
        self.connections.iter().filter(|connection| connection.ended.is_none()).count()
    }

    fn run_mut(&mut self, id: &str) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.id == id)
    }

    /// Adds a run and returns its id.
    pub(super) fn submit(&mut self, spec: &RunSpec, now: Instant) -> String {
        let id = spec.id.clone().unwrap_or_else(new_id);
        self.runs.push(Run::new(id.clone(), spec.assignment(&id), now));
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

    /// Makes an ended run pending again.
    pub(super) fn restart(&mut self, id: &str, now: Instant) {
        if let Some(run) = self.run_mut(id).filter(|run| run.state.ended()) {
            run.enter(State::Pending, now);
        }
        self.deliver_promptly(now);
    }

    /// Removes and returns the ended runs for which `done` holds, and removes all recorded messages and requests.
    pub(super) fn forget(&mut self, mut done: impl FnMut(&Run) -> bool) -> Vec<Run> {
        self.messages.clear();
        self.requests.clear();
        self.runs.extract_if(.., |run| run.state.ended() && done(run)).collect()
    }

    /// Cancels a run: sets the state, then sends the message to the newest connection of its worker, if there is one. Returns
    /// `false` if there is no such run.
    pub(super) fn cancel(&mut self, id: &str, now: Instant) -> bool {
        let Some(run) = self.run_mut(id) else { return false };
        if run.state.ended() {
            return true;
        }
        let was_sent = run.state != State::Pending;
        run.enter(State::Cancelled, now);
        let worker = run.worker.clone();
        let newest = self.open().rfind(|connection| Some(&connection.worker) == worker.as_ref());
        if let (true, Some(connection)) = (was_sent, newest) {
            let text = json!({"type": "task_cancel", "data": {"task_id": id}}).to_string();
            connection.outbox.push(Command::Text(text));
        }
        true
    }

    /// Cancels a run without a message to the worker.
    pub(super) fn cancel_silently(&mut self, id: &str, now: Instant) {
        if let Some(run) = self.run_mut(id).filter(|run| !run.state.ended()) {
            run.enter(State::Cancelled, now);
        }
    }

    /// Adds a connection and returns its number.
    pub(super) fn connect(&mut self, worker: &str, outbox: Arc<Outbox>, now: Instant) -> usize {
        let number = self.connections.len() + 1;
        let worker = worker.to_owned();
        let (ended, pings, held, crashed) = (None, 0, false, false);
        self.connections.push(Connection { number, worker, ended, pings, held, crashed, outbox });
        self.deliver_promptly(now);
        number
    }

    /// Ends a connection. Runs belong to the worker's id, not to the connection, so this also affects runs that a newer
    /// connection of the same worker has claimed.
    pub(super) fn disconnect(&mut self, number: usize, ended: Ended, now: Instant) {
        let connection = &mut self.connections[number - 1];
        connection.ended = Some(ended);
        let worker = Some(connection.worker.clone()).filter(|_| !connection.crashed);
        for run in self.runs.iter_mut().filter(|run| worker.is_some() && run.worker == worker) {
            match run.state {
                State::Claimed => run.enter(State::Pending, now),
                State::InProgress => {
                    run.enter(State::Failed, now);
                    run.message = Some("the worker disconnected".to_owned());
                }
                _ => {}
            }
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
        for violation in check::violations(&message, &worker) {
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
        self.apply(&worker, received, fate != Fate::Lost, now);
        if fate == Fate::Crash {
            self.crash();
        }
        fate != Fate::Crash
    }

    fn apply(&mut self, worker: &str, received: Received, stored: bool, now: Instant) {
        let id = received.data["task_id"].as_str().unwrap_or_default().to_owned();
        let number = received.connection;
        let Some(run) = self.run_mut(&id) else {
            // The answer to an assignment that was sent without a run (`send_text`).
            return;
        };
        let (kind, data) = (received.kind.clone(), received.data.clone());
        run.history.push(received);
        run.claims += usize::from(kind == "task_claimed");
        run.terminal_reports += usize::from(matches!(kind.as_str(), "task_completed" | "task_failed"));
        let unclaimed = kind == "task_completed" && run.claims == 0;
        let is_its = run.state != State::Pending && run.worker.as_deref() == Some(worker);
        if stored && !run.state.ended() && is_its {
            change(run, &kind, &data, now);
        }
        if unclaimed {
            self.violation(number, &format!("task_completed before task_claimed for {id}"));
        }
    }

    /// Records a violation.
    pub(super) fn violation(&mut self, number: usize, what: &str) {
        self.violations.push(format!("connection {number}: {what}"));
    }

    /// Makes runs pending again that were not claimed in time.
    pub(super) fn expire(&mut self, now: Instant) {
        let limit = self.options.claim_timeout;
        for run in self.runs.iter_mut().filter(|run| run.state == State::Claimed) {
            if run.sent.is_none_or(|sent| now.duration_since(sent) >= limit) {
                run.enter(State::Pending, now);
            }
        }
        self.deliver_promptly(now);
    }

    /// Returns when the next claim expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let claimed = self.runs.iter().filter(|run| run.state == State::Claimed);
        claimed.filter_map(|run| Some(run.sent? + self.options.claim_timeout)).min()
    }

    /// Sends a pending run to each open connection.
    pub(super) fn deliver_round(&mut self, now: Instant) {
        let numbers: Vec<usize> = self.open().map(|connection| connection.number).collect();
        for number in numbers {
            self.deliver_one(number, now);
        }
    }

    fn deliver_promptly(&mut self, now: Instant) {
        if self.options.pacing != Pacing::Prompt {
            return;
        }
        let numbers: Vec<usize> = self.open().map(|connection| connection.number).collect();
        if numbers.is_empty() {
            return;
        }
        while self.deliver_one(numbers[self.turn % numbers.len()], now) {
            self.turn += 1;
        }
    }

    fn deliver_one(&mut self, number: usize, now: Instant) -> bool {
        let connection = &self.connections[number - 1];
        let Some(run) = self.runs.iter_mut().find(|run| run.state == State::Pending) else { return false };
        if self.locked || connection.crashed {
            return false;
        }
        run.worker = Some(connection.worker.clone());
        run.sent = Some(now);
        run.deliveries += 1;
        run.enter(State::Claimed, now);
        connection.outbox.push(assignment(run));
        true
    }

    fn open(&self) -> impl DoubleEndedIterator<Item = &Connection> {
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
            let _ = writeln!(text, "run {} states={:?} deliveries={}", run.id, run.states, run.deliveries);
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

fn change(run: &mut Run, kind: &str, data: &Value, now: Instant) {
    match kind {
        "task_claimed" => run.enter(State::InProgress, now),
        "task_completed" => {
            run.take_result(data);
            run.enter(if run.exit_code == Some(0) { State::Succeeded } else { State::Failed }, now);
        }
        "task_failed" => {
            run.take_result(data);
            run.enter(State::Failed, now);
        }
        // The real control plane does not know `task_rejected`: the run becomes pending after the claim time-out.
        _ => {}
    }
}

fn short(text: &str) -> String {
    text.chars().take(400).collect()
}
