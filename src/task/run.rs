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

use super::Job;
use super::container::{ContainerExit, TaskContainer};
use super::image::Images;
use super::outcome::Failure;
use super::output::Collected;
use super::output::collect::collect;
use super::plan::{Plan, TaskSettings, container_name, plan};
use super::prepare::{Prepared, prepare};
use super::retry::{Retry, Watched, never};
use super::sidecar::Sidecars;
use super::sidecar::marker;
use crate::docker::{Docker, RegistryEnv};
use crate::job::{AdoptedTask, JobEvent, JobId, Work};
use crate::logging::value;
use crate::policy::PullPolicy;
use crate::protocol::{EncodedReport, FailureReason, PullRequest, Report, RunResult};
use crate::sys::cancel::{CancelReason, CancelToken};

/// How often a volume that vanishes between its filling and the start of the container is made again.
const VOLUME_ATTEMPTS: usize = 3;

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
    pub(super) docker: Docker,
    pub(super) options: Options,
    images: Images,
    sidecars: Sidecars,
    events: Sender<(JobId, JobEvent)>,
    /// Cancelled when the worker stops: nothing is waited for any more that need not be.
    stopping: CancelToken,
}

/// What is to be removed from the engine at the end of a task.
#[derive(Default)]
pub(super) struct Cleanup {
    /// Its id, or its name when it is not known whether it is there.
    pub(super) container: Option<String>,
    /// The container has been started, or may have been.
    pub(super) started: bool,
    pub(super) volumes: Vec<String>,
}

/// Tells that a job is done even when its thread panics.
struct Done<'a>(&'a Tasks, JobId);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.emit(self.1, JobEvent::Done);
    }
}

impl Tasks {
    /// Tasks on this engine that tell what happens through `events`. Once `stopping` is cancelled, clean-ups do not wait for an
    /// engine that is away.
    pub fn new(
        docker: Docker,
        options: Options,
        events: Sender<(JobId, JobEvent)>,
        stopping: CancelToken,
    ) -> Self {
        let images = Images::new(docker.clone(), options.pull, options.registries.clone());
        let sidecars = Sidecars::new(docker.clone(), &options.settings, options.keep_sidecar_volumes);
        Self { docker, options, images, sidecars, events, stopping }
    }

    fn emit(&self, job: JobId, event: JobEvent) {
        // It fails only when the process ends at once.
        let _ = self.events.send((job, event));
    }

    /// Runs one job to its last trace; blocks as long as that takes.
    pub fn execute(&self, job: &Job) {
        let _done = Done(self, job.id);
        let (start, task_id) = (Instant::now(), job.work.task_id());
        let mut left = Cleanup::default();
        // A defect costs this one task; what it has made so far is removed like everything else.
        let run = || self.with_retry(job, |retry| self.run(job, &mut left, retry));
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
        let report = EncodedReport::new(report, &self.options.settings.worker_id);
        self.emit(job.id, JobEvent::Finished { report: Arc::new(report) });
        let settlement = job.signals.wait_settled();
        // The wait for the engine begins anew: what has made the task fail must not keep its container.
        self.with_retry(job, |retry| self.clean_up(&left, job, settlement, retry));
    }

