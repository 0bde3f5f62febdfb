//! Turns an assignment and the settings into the plan of a container: name, labels, environment, arguments, mounts and limits.
//!
//! Pure: the same assignment always gives the same plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::arguments::{arguments, check_total, environment};
use super::labels::{
    self, DIALECT_LABEL, EXECUTION_LABEL, IMAGE_LABEL, PROCESS_LABEL, REDUCED_LABEL, TASK_LABEL, WORKER_LABEL,
};
use super::limits::{self, Limits, limits};
use super::names;
use crate::docker::Reference;
use crate::policy::{ContainerOptions, VolumeBind, is_below, is_of_engine};
use crate::protocol::{Assignment, Dialect, ExecutionKey, FailureReason};
use crate::secret::Secret;

/// Where the sidecar of every assignment is mounted.
pub(crate) const AGENT_DIR: &str = "/agent";

/// The working directory of a task container.
pub(crate) const WORKSPACE: &str = "/workspace";

/// The most additional sidecars of one assignment. Each needs a thread while it is prepared.
const MAX_SIDECARS: usize = 32;

/// The most bytes of one name in a path.
const MAX_NAME: usize = 255;

/// The most bytes of a path: 4 KiB with a final NUL.
const MAX_PATH: usize = 4095;

/// The operator's settings for all tasks.
#[derive(Debug, Clone)]
pub(crate) struct TaskSettings {
    /// Part of labels and names.
    pub(crate) worker_id: String,
    /// Part of labels; different each time the worker starts.
    pub(crate) process_id: String,
    /// Whether other processes may have this worker's id.
    pub(crate) shared_id: bool,
    /// Passed to the agent.
    pub(crate) server_root_url: String,
    /// Mounted into every task container.
    pub(crate) volumes: Vec<VolumeBind>,
    /// Limits, network and rights of every task container.
    pub(crate) container: Arc<ContainerOptions>,
    /// Set in every task container.
    pub(crate) env: Vec<(String, Secret)>,
    /// The image for tasks whose assignment names none.
    pub(crate) default_image: Reference,
    /// Mounted at [`AGENT_DIR`] in place of the image that an assignment names there.
    pub(crate) sidecar_image: Option<Reference>,
    /// Passed to the agent if the dialect has it: how long it stays after its conversation has ended.
    pub(crate) idle_on_complete: Option<String>,
    /// Passed to the agent.
    pub(crate) session_sharing_server_url: Option<String>,
}

#[cfg(test)]
impl TaskSettings {
    /// Returns settings of an operator who sets nothing.
    pub(super) fn plain() -> Self {
        Self {
            worker_id: "w".into(),
            process_id: "p".into(),
            shared_id: false,
            server_root_url: "https://oz.example".into(),
            volumes: vec![],
            container: Arc::default(),
            env: vec![],
            default_image: Reference::parse("default:1").unwrap(),
            sidecar_image: None,
            idle_on_complete: None,
            session_sharing_server_url: None,
        }
    }
}

/// What to run for one assignment.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What is executed.
    pub(crate) key: ExecutionKey,
    /// What the control plane expects for it.
    pub(crate) dialect: Dialect,
    /// The container's name.
    pub(crate) name: String,
    /// Image of the task container.
    pub(crate) image: Reference,
    /// The images to mount. The agent is in the one at [`AGENT_DIR`], or else in the image of the container.
    pub(crate) sidecars: Vec<SidecarMount>,
    /// The agent's arguments, after its entrypoint.
    pub(crate) args: Vec<Secret>,
    /// Each is `KEY=VALUE`.
    pub(crate) env: Vec<Secret>,
    /// Labels of the container and of the task's own volumes.
    pub(crate) labels: BTreeMap<String, String>,
    /// The operator's volumes in the form of the engine's `Binds`.
    pub(crate) binds: Vec<String>,
    /// What the operator sets for every container.
    pub(crate) container: Arc<ContainerOptions>,
    /// The container's limits.
    pub(crate) limits: Limits,
    /// Number in the names of the task's own volumes; above 0 if an earlier execution is kept with its volumes.
    pub(crate) generation: u32,
}

/// One image to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SidecarMount {
    /// The image.
    pub(crate) image: Reference,
    /// An absolute path in the task container.
    pub(crate) mount_path: String,
    /// Whether the task may write to it; it then gets its own volume.
    pub(crate) read_write: bool,
}

