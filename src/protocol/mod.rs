//! The wire contract with the control plane: what its messages mean and how ours are written.
//!
//! Owns the message types and their JSON. It must not know how a frame travels, which task is running or what time
//! it is: no I/O, no clock, no log. Values that came over the wire never appear in its errors, since any of them may
//! be a secret; errors name the field and what would be right.

mod decode;
mod encode;
mod fields;
mod fit;
mod run_state;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::secret::Secret;

pub use decode::{Invalid, decode};
pub use encode::{EncodedReport, MAX_MESSAGE_BYTES, encode};
pub(crate) use fields::shown_name;
pub(crate) use fit::left_out_line;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use fit::{escaped_len, fit};
pub use run_state::RunState;

/// Image of the task container when the assignment names none.
pub const DEFAULT_TASK_IMAGE: &str = "ubuntu:22.04";

/// What the control plane says.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A run for this worker.
    Assignment(Arc<Assignment>),
    /// A run is to end.
    Cancel {
        /// The run's id.
        task_id: String,
    },
    /// A message of a type that this worker does not know, to be logged and ignored.
    Unknown {
        /// The type as sent.
        kind: String,
    },
}

/// One run, as the control plane hands it out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Assignment {
    /// The run's id: any string that is not blank.
    pub task_id: String,
    /// `task.id`, which the agent is told; the same as `task_id` when the task has none of its own.
    pub agent_task_id: String,
    /// What the agent is to be started with.
    pub agent: AgentConfig,
    /// Image of the task container.
    pub docker_image: String,
    /// Image whose file system is mounted at `/agent`.
    pub sidecar_image: String,
    /// Environment of the task container.
    pub env_vars: BTreeMap<String, Secret>,
    /// Further images to mount, in the order they were sent.
    pub additional_sidecars: Vec<AdditionalSidecar>,
    /// For logs.
    pub trace_id: Option<String>,
    /// For logs and labels.
    pub execution_id: Option<String>,
    /// Size of this task.
    pub shape: InstanceShape,
    /// Appended to the agent's arguments as they are.
    pub additional_oz_args: Vec<String>,
}

/// `task.agent_config_snapshot`: strings are trimmed, blank ones are unset.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AgentConfig {
    /// `--environment`.
    pub environment_id: Option<String>,
    /// `--model`; the placeholder `pending` of a run without a model is unset.
    pub model_id: Option<String>,
    /// `--profile`.
    pub profile_id: Option<String>,
    /// `--skill`.
    pub skill_spec: Option<String>,
    /// `--mcp`, compact JSON. It may hold credentials of the servers it names.
    pub mcp_servers: Option<Secret>,
    /// `--computer-use` or `--no-computer-use`, only when present.
    pub computer_use: Option<bool>,
}

/// A further image to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdditionalSidecar {
    /// The image.
    pub image: String,
    /// Where its file system is mounted.
    pub mount_path: String,
    /// Whether the task may write there.
    pub read_write: bool,
}

/// Size of a task: an axis that was absent or not positive is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct InstanceShape {
    /// Processors, fractions allowed.
    pub vcpus: Option<f64>,
    /// Memory in GiB, fractions allowed.
    pub memory_gb: Option<f64>,
}

/// A message to the control plane.
#[derive(Debug, Clone, PartialEq)]
pub enum Outgoing {
    /// The task takes a free slot.
    Claimed {
        /// The run's id.
        task_id: String,
    },
    /// The task ended; it had a slot.
    Report(Arc<EncodedReport>),
    /// The task ended before it had a slot.
    Failed {
        /// The run's id.
        task_id: String,
        /// The kind, for programs.
        reason: FailureReason,
        /// The cause, for people.
        message: String,
    },
    /// The task was never started and is given back.
    Rejected {
        /// The run's id.
        task_id: String,
        /// For people.
        reason: String,
    },
}

/// The terminal report of one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The run's id.
    pub task_id: String,
    /// Which of the two terminal messages it becomes.
    pub result: RunResult,
    /// What the task printed, valid UTF-8 without NUL.
    pub output: String,
    /// Pull requests that the output names, in order of appearance.
    pub artifacts: Vec<PullRequest>,
    /// First URL on a line of the output that mentions a session.
    pub session_link: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunResult {
    /// The container ran and exited by itself.
    Completed {
        /// 0 to 255.
        exit_code: u8,
        /// The kernel killed it for its memory.
        out_of_memory: bool,
    },
    /// It could not be run, or this worker ended it.
    Failed {
        /// The kind, for programs.
        reason: FailureReason,
        /// The cause, for people: one line, no secret.
        message: String,
        /// 0 to 255, when the container had run.
        exit_code: Option<u8>,
    },
}

/// A pull request found in the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// `https://github.com/OWNER/REPO/pull/N`.
    pub url: String,
    /// RFC 3339, UTC: when the output was collected.
    pub created_at: String,
}

/// `failure_reason` on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// The assignment itself is wrong.
    InvalidAssignment,
    /// The image of the task container could not be had.
    ImagePull,
    /// A sidecar could not be had, unpacked or mounted.
    SidecarPrep,
    /// The engine refused to create the container.
    ContainerCreate,
    /// The engine refused to start it.
    ContainerStart,
    /// Its end could not be observed.
    ContainerWait,
    /// The kernel killed it for its memory.
    ContainerOom,
    /// It ran longer than it may.
    TaskTimeout,
    /// The control plane cancelled the run.
    TaskCancelled,
    /// The worker was stopped.
    GracefulShutdown,
    /// The engine could not be reached.
    DockerUnreachable,
    /// A defect of this worker.
    Internal,
}

impl FailureReason {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidAssignment => "invalid_assignment",
            Self::ImagePull => "image_pull",
            Self::SidecarPrep => "sidecar_prep",
            Self::ContainerCreate => "container_create",
            Self::ContainerStart => "container_start",
            Self::ContainerWait => "container_wait",
            Self::ContainerOom => "container_oom",
            Self::TaskTimeout => "task_timeout",
            Self::TaskCancelled => "task_cancelled",
            Self::GracefulShutdown => "graceful_shutdown",
            Self::DockerUnreachable => "docker_unreachable",
            Self::Internal => "internal",
        }
    }
}

impl Report {
    /// A report of a task that produced nothing.
    pub fn failed(task_id: &str, reason: FailureReason, message: impl Into<String>) -> Self {
        Self {
            task_id: task_id.to_owned(),
            result: RunResult::Failed { reason, message: message.into(), exit_code: None },
            output: String::new(),
            artifacts: Vec::new(),
            session_link: None,
        }
    }
}
