//! The steps of one task, and the guarantee that whatever happens at one of them, a report is made and nothing is left.
//!
//! Owns the order, and what there is to remove at each step. It must not know how a step is done.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;
use log::{error, info, warn};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::collect::collect;
use super::container::{Exit, TaskContainer};
use super::image::Images;
use super::marker;
use super::outcome::Failure;
use super::output::Collected;
use super::patience::{Patience, Watched, never};
use super::plan::{Plan, TaskSettings, plan};
use super::prepare::{Prepared, prepare};
use super::sidecar::Sidecars;
use super::{Job, JobEvent};
use crate::cancel::{CancelReason, CancelToken};
use crate::config::PullPolicy;
use crate::coordinator::{JobId, Work};
use crate::docker::{Docker, Error, RegistryEnv};
use crate::error_chain;
use crate::logging::value;
use crate::protocol::{FailureReason, PullRequest, Report, RunResult};

/// How often a volume that vanishes between its filling and the start of the container is made again.
const VOLUME_ATTEMPTS: usize = 3;

/// How often the removal of a container is tried on an engine that is there.
const REMOVE_ATTEMPTS: u32 = 6;

/// What holds for every task.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the operator gives to every container.
    pub settings: TaskSettings,
    /// When images are pulled.
    pub pull: PullPolicy,
    /// Where the credentials for pulls come from.
    pub registries: RegistryEnv,
    /// Bytes of output that a report keeps.
    pub max_output: usize,
    /// Whether containers are removed at the end.
    pub cleanup: bool,
    /// Versions of one sidecar image that are kept, the newest included; at least 1.
    pub keep_sidecar_volumes: usize,
    /// How long an engine that has gone away is waited for.
    pub engine_timeout: Duration,
}

/// Runs tasks on one engine; shared by the threads of the pool.
pub struct Tasks {
    docker: Docker,
    options: Options,
    images: Images,
    sidecars: Sidecars,
    events: Sender<JobEvent>,
}

/// What is to be removed from the engine at the end of a task.
#[derive(Default)]
struct Leftovers {
    container: Option<String>,
    volumes: Vec<String>,
}

/// Tells that a job is done even when its thread panics.
struct Done<'a>(&'a Sender<JobEvent>, JobId);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        // Nobody listens any more when the process ends at once.
        let _ = self.0.send(JobEvent::Done { job: self.1 });
    }
}

impl Tasks {
    /// Tasks on this engine that tell what happens through `events`.
    pub fn new(docker: Docker, options: Options, events: Sender<JobEvent>) -> Self {
        let images = Images::new(docker.clone(), options.pull, options.registries.clone());
        let sidecars =
            Sidecars::new(docker.clone(), options.settings.worker_id.clone(), options.keep_sidecar_volumes);
        Self { docker, options, images, sidecars, events }
    }

    /// Runs one job to its last trace; blocks as long as that takes.
    pub fn execute(&self, job: &Job) {
        let _done = Done(&self.events, job.id);
        let (start, task_id) = (Instant::now(), job.work.task_id());
        let mut left = Leftovers::default();
        // A defect costs this one task; what it has made so far is removed like everything else.
        let run = || self.patiently(job, |patience| self.run(job, &mut left, patience));
        let run = catch_unwind(AssertUnwindSafe(run));
        let report = run.unwrap_or_else(|_| {
            error!("task panicked task={}", value(task_id));
            Report::failed(task_id, FailureReason::Internal, "the worker failed while it ran the task")
        });
        info!(
            "task ended task={} {} took_ms={}",
            value(task_id),
            summary(&report),
            start.elapsed().as_millis()
        );
        let _ = self.events.send(JobEvent::Finished { job: job.id, report: Arc::new(report) });
        job.gate.wait_settled();
        // The wait for the engine begins anew: what has made the task fail must not keep its container.
        self.patiently(job, |patience| self.clean_up(&left, job, patience));
    }

