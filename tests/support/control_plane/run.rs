//! Runs: their specification, the assignment, the received messages and the result.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// The state of a run; serialised as in the REST part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Not sent to a worker.
    Pending,
    /// Sent to a worker that has not claimed it.
    Claimed,
    /// Claimed by its worker.
    InProgress,
    /// Completed with exit code 0.
    Succeeded,
    /// Completed with another exit code, failed, or lost with its worker.
    Failed,
    /// Cancelled by the user.
    Cancelled,
}

impl State {
    /// Whether it is final.
    pub fn ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "PENDING",
            Self::Claimed => "CLAIMED",
            Self::InProgress => "INPROGRESS",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        })
    }
}

/// A run to submit. Fields that are `None` or empty are omitted from the assignment.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSpec {
    /// The run's id; random if absent.
    pub id: Option<String>,
    /// The agent's prompt.
    pub prompt: String,
    /// Image of the task container.
    pub docker_image: Option<String>,
    /// Image mounted at `/agent`.
    pub sidecar_image: String,
    /// Environment of the task container.
    pub env_vars: BTreeMap<String, String>,
    /// Further images to mount: `{image, mount_path, read_write}`.
    pub additional_sidecars: Vec<Value>,
    /// `{vcpus, memory_gb}`.
    pub instance_shape: Option<Value>,
    /// Appended to the agent's arguments.
    pub additional_oz_args: Vec<String>,
    /// The owner, for the public control plane; a user if absent.
    pub owner: Option<Value>,
    /// As in the protocol. A missing `model_id` becomes `pending`, as the real control plane does it.
    pub agent_config_snapshot: Option<Value>,
}

impl RunSpec {
    /// Returns a run in these images whose agent executes `script` and prints nothing else.
    pub fn quiet(task_image: &str, sidecar_image: &str, script: &str) -> Self {
        let env = [("OZ_TEST_QUIET", "1"), ("OZ_TEST_SCRIPT", script)];
        Self {
            docker_image: Some(task_image.to_owned()),
            sidecar_image: sidecar_image.to_owned(),
            env_vars: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..Self::default()
        }
    }

    /// Returns the `data` of the `task_assignment` for the run `id`.
    pub fn assignment(&self, id: &str) -> Value {
        let mut config = self.agent_config_snapshot.clone().unwrap_or_else(|| json!({}));
        if let Some(fields) = config.as_object_mut() {
            fields.entry("model_id").or_insert_with(|| json!("pending"));
        }
        let mut data = json!({
            "task_id": id,
            "task": {
                "id": id,
                "title": self.prompt,
                "task_definition": {"prompt": self.prompt},
                "created_at": "2026-01-02T03:04:05Z",
                "updated_at": "2026-01-02T03:04:05Z",
                "agent_config_snapshot": config,
            },
            "sidecar_image": self.sidecar_image,
            "env_vars": self.env_vars,
            "trace_id": format!("trace-{id}"),
        });
        self.add_optional(&mut data);
        data
    }

    /// Returns the `data` of the `task_assignment` of an execution by the public control plane.
    pub fn upstream_assignment(&self, id: &str, execution: &str) -> Value {
        let mut data = self.assignment(id);
        if let Some(fields) = data.as_object_mut() {
            fields.remove("trace_id");
            fields.insert("execution_id".to_owned(), json!(execution));
        }
        data["task"]["owner"] = self.owner.clone().unwrap_or_else(|| json!({"Type": "USER", "Id": 7}));
        data["task"]["agent_config_snapshot"] =
            self.agent_config_snapshot.clone().unwrap_or_else(|| json!({}));
        data
    }

    fn add_optional(&self, data: &mut Value) {
        if let Some(image) = &self.docker_image {
            data["docker_image"] = json!(image);
        }
        if !self.additional_sidecars.is_empty() {
            data["additional_sidecars"] = json!(self.additional_sidecars);
        }
        if let Some(shape) = &self.instance_shape {
            data["instance_shape"] = shape.clone();
        }
        if !self.additional_oz_args.is_empty() {
            data["additional_oz_args"] = json!(self.additional_oz_args);
        }
    }
}

/// A message from a worker.
#[derive(Debug, Clone)]
pub struct Received {
    /// The number of its connection; the first is 1.
    pub connection: usize,
    /// Its `type`.
    pub kind: String,
    /// Its `data`.
    pub data: Value,
    /// When it was read from the socket.
    pub at: Instant,
}

