//! The steps of one task. If a step fails, the task is still reported, and everything that it created is removed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use log::{error, warn};

use super::Job;
use super::cleanup::{Cleanup, choose_volumes};
use super::container::{Checked, ContainerExit, Started, Stopped, TaskContainer};
use super::early::{Early, digest};
use super::ending::ReadingWatch;
use super::engine::{Probe, Retry, TaskEngine};
use super::image::Images;
use super::log_limit::LogLimit;
use super::mounts;
use super::names::ContainerRef;
use super::no_output::{self, NoOutput};
use super::outcome::{self, DISK_FULL, Failure, add_note, loss};
use super::output::Collected;
use super::output::budget::Limits;
use super::output::collect::Reading;
use super::plan::{Plan, PlanError, TaskSettings, plan};
use super::prepare::{Prepared, prepare};
use super::processes::Processes;
use super::report::report;
use super::result_log::log_result;
use super::sidecar::{ATTEMPTS, Sidecars, image_is_gone};
use crate::docker::{Docker, RegistryEnv, Wait};
use crate::job::{AdoptedTask, JobEvent, JobId, Leftover, Removal, Settlement, Work};
use crate::logging::{SettingNames, message, value};
use crate::metrics::Steps;
use crate::policy::PullPolicy;
use crate::protocol::{EncodedReport, ExecutionKey, FailureReason, Report, RunResult};
use crate::sys::cancel::{CancelReason, CancelToken};

/// Settings that apply to every task.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// What the operator gives to every container.
    pub(crate) settings: TaskSettings,
    /// Where the host's paths that are mounted must be; anywhere if empty.
    pub(crate) mount_paths: Vec<PathBuf>,
    /// How errors name the settings.
    pub(crate) setting_names: SettingNames,
    /// Whether engines get the names of images with their registry, because only some images are admitted.
    pub(crate) with_registry: bool,
    /// When images are pulled.
    pub(crate) pull: PullPolicy,
    /// Where the credentials for pulls come from.
    pub(crate) registries: RegistryEnv,
    /// Bytes of output that a report keeps.
    pub(crate) max_output: usize,
    /// Whether containers are removed at the end.
    pub(crate) cleanup: bool,
    /// How long containers of failed tasks are kept; zero: not at all.
    pub(crate) keep_failed: Duration,
    /// How many versions of one sidecar image are kept, the newest included; at least 1.
    pub(crate) keep_sidecar_volumes: usize,
    /// How long an outage of the engine is waited out.
    pub(crate) engine_timeout: Duration,
    /// From TERM to KILL when a task is stopped.
    pub(crate) stop_grace: Duration,
    /// How long a task may run, for messages.
    pub(crate) task_timeout: Duration,
    /// How many lines of a failed task's output are logged.
    pub(crate) log_output_lines: usize,
}

/// Runs tasks on one engine; shared by the threads of the pool.
pub(crate) struct Tasks {
    docker: Docker,
    processes: Arc<Processes>,
    pub(super) options: Options,
    pub(super) images: Images,
    pub(super) sidecars: Sidecars,
    pub(super) steps: Arc<Steps>,
    no_output: NoOutput,
    log_limit: LogLimit,
    events: Sender<(JobId, JobEvent)>,
    /// Cancelled when the worker stops; clean-ups then do not wait for an engine that is unavailable.
    stopping: CancelToken,
    disk_is_full: DiskIsFull,
}

/// Returns whether the engine's disk is known to have no space.
type DiskIsFull = Box<dyn Fn() -> bool + Send + Sync>;

/// Sends its event when dropped, even if the thread panics.
struct AtEnd<'a> {
    tasks: &'a Tasks,
    job: JobId,
    event: Option<JobEvent>,
}

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            self.tasks.emit(self.job, event);
        }
    }
}

impl Tasks {
    /// Runs tasks on `docker`, reports to `events` and measures in `steps`. Once `stopping` is cancelled, clean-ups do not wait for an engine
    /// that is unavailable.
    pub(crate) fn new(
        docker: Docker,
        processes: Arc<Processes>,
        options: Options,
        events: Sender<(JobId, JobEvent)>,
        stopping: CancelToken,
        steps: Arc<Steps>,
    ) -> Self {
        let images = Images::new(options.pull, options.registries.clone(), Arc::clone(&steps));
        let keep = options.keep_sidecar_volumes;
        let sidecars = Sidecars::new(&options.settings, keep, Arc::clone(&steps));
        let no_output = NoOutput::default();
        Self {
            docker,
            processes,
            options,
            images,
            sidecars,
            steps,
            no_output,
            log_limit: LogLimit::default(),
            events,
            stopping,
            disk_is_full: Box::new(|| false),
        }
    }