    /// Does something for a job with patience for the engine.
    fn patiently<T>(&self, job: &Job, act: impl FnOnce(&Patience<'_>) -> T) -> T {
        let ping = |cancel: &CancelToken| self.docker.ping(cancel);
        // Nobody listens any more when the process ends at once.
        let tell = |away| drop(self.events.send(JobEvent::Engine { job: job.id, away }));
        let address = self.docker.address();
        let engine = Watched { address: &address, ping: &ping, tell: &tell };
        act(&Patience::new(job.work.task_id(), self.options.engine_timeout, &job.cancel, engine))
    }

    fn run(&self, job: &Job, left: &mut Leftovers, patience: &Patience<'_>) -> Report {
        let Work::Run(assignment) = &job.work else {
            return Report::failed(job.work.task_id(), FailureReason::Internal, "");
        };
        let plan = match plan(assignment, &self.options.settings, self.docker.engine().cpus) {
            Ok(plan) => plan,
            Err(wrong) => {
                return Report::failed(&assignment.task_id, FailureReason::InvalidAssignment, wrong);
            }
        };
        let container =
            TaskContainer { docker: &self.docker, task_id: &assignment.task_id, name: &plan.name, patience };
        let (result, collected) = match self.up_to_start(job, &plan, &container, left) {
            Ok(()) => self.to_the_end(job, &container),
            Err(failure) => (failure.into_result(&job.cancel, None), Collected::default()),
        };
        report(&assignment.task_id, result, collected)
    }

    /// Everything that can be done before the claim is confirmed.
    fn up_to_start(
        &self,
        job: &Job,
        plan: &Plan,
        container: &TaskContainer<'_>,
        left: &mut Leftovers,
    ) -> Result<(), Failure> {
        container.clear(&job.cancel, plan)?;
        let own = plan.sidecars.iter().enumerate().filter(|(_, sidecar)| sidecar.read_write);
        left.volumes = own.map(|(index, _)| plan.own_volume(index)).collect();
        // One that an earlier process has left may have been written to by its task.
        left.volumes.iter().for_each(|volume| self.remove_volume(volume, container.patience));
        for _ in 0..VOLUME_ATTEMPTS {
            let prepared = prepare(&self.images, &self.sidecars, &job.cancel, plan, container.patience)?;
            container.create(&job.cancel, plan, &prepared, &mut left.container)?;
            if self.volumes_are_complete(job, plan, &prepared, container.patience)? {
                return if job.gate.wait_release(&job.cancel) { Ok(()) } else { Err(Failure::Cancelled) };
            }
            container.clear(&job.cancel, plan)?;
        }
        Err(Failure::new(
            FailureReason::SidecarPrep,
            "the sidecar's volume is removed by somebody again and again",
        ))
    }

    /// Looks for the markers through the task container itself, which from now on holds its volumes.
    fn volumes_are_complete(
        &self,
        job: &Job,
        plan: &Plan,
        prepared: &Prepared<'_>,
        patience: &Patience<'_>,
    ) -> Result<bool, Failure> {
        let mut complete = true;
        for (sidecar, filled) in plan.sidecars.iter().zip(&prepared.volumes) {
            let look = || marker::present(&self.docker, &job.cancel, &plan.name, &sidecar.mount_path);
            let present = patience.ask(&job.cancel, never, look);
            let present = present.map_err(|error| {
                Failure::engine(FailureReason::SidecarPrep, &format!("volume {}", filled.volume), &error)
            })?;
            if !present {
                warn!("sidecar volume vanished task={} volume={}", value(job.work.task_id()), filled.volume);
                self.sidecars.forget(&filled.volume);
                complete = false;
            }
        }
        Ok(complete)
    }

    fn to_the_end(&self, job: &Job, container: &TaskContainer<'_>) -> (RunResult, Collected) {
        let observed = match container.start(&job.cancel) {
            Ok(wait) => container.observe(&job.cancel, wait),
            // It may be running when only the answer was lost; what it says then is not asked for.
            Err(failure) => return (failure.into_result(&job.cancel, None), Collected::default()),
        };
        match observed {
            Ok(exit) => self.exited(job, container, exit),
            Err(Failure::Cancelled) => match container.stop() {
                Ok(exit) => self.exited(job, container, exit),
                Err(code) => {
                    let collected = self.collect(&CancelToken::new(), container);
                    (Failure::Cancelled.into_result(&job.cancel, code), collected)
                }
            },
            Err(failure) => (failure.into_result(&job.cancel, None), Collected::default()),
        }
    }

    /// A task that has ended by itself is reported as what it was, even when the worker is stopping meanwhile; only a cancel
    /// of the run cuts the reading of its output short.
    fn exited(&self, job: &Job, container: &TaskContainer<'_>, exit: Exit) -> (RunResult, Collected) {
        let token = CancelToken::new();
        let (parent, reading) = (job.cancel.clone(), token.clone());
        let watch = job.cancel.watch(move || {
            if parent.reason() == Some(CancelReason::Requested) {
                reading.cancel(CancelReason::Requested);
            }
        });
        let collected = self.collect(&token, container);
        drop(watch);
        let result = RunResult::Completed { exit_code: exit.code, out_of_memory: exit.out_of_memory };
        (result, collected)
    }

    fn collect(&self, cancel: &CancelToken, container: &TaskContainer<'_>) -> Collected {
        collect(&self.docker, cancel, container.name, container.patience, self.options.max_output)
    }

    /// Under tokens of its own: nothing may keep a container from being removed.
    fn clean_up(&self, left: &Leftovers, job: &Job, patience: &Patience<'_>) {
        let task_id = job.work.task_id();
        let Some(container) = &left.container else {
            return left.volumes.iter().for_each(|volume| self.remove_volume(volume, patience));
        };
        if !self.options.cleanup {
            info!("container kept task={} container={container}", value(task_id));
            return;
        }
        match self.remove(container, patience) {
            Ok(()) => info!("container removed task={} container={container}", value(task_id)),
            Err(error) => {
                let error = error_chain(&error);
                error!(
                    "container left task={} container={container} error={}",
                    value(task_id),
                    value(&error)
                );
            }
        }
        left.volumes.iter().for_each(|volume| self.remove_volume(volume, patience));
    }

    /// Tries a few times. An engine that is being restarted comes back; a worker that is stopping does not wait for that.
    fn remove(&self, container: &str, patience: &Patience<'_>) -> Result<(), Error> {
        let mut left = REMOVE_ATTEMPTS;
        let again = |error: &Error| {
            left -= 1;
            let (task, error) = (value(patience.task_id), error_chain(error));
            warn!("removal failed task={task} container={container} error={}", value(&error));
            left > 0
        };
        patience.at_the_end(again, || self.docker.container_remove(&CancelToken::new(), container))
    }

    fn remove_volume(&self, volume: &str, patience: &Patience<'_>) {
        let remove = || self.docker.volume_remove(&CancelToken::new(), volume);
        if let Err(error) = patience.at_the_end(never, remove) {
            let (task, error) = (value(patience.task_id), error_chain(&error));
            warn!("volume left task={task} volume={volume} error={}", value(&error));
        }
    }
}

fn report(task_id: &str, result: RunResult, collected: Collected) -> Report {
    let now = OffsetDateTime::from(SystemTime::now()).replace_nanosecond(0).map(|now| now.format(&Rfc3339));
    let created_at = now.ok().and_then(Result::ok).unwrap_or_default();
    let artifact = |url| PullRequest { url, created_at: created_at.clone() };
    Report {
        task_id: task_id.to_owned(),
        result,
        output: collected.output,
        artifacts: collected.artifacts.into_iter().map(artifact).collect(),
        session_link: collected.session_link,
    }
}

/// The result for a log line.
fn summary(report: &Report) -> String {
    let output = report.output.len();
    match &report.result {
        RunResult::Completed { exit_code, out_of_memory } => {
            format!(
                "result=completed exit_code={exit_code} out_of_memory={out_of_memory} output_bytes={output}"
            )
        }
        RunResult::Failed { reason, message, .. } => {
            format!(
                "result=failed reason={} message={} output_bytes={output}",
                reason.name(),
                crate::logging::message(message)
            )
        }
    }
}