impl Plan {
    /// Returns the same plan, with the names of images as [`Reference::with_registry`] has them.
    pub(super) fn with_registries(mut self) -> Self {
        self.image = self.image.with_registry();
        for sidecar in &mut self.sidecars {
            sidecar.image = sidecar.image.with_registry();
        }
        self
    }

    /// Returns the name of the task's own volume for the sidecar with this index.
    pub(crate) fn own_volume(&self, index: usize) -> String {
        match self.generation {
            0 => format!("{}-{index}", self.name),
            generation => format!("{}-{index}.{generation}", self.name),
        }
    }

    /// Returns the names of all of the task's own volumes: one for each sidecar that it may write to.
    pub(crate) fn own_volumes(&self) -> Vec<String> {
        let own = self.sidecars.iter().enumerate().filter(|(_, sidecar)| sidecar.read_write);
        own.map(|(index, _)| self.own_volume(index)).collect()
    }

    /// Returns the labels of a sidecar's volume. Only the task's own volumes have the labels of the task.
    pub(crate) fn volume_labels(&self, sidecar: &SidecarMount) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        if !sidecar.read_write {
            labels.retain(|name, _| name == WORKER_LABEL);
        }
        labels.insert(IMAGE_LABEL.to_owned(), sidecar.image.to_string());
        labels
    }
}

/// An assignment that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlanError {
    /// The reason that stands for the step that would fail.
    pub(crate) step: FailureReason,
    /// The field that is invalid, and why; holds no secrets.
    pub(crate) message: String,
}

impl PlanError {
    fn new(step: FailureReason, message: String) -> Self {
        Self { step, message }
    }
}

/// Of arguments and variables.
impl From<String> for PlanError {
    fn from(message: String) -> Self {
        Self::new(FailureReason::ContainerCreate, message)
    }
}

/// Returns the plan for an assignment. `cpus` is the number of the engine's processors, which bounds the limit.
///
/// # Errors
/// The assignment is invalid.
pub(crate) fn plan(assignment: &Assignment, settings: &TaskSettings, cpus: u32) -> Result<Plan, PlanError> {
    let key = &assignment.key;
    let process = settings.shared_id.then_some(settings.process_id.as_str());
    let (args, env) = (arguments(assignment, settings)?, environment(assignment, settings)?);
    check_total(&args, &env)?;
    limits::check(assignment.shape)?;
    let limits = limits(assignment.shape, &settings.container, cpus);
    Ok(Plan {
        key: key.clone(),
        dialect: assignment.dialect,
        name: names::task(&settings.worker_id, key, process),
        image: match &assignment.docker_image {
            Some(name) => image("data.docker_image", name, FailureReason::ImagePull)?,
            None => settings.default_image.clone(),
        },
        sidecars: sidecars(assignment, settings)?,
        args,
        env,
        labels: labels(assignment, settings, limits.reduced.as_deref()),
        binds: settings.volumes.iter().map(ToString::to_string).collect(),
        container: Arc::clone(&settings.container),
        limits,
        generation: 0,
    })
}

fn image(field: &str, name: &str, step: FailureReason) -> Result<Reference, PlanError> {
    Reference::parse(name).map_err(|error| PlanError::new(step, format!("{field}: {error}")))
}

fn labels(
    assignment: &Assignment,
    settings: &TaskSettings,
    reduced: Option<&str>,
) -> BTreeMap<String, String> {
    let Assignment { key, dialect, .. } = assignment;
    labels::of_container(&[
        (WORKER_LABEL, &settings.worker_id),
        (PROCESS_LABEL, &settings.process_id),
        (TASK_LABEL, &key.task_id),
        (EXECUTION_LABEL, key.execution_id.as_deref().unwrap_or_default()),
        (DIALECT_LABEL, dialect.name()),
        (REDUCED_LABEL, reduced.unwrap_or_default()),
    ])
}

