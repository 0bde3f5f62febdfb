//! The messages of the control plane's WebSocket and the states of its runs.
//!
//! Pure. Errors name a field and what would be right, never its value: any value may be a secret.

mod agent;
mod decode;
mod dialect;
mod encode;
mod end;
mod execution;
mod fields;
mod fit;
mod json;
mod run_state;
mod salvage;

use std::collections::BTreeMap;
use std::sync::Arc;

use time::OffsetDateTime;

use crate::secret::Secret;

pub use agent::AgentConfig;
pub use decode::{Invalid, decode, too_long};
pub use dialect::{CAPABILITIES, Dialect};
pub use encode::{EncodedReport, MAX_MESSAGE_BYTES, encode};
pub use execution::{ExecutionKey, is_path_segment};
pub(crate) use fields::shown_name;
pub(crate) use fit::{GAP_ENDS, left_out_line, searched_line, searched_words};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use fit::{escaped_len, fit};
pub(crate) use run_state::instant;
pub use run_state::{RunState, RunView};

/// A message from the control plane.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// Run this task.
    Assignment(Arc<Assignment>),
    /// End this run's task.
    Cancel {
        /// The run's id.
        task_id: String,
        /// The execution to end; all of the task if `None`.
        execution_id: Option<String>,
    },
    /// A message of an unknown type.
    Unknown {
        /// The type as sent.
        kind: String,
    },
}

/// A task to run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Assignment {
    /// Identifies it; the run's id is not blank.
    pub key: ExecutionKey,
    /// What the control plane expects for it.
    pub dialect: Dialect,
    /// Why the dialect is a guess, if it is one.
    pub guess: Option<&'static str>,
    /// Whether the session is shared with the owner's team.
    pub shared_with_team: bool,
    /// `task.id`, for the agent; `task_id` if it is absent.
    pub agent_task_id: String,
    /// The agent's configuration.
    pub agent: AgentConfig,
    /// Image of the task container, if one is named.
    pub docker_image: Option<String>,
    /// Image whose file system is mounted at `/agent`. Without one, the task's own image has the agent.
    pub sidecar_image: Option<String>,
    /// Environment of the task container.
    pub env_vars: BTreeMap<String, Secret>,
    /// Further images to mount, in the order they were sent.
    pub additional_sidecars: Vec<AdditionalSidecar>,
    /// When the run was assigned, by the control plane's clock; `None` if that is absent or cannot be read.
    pub updated_at: Option<OffsetDateTime>,
    /// For the log.
    pub trace_id: Option<String>,
    /// The limits of the container.
    pub shape: InstanceShape,
    /// Appended to the agent's arguments.
    pub additional_oz_args: Vec<String>,
}

impl Assignment {
    /// Returns about how many bytes of memory it takes.
    pub fn size(&self) -> usize {
        /// What a string or an entry of a map takes besides its text.
        const ENTRY: usize = 64;
        let optional = |text: &Option<String>| text.as_deref().map_or(0, str::len);
        let names = [&self.docker_image, &self.sidecar_image, &self.trace_id, &self.key.execution_id];
        let env = self.env_vars.iter().map(|(name, value)| 2 * ENTRY + name.len() + value.expose().len());
        let sidecars = self.additional_sidecars.iter();
        let sidecars = sidecars.map(|sidecar| 2 * ENTRY + sidecar.image.len() + sidecar.mount_path.len());
        size_of::<Self>()
            + self.key.task_id.len()
            + self.agent_task_id.len()
            + names.into_iter().map(optional).sum::<usize>()
            + self.agent.size()
            + env.chain(sidecars).sum::<usize>()
            + self.additional_oz_args.iter().map(|arg| ENTRY + arg.len()).sum::<usize>()
    }
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

/// Limits of a container: `None` if absent or not positive.
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
        /// The execution.
        key: ExecutionKey,
        /// What the control plane expects for it.
        dialect: Dialect,
    },
    /// The task ended; it had a slot.
    Report(Arc<EncodedReport>),
    /// The task ended before it had a slot.
    Failed {
        /// The execution.
        key: ExecutionKey,
        /// What the control plane expects for it.
        dialect: Dialect,
        /// The kind, for programs.
        reason: FailureReason,
        /// The cause, for people.
        message: String,
    },
    /// A cancelled execution has ended, and its container is removed.
    Closed {
        /// The execution.
        key: ExecutionKey,
        /// What the control plane expects for it.
        dialect: Dialect,
    },
    /// The task was never started and is given back.
    Rejected {
        /// The execution.
        key: ExecutionKey,
        /// What the control plane expects for it.
        dialect: Dialect,
        /// For people.
        reason: String,
    },
}

/// How one task ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The execution.
    pub key: ExecutionKey,
    /// What the control plane expects for it.
    pub dialect: Dialect,
    /// The result.
    pub result: RunResult,
    /// What the task printed, without NUL.
    pub output: String,
    /// The pull requests in the output, in order of appearance.
    pub artifacts: Vec<PullRequest>,
    /// The first URL on a line of the output that mentions a session.
    pub session_link: Option<String>,
}

/// The result of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunResult {
    /// The container exited by itself.
    Completed {
        /// 0 to 255.
        exit_code: u8,
        /// Whether the kernel killed it for its memory.
        out_of_memory: bool,
        /// Why the exit code and the output may not be the task's own, for people; usually nothing.
        note: Option<String>,
    },
    /// The container could not run, or this worker stopped it.
    Failed {
        /// The kind, for programs.
        reason: FailureReason,
        /// The reason that stands for the step that failed; often the same.
        step: FailureReason,
        /// The cause, for people: one line without secrets.
        message: String,
        /// 0 to 255, if the container ran.
        exit_code: Option<u8>,
    },
}

impl RunResult {
    /// Whether the task failed: not for a success, nor for a task that the operator or the control plane ended.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Completed { exit_code, out_of_memory, .. } => *exit_code != 0 || *out_of_memory,
            Self::Failed { reason, .. } => {
                !matches!(reason, FailureReason::TaskCancelled | FailureReason::GracefulShutdown)
            }
        }
    }
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
    /// The assignment is invalid.
    InvalidAssignment,
    /// The task's image could not be pulled.
    ImagePull,
    /// A sidecar could not be pulled, unpacked or mounted.
    SidecarPrep,
    /// The engine refused to create the container.
    ContainerCreate,
    /// The engine refused to start the container.
    ContainerStart,
    /// The end of the container could not be observed.
    ContainerWait,
    /// The kernel killed the container for its memory.
    ContainerOom,
    /// The task ran too long.
    TaskTimeout,
    /// The run was cancelled.
    TaskCancelled,
    /// The worker stopped.
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
    /// Returns the report of a failed task without output.
    pub fn failed(
        key: &ExecutionKey,
        dialect: Dialect,
        reason: FailureReason,
        message: impl Into<String>,
    ) -> Self {
        Self {
            key: key.clone(),
            dialect,
            result: RunResult::Failed { reason, step: reason, message: message.into(), exit_code: None },
            output: String::new(),
            artifacts: Vec::new(),
            session_link: None,
        }
    }
}
