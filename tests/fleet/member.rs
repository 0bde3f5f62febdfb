//! A worker without an engine: the link, the coordinator and the look-ups of the product, on a thread that does what the runtime
//! does with their events and effects. Its tasks take a moment and succeed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, at, bounded, never, select};
use oz_agent_worker::control_plane::Network;
use oz_agent_worker::control_plane::key::ApiKey;
use oz_agent_worker::control_plane::rest;
use oz_agent_worker::control_plane::ws::{Epoch, Link, LinkConfig, LinkEvent, Outbound, Timing};
use oz_agent_worker::coordinator::{Coordinator, Effect, Event, Refusal, Rules};
use oz_agent_worker::exit::Exit;
use oz_agent_worker::job::{JobEvent, JobId, Leftover, LookupAnswer, LookupFailure, MAX_LOOKUPS, Removal};
use oz_agent_worker::policy::LostRuns;
use oz_agent_worker::protocol::{Dialect, EncodedReport, ExecutionKey, FailureReason, Report, RunResult};
use oz_agent_worker::secret::Secret;

use crate::support::control_plane::ControlPlane;

/// How many tasks a worker runs at the same time.
const SLOTS: usize = 4;

/// How long a task takes.
const TASK: Duration = Duration::from_millis(500);

/// A running worker.
pub struct Member {
    stop: Sender<()>,
    thread: JoinHandle<Ended>,
}

/// What a worker did.
pub struct Ended {
    /// Its exit code.
    pub exit: Exit,
    /// The ids of the tasks that it started.
    pub started: Vec<String>,
}

struct Job {
    key: ExecutionKey,
    dialect: Dialect,
    /// When its task ends; `None` if it has not started, or has ended.
    ends: Option<Instant>,
}

struct Worker {
    id: String,
    coordinator: Coordinator,
    link: Link,
    epoch: Option<Epoch>,
    poller: rest::RunPoller,
    jobs: HashMap<JobId, Job>,
    started: Vec<String>,
}

impl Member {
    /// Starts a worker.
    pub fn start(plane: &ControlPlane, id: &str, spread: Duration) -> Self {
        let key = ApiKey::new(Secret::new(plane.key())).unwrap();
        let config = LinkConfig {
            url: format!("{}?worker_id={id}", plane.ws_url()).parse().unwrap(),
            api_key: key.clone(),
            worker_id: id.to_owned(),
            max_attempts: 0,
            window: Duration::ZERO,
            timing: Timing { spread, ..Timing::default() },
            network: Network::default(),
        };
        let (link_events, events) = bounded(256);
        let (answers, lookups) = bounded(MAX_LOOKUPS);
        let control_plane = rest::ControlPlane::new(&plane.root_url(), &key).unwrap();
        let link = Link::start(config, link_events).unwrap();
        link.allow_upgrade();
        let worker = Worker {
            id: id.to_owned(),
            coordinator: Coordinator::new(rules()),
            link,
            epoch: None,
            poller: rest::RunPoller::new(control_plane, answers),
            jobs: HashMap::new(),
            started: Vec::new(),
        };
        let (stop, stopped) = bounded(1);
        let thread = std::thread::Builder::new().stack_size(256 << 10);
        let thread = thread.spawn(move || worker.run(events, &lookups, stopped)).unwrap();
        Self { stop, thread }
    }

    /// Asks it to stop.
    pub fn stop(&self) {
        self.stop.send(()).unwrap();
    }

    /// Waits for its end.
    pub fn join(self) -> Ended {
        self.thread.join().unwrap()
    }
}

fn rules() -> Rules {
    Rules {
        slots: SLOTS,
        task_timeout: Duration::ZERO,
        drain_timeout: Duration::from_secs(30),
        stop_grace: Duration::from_secs(10),
        reconcile_interval: Duration::from_secs(60),
        lost_runs: LostRuns::Stop,
        check_disk: false,
        late_sweep_after: Duration::ZERO,
        shared_id: false,
        beat_every: Duration::ZERO,
    }
}

impl Worker {
    fn run(
        mut self,
        mut events: Receiver<LinkEvent>,
        lookups: &Receiver<LookupAnswer>,
        mut stop: Receiver<()>,
    ) -> Ended {
        let mut exit = self.handle(Event::Adopted(Vec::new()));
        while exit.is_none() {
            let ends = self.jobs.values().filter_map(|job| job.ends);
            let tick = ends.chain(self.coordinator.deadline()).min().map_or_else(never, at);
            let event = select! {
                recv(events) -> event => event.ok().and_then(|event| self.link_event(event)),
                recv(lookups) -> answer => answer.ok().map(Event::LookedUp),
                recv(stop) -> _ => {
                    // Also if the test has failed.
                    stop = never();
                    Some(Event::Signal)
                }
                recv(tick) -> _ => Some(self.next_end().unwrap_or(Event::Tick)),
            };
            if matches!(event, Some(Event::LinkGone { .. })) {
                events = never();
            }
            exit = event.and_then(|event| self.handle(event));
        }
        Ended { exit: exit.expect("the loop has ended"), started: self.started }
    }