fn sidecars(assignment: &Assignment, settings: &TaskSettings) -> Result<Vec<SidecarMount>, PlanError> {
    const STEP: FailureReason = FailureReason::SidecarPrep;
    let create = |message| PlanError::new(FailureReason::ContainerCreate, message);
    if assignment.additional_sidecars.len() > MAX_SIDECARS {
        let count = assignment.additional_sidecars.len();
        let message = format!("data.additional_sidecars: {count} are too many, the limit is {MAX_SIDECARS}");
        return Err(PlanError::new(STEP, message));
    }
    let mut taken: BTreeSet<String> = settings
        .volumes
        .iter()
        .map(|volume| &volume.container)
        .chain(settings.container.tmpfs.keys())
        .cloned()
        .collect();
    let mut mounts = Vec::new();
    if let Some(name) = &assignment.sidecar_image {
        let image = match &settings.sidecar_image {
            Some(own) => own.clone(),
            None => image("data.sidecar_image", name, STEP)?,
        };
        mounts.push(SidecarMount { image, mount_path: AGENT_DIR.to_owned(), read_write: false });
        taken.insert(AGENT_DIR.to_owned());
    }
    for (index, sidecar) in assignment.additional_sidecars.iter().enumerate() {
        let field = format!("data.additional_sidecars[{index}]");
        let mount_path = mount_path(&sidecar.mount_path)
            .map_err(|error| create(format!("{field}.mount_path: {error}")))?;
        if is_of_engine(&mount_path) {
            return Err(create(format!(
                "{field}.mount_path: {mount_path:?} is of the engine, must not be at or below /proc, /dev or /sys, or one of \
                 its files in /etc"
            )));
        }
        if !taken.insert(mount_path.clone()) {
            // Only paths that are equal as text are noticed before the container is created.
            let is_repeated = assignment.additional_sidecars.iter().take(index);
            let is_repeated =
                is_repeated.map(|other| &other.mount_path).any(|path| *path == sidecar.mount_path);
            let step = if is_repeated { STEP } else { FailureReason::ContainerCreate };
            let message = format!("{field}.mount_path: {mount_path:?} is already used by another mount");
            return Err(PlanError::new(step, message));
        }
        let image = image(&format!("{field}.image"), &sidecar.image, STEP)?;
        mounts.push(SidecarMount { image, mount_path, read_write: sidecar.read_write });
    }
    match nested(&mounts, mounts.len() - assignment.additional_sidecars.len(), settings) {
        Some(message) => Err(create(message)),
        None => Ok(mounts),
    }
}

/// Returns what to say of a sidecar that is mounted in something read-only, where the engine cannot make its folder. The engine
/// mounts outer paths first, in whatever order they are given. The first `agents` mounts are the agent's.
fn nested(mounts: &[SidecarMount], agents: usize, settings: &TaskSettings) -> Option<String> {
    let field = |place: usize| match place.checked_sub(agents) {
        Some(index) => format!("data.additional_sidecars[{index}].mount_path"),
        None => "data.sidecar_image".to_owned(),
    };
    let is_read_only = |volume: &&VolumeBind| volume.mode.split(',').any(|option| option == "ro");
    let volumes = settings.volumes.iter().filter(is_read_only);
    let volumes = volumes.map(|volume| ("--volumes".to_owned(), volume.container.trim_end_matches('/')));
    let sidecars = mounts.iter().enumerate().filter(|(_, mount)| !mount.read_write);
    let sidecars = sidecars.map(|(place, mount)| (field(place), mount.mount_path.as_str()));
    let read_only: Vec<_> = sidecars.chain(volumes).collect();
    mounts.iter().enumerate().skip(agents).find_map(|(place, mount)| {
        let inner = &mount.mount_path;
        let (by, outer) = read_only.iter().find(|(_, outer)| is_below(inner, outer))?;
        Some(format!("{}: {inner:?} is below {outer:?} of {by}, which is read-only", field(place)))
    })
}

/// Returns the path without trailing slashes, so that equal paths compare equal.
fn mount_path(path: &str) -> Result<String, String> {
    let trimmed = path.trim_end_matches('/');
    let mut parts = trimmed.split('/');
    let absolute = parts.next() == Some("") && !trimmed.is_empty();
    let plain = parts.all(|part| !matches!(part, "" | "." | "..")) && !path.chars().any(char::is_control);
    if absolute && plain {
        return check_path(trimmed).map(|()| trimmed.to_owned());
    }
    Err(format!("{path:?} must be an absolute path other than /, without `.`, `..` or empty parts"))
}

fn check_path(path: &str) -> Result<(), String> {
    if let Some(name) = path.split('/').find(|name| name.len() > MAX_NAME) {
        let length = name.len();
        return Err(format!("a name of {length} bytes is too long, the limit of Linux is {MAX_NAME}"));
    }
    if path.len() > MAX_PATH {
        let length = path.len();
        return Err(format!("a path of {length} bytes is too long, the limit of Linux is {MAX_PATH}"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod recorded;
#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
