//! The main thread: one `select!`, and the effects of each event. It decides nothing and does no I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, at, bounded, never, select};
use log::{Level, error, info, log, warn};

use super::background::{Background, Results};
use super::disk::DiskWatch;
use super::ended::{Ended, StartError};
use super::link::{LINK_END, StartedLink};
use super::monitor::{LINK_LATE, Monitor, Query, Sample};
use super::search::Found;
use super::service_manager::Notifier;
use super::settings;
use super::signals::Signals;
use crate::cli::Config;
use crate::control_plane::rest::{ControlPlane, RunPoller};
use crate::control_plane::ws::{Epoch, Link, LinkError, LinkErrorKind, LinkEvent, Outbound, Refused};
use crate::coordinator::{Coordinator, Effect, Event, Refusal};
use crate::docker::RegistryEnv;
use crate::exit::Exit;
use crate::job::{
    JobEvent, JobId, Leftover, LookupAnswer, LookupFailure, MAX_LOOKUPS, Removal, RunLookup, Work,
};
use crate::logging::{message, value};
use crate::protocol::Outgoing;
use crate::sys::cancel::{CancelReason, CancelToken};
use crate::sys::limits::check_descriptors_for_task;
use crate::sys::pool::Pool;
use crate::task::{Job, JobControl, Tasks};

/// The capacity of the channel for the jobs' events; large enough that jobs rarely block on the main thread.
const JOB_EVENTS: usize = 256;

struct Runtime<'a> {
    coordinator: Coordinator,
    link: Link,
    pool: Pool<Job>,
    /// Removes what jobs have left.
    cleaners: Pool<(JobId, Arc<Leftover>)>,
    notifier: &'a mut Notifier,
    background: Background,
    /// Cancelled when the worker stops: clean-ups no longer wait for an engine that is away, and the late sweep ends.
    stopping: CancelToken,
    poller: RunPoller,
    jobs: HashMap<JobId, Handle>,
    /// The current connection, as last reported to the coordinator.
    epoch: Option<Epoch>,
}

/// What follows from an effect.
enum Next {
    Continue,
    /// Its answer.
    Handle(Event),
    /// The end of the process.
    Exit(Exit),
}

struct Handle {
    cancel: CancelToken,
    interrupt: CancelToken,
    control: JobControl,
}

/// Where the main thread's events come from.
struct Inputs<'a> {
    link: Receiver<LinkEvent>,
    jobs: Receiver<(JobId, JobEvent)>,
    lookups: Receiver<LookupAnswer>,
    background: Receiver<Event>,
    queries: Receiver<Query>,
    signals: &'a Signals,
}

/// Runs the worker until `signals` or an error end it. Returns its exit code.
///
/// # Errors
/// A thread or a socket cannot be created, or a URL cannot be used. No task was started then.
pub(super) fn run(
    config: &Config,
    Found { docker, processes, left, started }: Found,
    registries: RegistryEnv,
    signals: &Signals,
    notifier: &mut Notifier,
    mut monitor: Monitor,
) -> Result<Ended, StartError> {
    let StartedLink { link, events, key } = started;
    let adopted: Vec<_> = left.tasks.into_iter().map(Arc::new).collect();
    // They may exceed the slots: the earlier process may have had more.
    let threads = config.max_concurrent_tasks.max(adopted.len());
    let (job_events, jobs) = bounded(JOB_EVENTS);
    let (results, background) = Results::new();
    let control_plane = ControlPlane::new(&config.rest_url, &key)?.with_network(settings::network(config));
    let (answers, lookups) = bounded(MAX_LOOKUPS);
    let disk = DiskWatch::new(&docker, config.min_free_disk);
    let disk = disk.map(|disk| disk.recording(&monitor.disk_free));
    let stopping = CancelToken::new();
    let options = settings::options(config, registries, processes.own());
    let steps = Arc::clone(&monitor.steps);
    let tasks =
        Tasks::new(docker.clone(), Arc::clone(&processes), options, job_events, stopping.clone(), steps);
    let tasks = Arc::new(tasks.with_disk(DiskWatch::full_check(disk.as_ref())));
    let disk = disk.filter(DiskWatch::refuses_tasks);
    let low = disk.as_ref().and_then(DiskWatch::was_low);
    let cleaning = Arc::clone(&tasks);
    let mut runtime = Runtime {
        coordinator: settings::coordinator(config, disk.is_some(), notifier.interval()),
        background: Background {
            docker,
            disk,
            worker_id: config.worker_id.clone(),
            processes,
            keep_failed: config.keep_failed,
            stopping: stopping.clone(),
            results,
        },
        pool: Pool::new("oz-task", threads, move |job| tasks.execute(&job)),
        cleaners: Pool::new("oz-clean", threads, move |(job, left): (JobId, Arc<Leftover>)| {
            cleaning.remove(job, &left);
        }),
        link,
        notifier,
        stopping,
        poller: RunPoller::new(control_plane, answers),
        jobs: HashMap::new(),
        epoch: None,
    };
    info!("worker ready tasks={}", adopted.len());
    let queries = monitor.running();
    let inputs = Inputs { link: events, jobs, lookups, background, queries, signals };
    let exit = match runtime
        .handle(Event::Adopted(adopted))
        .or_else(|| runtime.handle(Event::Unstarted(left.unstarted)))
        .or_else(|| runtime.handle(Event::Checked { engine: None, disk: low }))
    {
        Some(exit) => exit,
        None => runtime.serve(inputs),
    };
    Ok(runtime.end(exit))
}

