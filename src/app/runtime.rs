//! The main thread: waits in one `select!`, hands every event to the coordinator and performs what it decides.
//!
//! Owns the channels, the threads' handles and the order in which they end. It decides nothing and does no I/O: it
//! must never block but in its `select!`.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, at, bounded, never, select};
use log::{Level, debug, error, log, warn};

use crate::app::disk::DiskWatch;
use crate::app::service_manager::Notifier;
use crate::cli::Config;
use crate::control_plane::rest::{Answers, ControlPlane, ControlPlaneError, RunPoller, RunState};
use crate::control_plane::ws::{
    Epoch, Link, LinkConfig, LinkError, LinkErrorKind, LinkEvent, Outbound, Timing,
};
use crate::coordinator::{Coordinator, Effect, Event, Rules, RunEnd};
use crate::docker::{Docker, RegistryEnv};
use crate::exit::Exit;
use crate::job::{AdoptedTask, JobEvent, JobId, Work};
use crate::logging::error_chain;
use crate::logging::{message, value};
use crate::protocol::{Incoming, Outgoing, decode, encode};
use crate::sys::cancel::{CancelReason, CancelToken};
use crate::sys::pool::{Pool, spawn_detached};
use crate::task::plan::TaskSettings;
use crate::task::{Job, JobControl, Options, Tasks, adopt};

/// Events of the link that wait for the main thread, at most; the link waits beyond that.
const LINK_EVENTS: usize = 256;

/// How long the link's thread may take to end.
const LINK_END: Duration = Duration::from_secs(2);

/// How long after the start the second look is: what an engine has been asked to make before takes it seconds, seldom longer
/// however busy it is. What it makes later still stays until the next start.
const LATE_SWEEP_AFTER: Duration = Duration::from_secs(30);