    fn handle(&mut self, event: Event) -> Option<Exit> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.coordinator.handle(event, Instant::now()) {
                if let Effect::Exit(exit) = effect {
                    return Some(exit);
                }
                events.extend(self.perform(effect));
            }
        }
        None
    }

    fn link_event(&mut self, event: LinkEvent) -> Option<Event> {
        Some(match event {
            LinkEvent::Up { epoch } => {
                self.epoch = Some(epoch);
                Event::LinkUp
            }
            LinkEvent::Down { .. } => {
                self.epoch = None;
                Event::LinkDown
            }
            LinkEvent::Failed => Event::LinkFailed,
            LinkEvent::Refused(refused) => Event::LinkRefused(Refusal {
                reason: refused.refusal.to_string(),
                body: refused.body,
                may_pass: refused.refusal.may_pass(),
                retry_in: refused.retry_in,
            }),
            LinkEvent::Message { message, bytes } => {
                self.link.taken(bytes);
                message.map_or_else(Event::Invalid, Event::Message)
            }
            LinkEvent::Binary { bytes } => Event::Binary { bytes },
            LinkEvent::Confirmed { seq } => Event::Confirmed { seq },
            LinkEvent::Closed => Event::LinkGone { exit: Exit::Success, reason: None },
            LinkEvent::Fatal(error) => panic!("{}: {error}", self.id),
        })
    }

    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Send { seq, message } => {
                let epoch = self.epoch?;
                self.link.send(Outbound { epoch, seq, message }).expect("room in the outbox");
                None
            }
            Effect::Start { job, work } => {
                let (key, dialect) = (work.key().clone(), work.dialect());
                self.jobs.insert(job, Job { key, dialect, ends: None });
                Some(Event::ThreadStarted { job, error: None })
            }
            Effect::Release { job } => {
                let state = self.jobs.get_mut(&job)?;
                state.ends = Some(Instant::now() + TASK);
                self.started.push(state.key.task_id.clone());
                Some(Event::Job(job, JobEvent::Started { ran: Duration::ZERO }))
            }
            Effect::Cancel { job, .. } => {
                let cancelled = RunResult::Failed {
                    reason: FailureReason::TaskCancelled,
                    step: FailureReason::TaskCancelled,
                    message: "cancelled".to_owned(),
                    exit_code: None,
                };
                self.finish(job, cancelled)
            }
            Effect::Settle { job, .. } => {
                self.jobs.remove(&job).map(|_| Event::Job(job, JobEvent::Done(Removal::Gone)))
            }
            Effect::LookUp(lookup) => {
                let number = lookup.number;
                let error = self.poller.look_up(lookup).err()?;
                Some(Event::LookedUp((
                    number,
                    Err(LookupFailure { systemic: true, absent: false, error: error.to_string() }),
                )))
            }
            Effect::CleanUp { job, .. } => Some(Event::Job(job, JobEvent::CleanedUp(Removal::Gone))),
            Effect::StopWaiting => {
                self.link.stop_waiting();
                None
            }
            Effect::CloseLink => {
                self.link.close();
                None
            }
            Effect::Interrupt { .. } | Effect::Log(..) | Effect::Exit(_) => None,
            Effect::CheckDisk
            | Effect::PingEngine
            | Effect::Beat { .. }
            | Effect::LateSweep
            | Effect::SweepFailed => {
                panic!("{}: the rules do not ask for {effect:?}", self.id)
            }
        }
    }

    /// Ends a task whose time has come.
    fn next_end(&mut self) -> Option<Event> {
        let now = Instant::now();
        let due = self.jobs.iter().find(|(_, job)| job.ends.is_some_and(|ends| ends <= now));
        let job = *due?.0;
        self.finish(job, RunResult::Completed { exit_code: 0, out_of_memory: false, note: None })
    }

    fn finish(&mut self, job: JobId, result: RunResult) -> Option<Event> {
        let state = self.jobs.get_mut(&job)?;
        let started = state.ends.take().is_some();
        let (key, dialect) = (state.key.clone(), state.dialect);
        let left = Leftover {
            key: key.clone(),
            container: None,
            id: None,
            started,
            failed: result.is_failure(),
            second_look: false,
            volumes: Vec::new(),
        };
        let report = Report::failed(&key, dialect, FailureReason::Internal, "");
        let report = EncodedReport::new(Report { result, output: "done\n".to_owned(), ..report }, &self.id);
        let event = JobEvent::Finished { report: Arc::new(report), left: Arc::new(left) };
        Some(Event::Job(job, event))
    }
}