    /// Does something for a job with retry for the engine.
    fn with_retry<T>(&self, job: &Job, act: impl FnOnce(&Retry<'_>) -> T) -> T {
        let ping = |cancel: &CancelToken| self.docker.ping(cancel);
        let tell = |away| self.emit(job.id, JobEvent::Engine { away });
        let address = self.docker.address();
        let engine = Watched { address: &address, ping: &ping, tell: &tell };
        act(&Retry::new(job.work.task_id(), self.options.engine_timeout, &self.stopping, engine))
    }

    fn run(&self, job: &Job, left: &mut Cleanup, retry: &Retry<'_>) -> Report {
        let assignment = match &job.work {
            Work::Run(assignment) => assignment,
            Work::Adopt(adopted) => return self.adopt(job, adopted, left, retry),
        };
        let mut plan = match plan(assignment, &self.options.settings, self.docker.engine().cpus) {
            Ok(plan) => plan,
            Err(wrong) => {
                return Report::failed(&assignment.task_id, FailureReason::InvalidAssignment, wrong);
            }
        };
        let (result, collected) = match self.up_to_start(job, &mut plan, left, retry) {
            Ok(()) => self.to_the_end(job, &plan.name, left, retry),
            Err(failure) => (failure.into_result(&job.cancel, None), Collected::default()),
        };
        report(&assignment.task_id, result, collected)
    }

    /// A container that an earlier process has started: waited for, or ended when that process was about to.
    fn adopt(&self, job: &Job, adopted: &AdoptedTask, left: &mut Cleanup, retry: &Retry<'_>) -> Report {
        let AdoptedTask { task_id, container: id, volumes, ran, ended_for } = adopted;
        *left = Cleanup { container: Some(id.clone()), started: true, volumes: volumes.clone() };
        if let Some(ran) = *ran {
            self.emit(job.id, JobEvent::Started { ran });
        }
        let name = container_name(&self.options.settings.worker_id, task_id);
        let container = self.container(task_id, &name, id, retry);
        let (result, collected) = match ended_for {
            Some(reason) => {
                let (was, code) = (CancelToken::new(), container.end());
                was.cancel(*reason);
                (Failure::Cancelled.into_result(&was, code), self.collect(&CancelToken::new(), &container))
            }
            None => self.ended(job, &container, container.observe(&job.cancel, None)),
        };
        report(task_id, result, collected)
    }

    /// Everything that can be done before the claim is confirmed.
    fn up_to_start(
        &self,
        job: &Job,
        plan: &mut Plan,
        left: &mut Cleanup,
        retry: &Retry<'_>,
    ) -> Result<(), Failure> {
        let name = plan.name.clone();
        let container = self.container(job.work.task_id(), &name, &name, retry);
        container.clear(&job.cancel, plan)?;
        self.choose_volumes(plan, retry);
        left.volumes = plan.own_volumes();
        for _ in 0..VOLUME_ATTEMPTS {
            let prepared = prepare(&self.images, &self.sidecars, &job.cancel, plan, retry)?;
            container.create(&job.cancel, plan, &prepared, &mut left.container)?;
            if self.volumes_are_complete(job, plan, &prepared, retry)? {
                return if job.signals.wait_release(&job.cancel) { Ok(()) } else { Err(Failure::Cancelled) };
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
        retry: &Retry<'_>,
    ) -> Result<bool, Failure> {
        let mut complete = true;
        for (sidecar, filled) in plan.sidecars.iter().zip(&prepared.volumes) {
            let look = || marker::present(&self.docker, &job.cancel, &plan.name, &sidecar.mount_path);
            let present = retry.call(&job.cancel, never, look);
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

    fn to_the_end(
        &self,
        job: &Job,
        name: &str,
        left: &mut Cleanup,
        retry: &Retry<'_>,
    ) -> (RunResult, Collected) {
        let id = left.container.as_deref().unwrap_or(name);
        let container = self.container(job.work.task_id(), name, id, retry);
        match container.start(&job.cancel, &mut left.started) {
            Ok(wait) => {
                self.emit(job.id, JobEvent::Started { ran: Duration::ZERO });
                self.ended(job, &container, container.observe(&job.cancel, wait))
            }
            // It may be running when only the answer was lost; what it says then is not asked for.
            Err(failure) => (failure.into_result(&job.cancel, None), Collected::default()),
        }
    }

    fn ended(
        &self,
        job: &Job,
        container: &TaskContainer<'_>,
        observed: Result<ContainerExit, Failure>,
    ) -> (RunResult, Collected) {
        match observed {
            Ok(exit) => self.exited(job, container, exit),
            Err(Failure::Cancelled) => match container.stop(job.cancel.reason()) {
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
    fn exited(
        &self,
        job: &Job,
        container: &TaskContainer<'_>,
        exit: ContainerExit,
    ) -> (RunResult, Collected) {
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
        collect(&self.docker, cancel, container.id, container.retry, self.options.max_output)
    }

    pub(super) fn container<'a>(
        &'a self,
        task_id: &'a str,
        name: &'a str,
        id: &'a str,
        retry: &'a Retry<'a>,
    ) -> TaskContainer<'a> {
        TaskContainer { docker: &self.docker, task_id, name, id, retry }
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