/// Why the worker could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configured URL is not one, which the configuration has ruled out.
    #[error("the WebSocket URL cannot be used")]
    Url(#[from] http::uri::InvalidUri),
    /// The root URL, likewise, or no certificates to trust.
    #[error("the control plane's root cannot be used")]
    ControlPlane(#[from] ControlPlaneError),
    /// No threads or no pipe.
    #[error("the system has no more threads or files")]
    System(#[from] io::Error),
}

struct Runtime {
    coordinator: Coordinator,
    worker_id: String,
    process_id: String,
    /// For the second look at what an earlier process has left.
    docker: Docker,
    link: Link,
    pool: Pool<Job>,
    /// Tells the service manager, if there is one.
    notifier: Notifier,
    /// Looks how much space tasks have, where that can be seen.
    disk: Option<DiskWatch>,
    /// Tells the clean-ups of all jobs, and ends the second look, when the worker is stopping.
    stopping: CancelToken,
    /// Asks for the runs' states, unless that is turned off.
    poller: Option<RunPoller>,
    /// What it was asked last.
    asked: Vec<(JobId, String)>,
    /// The handles of every job that the coordinator counts.
    jobs: HashMap<JobId, Handle>,
    /// The connection that the coordinator believes to be up.
    epoch: Option<Epoch>,
}

struct Handle {
    cancel: CancelToken,
    control: JobControl,
}

/// The thread for look-ups, and where its answers come; no thread and no answers when nothing is to be looked up.
fn poller(config: &Config) -> Result<(Option<RunPoller>, Receiver<Answers>), StartError> {
    if config.reconcile_interval.is_zero() {
        return Ok((None, never()));
    }
    let control_plane = ControlPlane::new(&config.server_root_url, &config.api_key)?;
    let (answers, from_poller) = bounded(1);
    Ok((Some(RunPoller::start(control_plane, answers)?), from_poller))
}

/// Runs the worker until it is told to stop by `signals` or cannot go on.
///
/// # Errors
/// Only before anything has been started.
pub fn run(
    config: &Config,
    docker: Docker,
    registries: RegistryEnv,
    adopted: Vec<Arc<AdoptedTask>>,
    signals: &Receiver<()>,
    notifier: Notifier,
) -> Result<Exit, StartError> {
    // What an earlier process has left is worked on at once, even when that had more slots.
    let threads = config.max_concurrent_tasks.max(adopted.len());
    // What a job usually tells fits, so that no thread of the pool waits for the main thread.
    let (job_events, from_jobs) = bounded(4 * threads);
    let (link_events, from_link) = bounded(LINK_EVENTS);
    let (poller, from_poller) = poller(config)?;
    let disk = DiskWatch::new(&docker, config.min_free_disk);
    let stopping = CancelToken::new();
    let process_id = new_process_id();
    let options = options(config, registries, process_id.clone());
    let tasks = Tasks::new(docker.clone(), options, job_events, stopping.clone());
    let mut runtime = Runtime {
        coordinator: Coordinator::new(rules(config)),
        worker_id: config.worker_id.clone(),
        process_id,
        docker,
        pool: Pool::start(threads, move |job| tasks.execute(&job))?,
        link: Link::start(link_config(config)?, link_events)?,
        notifier,
        disk,
        stopping,
        poller,
        asked: Vec::new(),
        jobs: HashMap::new(),
        epoch: None,
    };
    let adopted = runtime.decide(Event::Adopted(adopted));
    let exit = adopted.unwrap_or_else(|| runtime.serve(&from_link, &from_jobs, &from_poller, signals));
    runtime.end(exit);
    Ok(exit)
}

fn rules(config: &Config) -> Rules {
    Rules {
        slots: config.max_concurrent_tasks,
        task_timeout: config.task_timeout,
        drain_timeout: config.drain_timeout,
        reconcile_interval: config.reconcile_interval,
        lost_runs: config.lost_runs,
        late_sweep_after: LATE_SWEEP_AFTER,
    }
}

/// Tells what this process makes on the engine from what an earlier one has made.
fn new_process_id() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

fn options(config: &Config, registries: RegistryEnv, process_id: String) -> Options {
    Options {
        settings: TaskSettings {
            worker_id: config.worker_id.clone(),
            process_id,
            server_root_url: config.server_root_url.clone(),
            volumes: config.volumes.clone(),
            env: config.env.clone(),
        },
        pull: config.pull,
        registries,
        max_output: config.max_output,
        cleanup: config.cleanup,
        engine_timeout: config.engine_timeout,
        keep_sidecar_volumes: config.keep_sidecar_volumes,
    }
}

fn link_config(config: &Config) -> Result<LinkConfig, StartError> {
    Ok(LinkConfig {
        url: config.link_url().parse()?,
        api_key: config.api_key.clone(),
        max_attempts: config.reconnect_max_attempts,
        window: config.reconnect_window,
        timing: Timing::default(),
    })
}

impl Runtime {
    fn serve(
        &mut self,
        from_link: &Receiver<LinkEvent>,
        from_jobs: &Receiver<JobEvent>,
        from_poller: &Receiver<Answers>,
        signals: &Receiver<()>,
    ) -> Exit {
        let mut from_link = from_link.clone();
        loop {
            let tick = self.coordinator.deadline().map_or_else(never, at);
            let event = select! {
                recv(from_link) -> event => event.map_or_else(|_| Some(link_is_gone()), |event| self.link_event(event)),
                recv(from_jobs) -> event => event.ok().map(|event| self.job_event(event)),
                recv(from_poller) -> answers => answers.ok().map(|answers| self.answered(&answers)),
                recv(signals) -> signal => signal.ok().map(|()| Event::Signal),
                recv(tick) -> _ => Some(Event::Tick),
            };
            let Some(event) = event else { continue };
            if matches!(event, Event::LinkGone { .. }) {
                // The channel of a thread that has ended is ready for ever.
                from_link = never();
            }
            if let Some(exit) = self.decide(event) {
                return exit;
            }
        }
    }

    /// Has an event decided, and does what was decided; an exit is given back.
    fn decide(&mut self, event: Event) -> Option<Exit> {
        let effects = self.coordinator.handle(event, Instant::now());
        self.notifier.tell(&self.coordinator.status());
        effects.into_iter().find_map(|effect| self.perform(effect))
    }

    fn link_event(&mut self, event: LinkEvent) -> Option<Event> {
        match event {
            LinkEvent::Up { epoch } => {
                self.epoch = Some(epoch);
                Some(Event::LinkUp)
            }
            LinkEvent::Failed => Some(Event::LinkFailed),
            LinkEvent::Down { .. } => {
                self.epoch = None;
                Some(Event::LinkDown)
            }
            LinkEvent::Text { text, .. } => Some(self.text(&text)),
            LinkEvent::Binary { bytes } => {
                warn!("message invalid error=\"a binary frame\" bytes={bytes}");
                None
            }
            LinkEvent::Confirmed { seq } => Some(Event::Confirmed { seq }),
            LinkEvent::Fatal(why) => {
                error!("link ended error={}", message(&why.to_string()));
                Some(Event::LinkGone { exit: exit_of(&why) })
            }
            LinkEvent::Closed => Some(link_is_gone()),
        }
    }

    /// A look at the disk is one call to the kernel that waits for nothing, and belongs to the moment of the assignment.
    fn text(&mut self, text: &str) -> Event {
        match decode(text) {
            Ok(Incoming::Assignment(assignment)) => {
                let disk_full = self.disk.as_ref().and_then(DiskWatch::low);
                Event::Assigned { assignment, disk_full }
            }
            decoded => decoded.map_or_else(Event::Invalid, Event::Incoming),
        }
    }

    fn job_event(&mut self, event: JobEvent) -> Event {
        match event {
            JobEvent::Started { job, ran } => Event::Started { job, ran },
            JobEvent::Engine { job, away } => Event::Engine { job, away },
            JobEvent::Finished { job, report } => Event::Finished { job, report },
            JobEvent::Done { job } => {
                self.jobs.remove(&job);
                Event::Done { job }
            }
        }
    }

    /// A run may have come back as another job meanwhile, so the answer is for the job that was asked about.
    fn answered(&mut self, Answers(states): &Answers) -> Event {
        let asked = std::mem::take(&mut self.asked);
        let end = |task_id: &String| {
            let (_, state) = states.iter().find(|(id, _)| id == task_id)?;
            match state {
                RunState::Cancelled => Some(RunEnd::Cancelled),
                RunState::Failed => Some(RunEnd::Failed),
                RunState::Succeeded => Some(RunEnd::Succeeded),
                RunState::Queued | RunState::Pending | RunState::Claimed | RunState::InProgress => None,
            }
        };
        let over = asked.iter().filter_map(|(job, task_id)| Some((*job, end(task_id)?))).collect();
        Event::Asked { over }
    }

    fn ask(&mut self, jobs: Vec<(JobId, String)>) {
        let ids = jobs.iter().map(|(_, task_id)| task_id.clone()).collect();
        self.asked = jobs;
        if !self.poller.as_ref().is_some_and(|poller| poller.ask(ids)) {
            // The coordinator asks for one batch at a time, so this is a defect, and costs the look-ups only.
            error!("look-ups busy");
        }
    }

    /// On a thread of its own that ends with it, so that nothing waits for the engine: it can be busy.
    fn late_sweep(&self) {
        let (docker, stopping) = (self.docker.clone(), self.stopping.clone());
        let (worker_id, process_id) = (self.worker_id.clone(), self.process_id.clone());
        let look = move || match adopt::late_sweep(&docker, &stopping, &worker_id, &process_id) {
            Ok(()) => debug!("looked again"),
            Err(error) if error.is_cancelled() => {}
            Err(error) => warn!("second look failed error={}", value(&error_chain(&error))),
        };
        if let Err(error) = spawn_detached("oz-sweep", look) {
            warn!("second look failed error={}", value(&error.to_string()));
        }
    }

    /// Does what was decided; an exit is given back.
    fn perform(&mut self, effect: Effect) -> Option<Exit> {
        match effect {
            Effect::Send { seq, message } => self.send(seq, &message),
            Effect::Start { job, work } => self.start(job, work),
            Effect::Release { job } => self.with(job, |handle| handle.control.release()),
            Effect::Settle { job, settlement } => self.with(job, |handle| handle.control.settle(settlement)),
            Effect::Cancel { job, reason } => self.with(job, |handle| handle.cancel.cancel(reason)),
            Effect::Ask(jobs) => self.ask(jobs),
            Effect::LateSweep => self.late_sweep(),
            Effect::StopWaiting => {
                self.link.stop_waiting();
                self.stopping.cancel(CancelReason::Shutdown);
            }
            Effect::CloseLink => self.link.close(),
            Effect::Exit(exit) => return Some(exit),
            Effect::Log(level, text) => log!(level, "{text}"),
        }
        None
    }

    fn with(&self, job: JobId, act: impl Fn(&Handle)) {
        if let Some(handle) = self.jobs.get(&job) {
            act(handle);
        }
    }

    /// A message that finds the outbox full ends its connection: on the next one the coordinator sends again what was
    /// not confirmed.
    fn send(&self, seq: Option<u64>, message: &Outgoing) {
        let Some(epoch) = self.epoch else { return };
        let text = encode(message, &self.worker_id);
        let (task, kind, bytes) = (value(message.task_id()), message.kind(), text.len());
        log!(Level::Debug, "message queued task={task} type={kind} bytes={bytes}");
        if self.link.send(Outbound { epoch, seq, text }).is_err() {
            warn!("outbox full, reconnecting task={task} type={kind}");
        }
    }

    fn start(&mut self, id: JobId, work: Work) {
        let (control, signals) = JobControl::new();
        let cancel = CancelToken::new();
        self.jobs.insert(id, Handle { cancel: cancel.clone(), control });
        if !self.pool.give(Job { id, work, cancel, signals }) {
            // The coordinator counts slots, so this is a defect; the end of the process is better than a run that
            // nobody works on.
            error!("pool full");
            self.link.close();
        }
    }

    /// After an orderly end all jobs are done and joining takes no time. When tasks are left none of them is waited
    /// for, and the control plane is told goodbye if that goes quickly; who is in a stop_waiting does not wait for that either.
    fn end(mut self, exit: Exit) {
        if exit == Exit::Interrupted || !self.jobs.is_empty() {
            self.pool.abandon();
        }
        self.jobs.clear();
        // A look-up that is under way has no say any more.
        self.poller.iter_mut().for_each(RunPoller::abandon);
        if exit != Exit::Interrupted {
            self.link.close();
            self.link.join(Instant::now() + LINK_END);
        }
    }
}

/// The link has ended, as it was asked to; if it was not, that is a failure.
fn link_is_gone() -> Event {
    Event::LinkGone { exit: Exit::Failure }
}

fn exit_of(error: &LinkError) -> Exit {
    match error.kind() {
        LinkErrorKind::Permanent => Exit::Refused,
        LinkErrorKind::GaveUp | LinkErrorKind::Panicked => Exit::Failure,
    }
}