/// A run with its history. Each execution at the public control plane is a run with the same id.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its id, which is also the task's.
    pub id: String,
    /// The execution's id, at the public control plane.
    pub execution: Option<String>,
    /// The connections on which it was rejected since it was last sent to all.
    pub rejected_by: Vec<usize>,
    /// When it may be sent to those again.
    pub retry_at: Option<Instant>,
    /// The connections on which a cancel with the execution's id was sent.
    pub cancels: Vec<usize>,
    /// The state that the agent has set: the REST part shows it.
    pub agent_state: Option<State>,
    /// The connection on which it was last sent.
    pub connection: Option<usize>,
    /// Its state.
    pub state: State,
    /// All its states in order; the last is the current one.
    pub states: Vec<State>,
    /// When the state last changed.
    pub changed: Instant,
    /// The id of the worker it was last sent to.
    pub worker: Option<String>,
    /// The `data` of its assignment.
    pub assignment: Value,
    /// When it was last sent.
    pub sent: Option<Instant>,
    /// How often it was sent.
    pub deliveries: usize,
    /// How many `task_claimed` messages arrived.
    pub claims: usize,
    /// How many `task_completed` and `task_failed` messages arrived.
    pub terminal_reports: usize,
    /// All messages received for it, including those without effect.
    pub history: Vec<Received>,
    /// The task's output.
    pub output: Option<String>,
    /// The task's exit code.
    pub exit_code: Option<i64>,
    /// The failure reason, one of the protocol's.
    pub failure_reason: Option<String>,
    /// Its artifacts, such as pull requests.
    pub artifacts: Vec<Value>,
    /// The URL of the agent's session.
    pub session_link: Option<String>,
    /// The error message.
    pub message: Option<String>,
}

impl Run {
    /// A pending run.
    pub fn new(id: String, assignment: Value, now: Instant) -> Self {
        Self {
            id,
            execution: assignment["execution_id"].as_str().map(str::to_owned),
            rejected_by: Vec::new(),
            retry_at: None,
            cancels: Vec::new(),
            agent_state: None,
            connection: None,
            state: State::Pending,
            states: vec![State::Pending],
            changed: now,
            worker: None,
            assignment,
            sent: None,
            deliveries: 0,
            claims: 0,
            terminal_reports: 0,
            history: Vec::new(),
            output: None,
            exit_code: None,
            failure_reason: None,
            artifacts: Vec::new(),
            session_link: None,
            message: None,
        }
    }

    /// Changes its state.
    pub fn enter(&mut self, state: State, now: Instant) {
        if self.state != state {
            self.state = state;
            self.states.push(state);
            self.changed = now;
        }
    }

    /// Copies the result from a terminal message.
    pub fn take_result(&mut self, data: &Value) {
        let text = |field: &str| data[field].as_str().map(str::to_owned);
        self.output = text("output");
        self.exit_code = data["exit_code"].as_i64();
        self.failure_reason = text("failure_reason");
        self.session_link = text("session_link");
        self.message = text("message");
        self.artifacts = data["artifacts"].as_array().cloned().unwrap_or_default();
    }

    /// Returns the URLs of its pull requests.
    pub fn pull_requests(&self) -> Vec<&str> {
        self.artifacts.iter().filter_map(|artifact| artifact["data"]["url"].as_str()).collect()
    }

    /// Returns its representation in the REST part. As in the real one, the output is there twice.
    pub fn to_json(&self) -> Value {
        json!({
            "run_id": self.id,
            "state": self.agent_state.unwrap_or(self.state),
            "status_message": {"message": self.output},
            "updated_at": timestamp(self.changed),
            "worker_id": self.worker,
            "output": self.output,
            "exit_code": self.exit_code,
            "failure_reason": self.failure_reason,
            "message": self.message,
            "artifacts": self.artifacts,
            "session_link": self.session_link,
        })
    }
}

/// Returns a time as the control plane writes it: UTC, with milliseconds.
pub fn timestamp(at: Instant) -> String {
    static START: LazyLock<(Instant, OffsetDateTime)> =
        LazyLock::new(|| (Instant::now(), SystemTime::now().into()));
    let (instant, time) = *START;
    let offset = time::Duration::try_from(at.saturating_duration_since(instant)).expect("a short time")
        - time::Duration::try_from(instant.saturating_duration_since(at)).expect("a short time");
    let time = time + offset;
    let (date, millis) = (time.date(), time.millisecond());
    format!("{date}T{:02}:{:02}:{:02}.{millis:03}Z", time.hour(), time.minute(), time.second())
}

/// Returns a random UUID.
pub fn new_id() -> String {
    let word = || RandomState::new().build_hasher().finish();
    let (a, b) = (word(), word());
    let (time, version) = (a >> 32, a & 0xfff);
    let (mid, variant, node) = ((a >> 12) & 0xffff, (b >> 48) & 0x3fff | 0x8000, b & 0xffff_ffff_ffff);
    format!("{time:08x}-{mid:04x}-4{version:03x}-{variant:04x}-{node:012x}")
}