impl Runtime<'_> {
    fn serve(&mut self, mut inputs: Inputs<'_>) -> Exit {
        loop {
            let tick = self.coordinator.deadline().map_or_else(never, at);
            let event = select! {
                recv(inputs.link) -> event => match event {
                    Ok(event) => self.link_event(event),
                    Err(_) => Some(link_gone()),
                },
                recv(inputs.jobs) -> event => event.ok().map(|(job, event)| self.job_event(job, event)),
                recv(inputs.lookups) -> answer => answer.ok().map(Event::LookedUp),
                recv(inputs.background) -> event => event.ok(),
                recv(inputs.queries) -> query => {
                    match query {
                        Ok(query) => self.answer(&query),
                        Err(_) => inputs.queries = never(),
                    }
                    None
                }
                recv(inputs.signals.stop) -> signal => signal.ok().map(|()| Event::Signal),
                recv(inputs.signals.state) -> signal => signal.ok().map(|()| Event::LogState),
                recv(tick) -> _ => Some(Event::Tick),
            };
            let Some(event) = event else { continue };
            if matches!(event, Event::LinkGone { .. }) {
                // The channel of a thread that ended is always ready.
                inputs.link = never();
            }
            if let Some(exit) = self.handle(event) {
                return exit;
            }
        }
    }

    /// Passes an event, and those that follow from it at once, to the coordinator and performs the effects. Returns the exit
    /// code if one ends the process.
    fn handle(&mut self, event: Event) -> Option<Exit> {
        let mut lines = Vec::new();
        let exit = self.handle_all(VecDeque::from([event]), &mut lines);
        // Last, because they wake the log's thread: a claim is sent before the assignment is logged.
        for (level, text) in lines {
            log!(level, "{text}");
        }
        exit
    }

    fn handle_all(&mut self, mut events: VecDeque<Event>, lines: &mut Vec<(Level, String)>) -> Option<Exit> {
        while let Some(event) = events.pop_front() {
            for effect in self.coordinator.handle(event, Instant::now()) {
                match self.perform(effect, lines) {
                    Next::Continue => {}
                    Next::Handle(event) => events.push_back(event),
                    Next::Exit(exit) => return Some(exit),
                }
            }
            self.notifier.tell(&self.coordinator.status());
        }
        None
    }

    fn link_event(&mut self, event: LinkEvent) -> Option<Event> {
        match event {
            LinkEvent::Up { epoch } => {
                self.epoch = Some(epoch);
                Some(Event::LinkUp)
            }
            LinkEvent::Failed => Some(Event::LinkFailed),
            LinkEvent::Refused(refused) => Some(Event::LinkRefused(refusal(refused))),
            LinkEvent::Down { .. } => {
                self.epoch = None;
                Some(Event::LinkDown)
            }
            LinkEvent::Message { message, bytes } => {
                self.link.taken(bytes);
                Some(message.map_or_else(Event::Invalid, Event::Message))
            }
            LinkEvent::Binary { bytes } => Some(Event::Binary { bytes }),
            LinkEvent::Confirmed { seq } => Some(Event::Confirmed { seq }),
            LinkEvent::Fatal(error) => {
                error!("link ended error={}", message(&error.to_string()));
                Some(Event::LinkGone { exit: exit_of(&error), reason: Some(error.to_string()) })
            }
            LinkEvent::Closed => Some(link_gone()),
        }
    }

    fn job_event(&mut self, job: JobId, event: JobEvent) -> Event {
        if matches!(event, JobEvent::Done(_)) {
            self.jobs.remove(&job);
        }
        Event::Job(job, event)
    }

    fn perform(&mut self, effect: Effect, lines: &mut Vec<(Level, String)>) -> Next {
        match effect {
            Effect::Send { seq, message } => self.send(seq, message),
            Effect::Start { job, work } => return Next::Handle(self.start(job, work)),
            Effect::Release { job } => self.with(job, |handle| handle.control.release()),
            Effect::Settle { job, settlement } => self.with(job, |handle| handle.control.settle(settlement)),
            Effect::Cancel { job, reason } => self.with(job, |handle| handle.cancel.cancel(reason)),
            Effect::Interrupt { job } => {
                self.with(job, |handle| handle.interrupt.cancel(CancelReason::Sibling));
            }
            Effect::CheckDisk => self.background.check_disk(),
            Effect::PingEngine => self.background.ping_engine(),
            Effect::Beat { tell } => self.beat(tell),
            Effect::LookUp(lookup) => return self.look_up(lookup),
            Effect::CleanUp { job, left } => return self.clean_up(job, left),
            Effect::LateSweep => self.background.sweep(true),
            Effect::SweepFailed => self.background.sweep(false),
            Effect::StopWaiting => {
                self.link.stop_waiting();
                self.stopping.cancel(CancelReason::Shutdown);
            }
            Effect::CloseLink => self.link.close(),
            Effect::Exit(exit) => return Next::Exit(exit),
            Effect::Log(level, text) => lines.push((level, text)),
        }
        Next::Continue
    }

    fn with(&self, job: JobId, act: impl Fn(&Handle)) {
        if let Some(handle) = self.jobs.get(&job) {
            act(handle);
        }
    }

    /// A full outbox ends the connection. On the next one the coordinator sends again what was not confirmed.
    fn send(&self, seq: Option<u64>, message: Outgoing) {
        let Some(epoch) = self.epoch else { return };
        let key = message.key().to_string();
        let kind = message.kind();
        if self.link.send(Outbound { epoch, seq, message }).is_err() {
            warn!("outbox full, reconnecting {key} type={kind}");
        }
    }

    fn start(&mut self, job: JobId, work: Work) -> Event {
        // An adopted task goes on anyway, and waits for its descriptors.
        if matches!(work, Work::Run(_))
            && let Err(error) = check_descriptors_for_task(self.jobs.len())
        {
            return Event::NoDescriptors { job, error: error.to_string() };
        }
        let (control, signals) = JobControl::new();
        let (cancel, interrupt) = (CancelToken::new(), CancelToken::new());
        let result = self.pool.give(Job {
            id: job,
            work,
            cancel: cancel.clone(),
            interrupt: interrupt.clone(),
            signals,
        });
        if result.is_ok() {
            self.jobs.insert(job, Handle { cancel, interrupt, control });
        }
        Event::ThreadStarted { job, error: result.err().map(|error| error.to_string()) }
    }

    /// The service manager hears of the worker only while the link goes on, too.
    fn beat(&self, tell: bool) {
        if self.link.overdue(Instant::now()) <= LINK_LATE {
            self.notifier.goes_on();
        }
        self.background.check(tell);
    }

    /// Hands over the state for a monitoring page.
    fn answer(&self, query: &Query) {
        let now = Instant::now();
        // Fails if the answer is not awaited any more.
        let _ =
            query.try_send(Sample { view: self.coordinator.view(now), link_overdue: self.link.overdue(now) });
    }

    fn look_up(&self, lookup: RunLookup) -> Next {
        let number = lookup.number;
        match self.poller.look_up(lookup) {
            Ok(()) => Next::Continue,
            Err(error) => {
                let failure = LookupFailure { systemic: true, absent: false, error: error.to_string() };
                Next::Handle(Event::LookedUp((number, Err(failure))))
            }
        }
    }

    /// Without a thread the container stays; the next process reports it again, which changes nothing.
    fn clean_up(&self, job: JobId, left: Arc<Leftover>) -> Next {
        let key = left.key.to_string();
        match self.cleaners.give((job, left)) {
            Ok(()) => Next::Continue,
            Err(error) => {
                let error = value(&error.to_string()).to_string();
                warn!("container left for the next start {key} error={error}");
                Next::Handle(Event::Job(job, JobEvent::CleanedUp(Removal::Left)))
            }
        }
    }

    /// After an orderly stop no job is left and the threads end at once. With tasks left, their threads are abandoned
    /// and the link gets [`LINK_END`] to send its close frame; an interrupted stop does not wait for that either.
    fn end(mut self, exit: Exit) -> Ended {
        let reason = self.coordinator.status().stop.and_then(|stop| stop.reason);
        if exit == Exit::Interrupted || !self.jobs.is_empty() {
            self.pool.abandon();
            self.cleaners.abandon();
        }
        self.jobs.clear();
        self.poller.abandon();
        if exit != Exit::Interrupted {
            self.link.end(LINK_END);
        }
        Ended { exit, reason }
    }
}

fn refusal(refused: Refused) -> Refusal {
    let Refused { refusal, body, retry_in } = refused;
    Refusal { reason: refusal.to_string(), body, may_pass: refusal.may_pass(), retry_in }
}

/// The exit code counts only if the end was not requested.
fn link_gone() -> Event {
    Event::LinkGone { exit: Exit::Failure, reason: None }
}

fn exit_of(error: &LinkError) -> Exit {
    match error.kind() {
        LinkErrorKind::Permanent => Exit::Refused,
        LinkErrorKind::GaveUp | LinkErrorKind::Panicked => Exit::Failure,
    }
}