    /// Sets how to find out whether the engine's disk has no space.
    pub(crate) fn with_disk(self, disk_is_full: DiskIsFull) -> Self {
        Self { disk_is_full, ..self }
    }

    /// Runs one job, waits until its report is received, and cleans up unless that is to be done later. Blocks until then.
    pub(crate) fn execute(&self, job: &Job) {
        // A panic of the clean-up leaves it at this.
        let mut done = AtEnd { tasks: self, job: job.id, event: Some(JobEvent::Done(Removal::Left)) };
        let start = Instant::now();
        let (key, dialect) = (job.work.key(), job.work.dialect());
        let mut cleanup = Cleanup::default();
        // A panic fails only this task, and is cleaned up after like any other failure.
        let run = || {
            let run = |engine: &TaskEngine<'_>| self.run(job, engine, &mut cleanup);
            let report = self.with_engine(job.id, key, &job.cancel, run);
            (report.result.is_failure(), self.end(job, start, report))
        };
        let (failed, report) = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
            error!("task panicked {key}");
            let message = "the worker panicked while running the task";
            let report = Report::failed(key, dialect, FailureReason::Internal, message);
            (true, self.end(job, start, report))
        });
        let left = Arc::new(cleanup.into_leftover(key, failed));
        self.emit(job.id, JobEvent::Finished { report: Arc::new(report), left: Arc::clone(&left) });
        match job.signals.wait_settled() {
            Settlement::Received => {}
            settlement => done.event = Some(JobEvent::Done(self.clean_up(job.id, &left, settlement))),
        }
    }

    /// Removes what a job has left whose report was only received at its end.
    pub(crate) fn remove(&self, job: JobId, left: &Leftover) {
        let mut end = AtEnd { tasks: self, job, event: Some(JobEvent::CleanedUp(Removal::Left)) };
        end.event = Some(JobEvent::CleanedUp(self.clean_up(job, left, Settlement::Delivered)));
    }

    /// Logs the end of a task, and encodes its report.
    fn end(&self, job: &Job, start: Instant, report: Report) -> EncodedReport {
        log_result(job, &report, start.elapsed(), &self.options);
        EncodedReport::new(report, &self.options.settings.worker_id)
    }

    pub(super) fn emit(&self, job: JobId, event: JobEvent) {
        // Fails only when the process is about to end and the main thread has stopped listening.
        let _ = self.events.send((job, event));
    }

    /// Runs `act` with an engine handle for the job.
    pub(super) fn with_engine<T>(
        &self,
        job: JobId,
        key: &ExecutionKey,
        cancel: &CancelToken,
        act: impl FnOnce(&TaskEngine<'_>) -> T,
    ) -> T {
        let address = self.docker.address();
        let ping = |cancel: &CancelToken| self.docker.ping(cancel);
        let lost_runtime = |cancel: &CancelToken| self.docker.has_lost_runtime(cancel);
        let report = |away| self.emit(job, JobEvent::Engine { away });
        let probe = Probe { address: &address, ping: &ping, lost_runtime: &lost_runtime, report: &report };
        let retry = Retry::new(key, self.options.engine_timeout, &self.stopping, probe);
        let helper_left = |left| self.emit(job, JobEvent::HelperLeft { left: Arc::new(left) });
        act(&TaskEngine {
            docker: &self.docker,
            key,
            cancel: cancel.clone(),
            retry: &retry,
            processes: &self.processes,
            helper_left: &helper_left,
        })
    }

    fn run(&self, job: &Job, engine: &TaskEngine<'_>, cleanup: &mut Cleanup) -> Report {
        let assignment = match &job.work {
            Work::Run(assignment) => assignment,
            Work::Adopt(adopted) => return self.adopt(job, adopted, engine, cleanup),
        };
        let mut plan = match plan(assignment, &self.options.settings, self.docker.engine().cpus) {
            Ok(plan) => plan,
            Err(PlanError { step, message }) => {
                let reason = FailureReason::InvalidAssignment;
                let result = RunResult::Failed { reason, step, message, exit_code: None };
                return report(job, result, Collected::default());
            }
        };
        if let Some(reduced) = &plan.limits.reduced {
            warn!("shape reduced {} reason={}", engine.key, message(reduced));
        }
        let Options { settings, mount_paths, setting_names, with_registry, .. } = &self.options;
        if *with_registry {
            plan = plan.with_registries();
        }
        match mounts::resolve(&settings.volumes, mount_paths, setting_names) {
            Ok(volumes) => plan.binds = volumes.iter().map(ToString::to_string).collect(),
            Err(error) => {
                let failure = Failure::new(FailureReason::ContainerCreate, error.to_string());
                return report(job, self.failed(failure, job.cancel.reason(), None), Collected::default());
            }
        }
        let (mut result, collected) =
            self.create_and_start(job, engine, &mut plan, cleanup).unwrap_or_else(|failure| {
                // If only the answer to the start was lost the container may run, but its output is not worth a wait.
                (self.failed(failure, job.cancel.reason(), None), Collected::default())
            });
        plan.limits.reduced.iter().for_each(|reduced| add_note(&mut result, reduced));
        report(job, result, collected)
    }

    /// Waits for a container that an earlier process has started, or ends it if that process was stopping it.
    fn adopt(
        &self,
        job: &Job,
        adopted: &AdoptedTask,
        engine: &TaskEngine<'_>,
        cleanup: &mut Cleanup,
    ) -> Report {
        let AdoptedTask { container: id, created_as, volumes, ran, reduced, ended_for, .. } = adopted;
        let container = ContainerRef { name: created_as.clone(), id: Some(id.clone()) };
        *cleanup = Cleanup { container: Some(container.clone()), started: true, volumes: volumes.clone() };
        if let Some(ran) = *ran {
            self.emit(job.id, JobEvent::Started { ran });
        }
        // What an earlier process found before the start is not known.
        let container = TaskContainer::ended(engine, container);
        let (mut result, collected) = match ended_for {
            Some(reason) => {
                let exit_code = container.end(self.options.stop_grace);
                let collected = self.collect(job, &container, true);
                (self.failed(Failure::Cancelled, Some(*reason), exit_code), collected)
            }
            // Its memory limit is not known either.
            None => self.finish(job, &container, None, container.wait_exit(None)),
        };
        reduced.iter().for_each(|reduced| add_note(&mut result, reduced));
        report(job, result, collected)
    }

    /// Creates the container with everything it needs, starts it once the claim is confirmed, and waits for its end. A container
    /// that somebody removes before its start is created again.
    fn create_and_start(
        &self,
        job: &Job,
        engine: &TaskEngine<'_>,
        plan: &mut Plan,
        cleanup: &mut Cleanup,
    ) -> Result<(RunResult, Collected), Failure> {
        let mut is_released = false;
        for _ in 0..ATTEMPTS {
            let created = self.create(engine, plan, cleanup);
            let step = format!("container {}", plan.name);
            let (container, wait) = created
                .map_err(|failure| failure.in_step(&job.cancel, FailureReason::ContainerCreate, &step))?;
            is_released = is_released || job.signals.wait_release(&job.cancel);
            if !is_released || job.cancel.is_cancelled() {
                return Err(Failure::Cancelled);
            }
            // The engine mounts at the start.
            let Options { settings, mount_paths, setting_names, .. } = &self.options;
            mounts::check_again(&settings.volumes, mount_paths, setting_names, &plan.binds)
                .map_err(|error| Failure::new(FailureReason::ContainerStart, error.to_string()))?;
            let start = Instant::now();
            match container.start(wait, &mut cleanup.started)? {
                Started::Running(wait) => {
                    self.steps.starts.observe(start.elapsed());
                    self.emit(job.id, JobEvent::Started { ran: Duration::ZERO });
                    // It existed when it was looked for the file.
                    container.no_output.iter().for_each(|key| self.no_output.insert(key.clone()));
                    let exit = container.wait_exit(wait);
                    return Ok(self.finish(job, &container, plan.limits.memory, exit));
                }
                Started::Vanished => cleanup.container = None,
            }
        }
        Err(Failure::new(FailureReason::ContainerStart, "another process keeps removing the container"))
    }

    fn create<'a>(
        &self,
        engine: &'a TaskEngine<'a>,
        plan: &mut Plan,
        cleanup: &mut Cleanup,
    ) -> Result<(TaskContainer<'a>, Wait), Failure> {
        let uncreated = TaskContainer::uncreated(engine, &plan.name);
        self.log_limit.apply(plan);
        let mut prepared = match self.create_early(engine, &uncreated, plan, cleanup)? {
            Early::Ready(container, wait) => return Ok((container, wait)),
            Early::Later(prepared) => prepared,
        };
        uncreated.clear(plan)?;
        choose_volumes(engine, plan);
        cleanup.volumes = plan.own_volumes();
        for _ in 0..ATTEMPTS {
            let prepared = match prepared.take() {
                Some(prepared) => prepared,
                None => prepare(&self.images, &self.sidecars, engine, plan)?,
            };
            self.log_limit.learn(engine, &self.options.settings, &prepared.image, plan);
            let container = match uncreated.create(plan, &prepared, cleanup) {
                Err(Failure::Failed { .. }) if image_is_gone(engine, &prepared.image) => continue,
                created => created?,
            };
            match container.check(plan, &prepared, self.looks_for_output(plan, &prepared))? {
                Some(checked) if self.are_complete(engine.key, &prepared, &checked) => {
                    let is_same = digest(&checked.image) == digest(&prepared.image);
                    return Ok(checked.ready(container, no_output::key(plan, &prepared).filter(|_| is_same)));
                }
                Some(_) => uncreated.clear(plan)?,
                None => cleanup.container = None,
            }
        }
        let message = "another process keeps removing the image, the container or the sidecar volume";
        Err(Failure::new(FailureReason::SidecarPrep, message))
    }

    /// Returns whether to look for an output file before the start.
    pub(super) fn looks_for_output(&self, plan: &Plan, prepared: &Prepared<'_>) -> bool {
        no_output::key(plan, prepared).is_none_or(|key| !self.no_output.contains(&key))
    }

    /// Returns whether all volumes of a created container are complete. Forgets those that are not.
    pub(super) fn are_complete(
        &self,
        key: &ExecutionKey,
        prepared: &Prepared<'_>,
        checked: &Checked,
    ) -> bool {
        let mut all = true;
        for (populated, complete) in prepared.volumes.iter().zip(&checked.complete) {
            let volume = &populated.volume;
            if !complete {
                warn!("sidecar volume vanished {} volume={}", key, value(volume));
                self.sidecars.forget(volume);
                all = false;
            }
        }
        all
    }

    /// Stops a cancelled task, and collects the output of any that has exited.
    fn finish(
        &self,
        job: &Job,
        container: &TaskContainer<'_>,
        memory_limit: Option<i64>,
        exit: Result<ContainerExit, Failure>,
    ) -> (RunResult, Collected) {
        match exit {
            Ok(exit) => {
                self.emit(job.id, JobEvent::Exited);
                self.completed(job, container, memory_limit, exit)
            }
            Err(Failure::Cancelled) => {
                let reason = job.cancel.reason();
                match container.stop(reason, self.options.stop_grace) {
                    Stopped::Already(exit) => self.completed(job, container, memory_limit, exit),
                    Stopped::Now(exit_code) => {
                        let collected = self.collect(job, container, true);
                        (self.failed(Failure::Cancelled, reason, exit_code), collected)
                    }
                }
            }
            Err(failure) => (self.failed(failure, job.cancel.reason(), None), Collected::default()),
        }
    }

    /// Returns the result of a task that did not exit by itself.
    fn failed(
        &self,
        failure: Failure,
        cancelled_for: Option<CancelReason>,
        exit_code: Option<u8>,
    ) -> RunResult {
        failure.into_result(cancelled_for, self.options.task_timeout, exit_code)
    }

    /// A task that has exited by itself is reported as completed, even if it is cancelled or the worker stops meanwhile.
    fn completed(
        &self,
        job: &Job,
        container: &TaskContainer<'_>,
        memory_limit: Option<i64>,
        exit: ContainerExit,
    ) -> (RunResult, Collected) {
        let collected = self.collect(job, container, false);
        let ContainerExit { code: exit_code, out_of_memory, unseen } = exit;
        let note = if unseen && !out_of_memory { loss(exit_code).map(str::to_owned) } else { None };
        if let Some(note) = &note {
            let (key, container) = (container.engine.key, &container.container);
            warn!("task may be lost {key} {container} exit_code={exit_code} reason={}", message(note));
        }
        let killed = out_of_memory.then(|| outcome::out_of_memory(memory_limit, exit_code));
        (RunResult::Completed { exit_code, out_of_memory, note: note.or(killed.flatten()) }, collected)
    }

    /// Reads the output. `was_ended` is set if an earlier process has ended the task.
    fn collect(&self, job: &Job, container: &TaskContainer<'_>, was_ended: bool) -> Collected {
        let limits = Limits::default();
        let watch = ReadingWatch::new(job, limits, was_ended);
        let disk_was_full = (self.disk_is_full)();
        if disk_was_full {
            let (key, container) = (container.engine.key, &container.container);
            warn!("output may be lost {key} {container} reason={}", message(DISK_FULL));
        }
        let reading = Reading {
            engine: container.engine,
            container: &container.container,
            cap: self.options.max_output,
            limits,
            was_ended: watch.was_ended(),
            before: container.output_before.as_ref(),
            cancel: watch.token(),
        };
        Collected { disk_was_full, ..reading.collect() }
    }
}
