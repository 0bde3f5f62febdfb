//! Random histories of events, from seeds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::tests::*;
use super::{BACKLOG, Effect, Event, JobEvent, JobId, LostRuns, Rules, Settlement};
use crate::job::{Leftover, LookupFailure, Removal, RunLookup};
use crate::protocol::{Dialect, ExecutionKey, Outgoing, RunState, RunView};

/// In any order of events, the worker starts no run twice while it has it, fails none that it has, uses at most its slots, and never
/// reuses a number. It tries each removal again one at a time, and makes one late sweep at a time.
#[test]
fn random_histories_keep_the_rules() {
    for seed in 0..300 {
        let mut random = Random(seed, 0);
        let rules = Rules {
            slots: 3,
            task_timeout: Duration::from_secs(200),
            drain_timeout: Duration::from_secs(100),
            stop_grace: Duration::from_secs(10),
            reconcile_interval: Duration::from_secs(60),
            lost_runs: LostRuns::Stop,
            check_disk: seed % 2 == 0,
            late_sweep_after: Duration::from_secs(30),
            shared_id: seed % 5 == 0,
            beat_every: Duration::from_secs(if seed % 3 == 0 { 60 } else { 0 }),
        };
        let mut script = if seed % 3 == 0 { Script::with(rules) } else { Script::untried(rules) };
        let mut world = World { seed, ..World::default() };
        for _ in 0..200 {
            script.now += Duration::from_secs(random.below(20));
            let event = match random.below(16) {
                0..=2 if !script.asked.is_empty() => random.answer(&script.asked.remove(0)),
                3 | 4 => world.removing.pop_first().map_or(Event::Tick, |job| cleaned_up(job.0)),
                5 if world.is_sweeping => random.swept(),
                _ => random.event(&world.here, &world.working, world.last_seq),
            };
            world.happens(&event);
            script.on(event).into_iter().for_each(|effect| world.follows(effect));
            world.check(&script);
        }
    }
}

/// What the coordinator has been told and has asked for.
#[derive(Default)]
struct World {
    seed: u64,
    here: BTreeMap<JobId, String>,
    working: BTreeSet<JobId>,
    /// The jobs that were told to end.
    told: BTreeSet<JobId>,
    /// The tasks whose reports were received, until their containers are removed.
    kept: BTreeMap<JobId, String>,
    removing: BTreeSet<JobId>,
    /// The helpers that could not be removed, by their names.
    helpers: BTreeSet<String>,
    /// Each has a number of its own once its removal is tried again.
    of_helpers: BTreeMap<JobId, String>,
    /// A late sweep is under way.
    is_sweeping: bool,
    last_seq: u64,
}

impl World {
    fn happens(&mut self, event: &Event) {
        let seed = self.seed;
        match event {
            Event::Job(job, JobEvent::Finished { .. }) => drop(self.working.remove(job)),
            Event::Job(job, JobEvent::Done(Removal::Gone)) => drop(self.here.remove(job)),
            Event::Job(job, JobEvent::CleanedUp(Removal::Gone)) => match self.of_helpers.remove(job) {
                Some(helper) => {
                    assert!(self.helpers.remove(&helper), "seed {seed}: {helper} is removed twice");
                }
                None => assert!(self.kept.remove(job).is_some()),
            },
            Event::Job(_, JobEvent::HelperLeft { left }) => self.helpers.extend(left.container.clone()),
            Event::LateSwept { .. } => self.is_sweeping = false,
            _ => {}
        }
    }

    fn follows(&mut self, effect: Effect) {
        let seed = self.seed;
        match effect {
            Effect::Start { job, work } => {
                let mut all = self.here.values().chain(self.kept.values());
                assert!(!all.any(|id| *id == shown(work.key())), "seed {seed}: started twice");
                assert!(self.here.insert(job, shown(work.key())).is_none());
                self.working.insert(job);
            }
            Effect::Settle { job, settlement: Settlement::Received } => {
                self.kept.extend(self.here.remove_entry(&job));
            }
            Effect::CleanUp { job, left } => self.clean_up(job, left.container.as_ref()),
            // Its run may have been taken back, and may come again.
            Effect::Cancel { job, .. } => drop(self.told.insert(job)),
            Effect::LateSweep => {
                assert!(!std::mem::replace(&mut self.is_sweeping, true), "seed {seed}: swept twice at once");
            }
            Effect::Release { job } => assert!(self.working.contains(&job), "seed {seed}: {job:?}"),
            Effect::Send { message: Outgoing::Failed { key, .. }, .. } => {
                let is_here = self.working.difference(&self.told).any(|job| self.here[job] == shown(&key));
                assert!(!is_here, "seed {seed}: {key} is failed while it works");
            }
            Effect::Send { seq: Some(seq), .. } => {
                assert!(seq > self.last_seq, "seed {seed}: number used again");
                self.last_seq = seq;
            }
            _ => {}
        }
    }

    fn clean_up(&mut self, job: JobId, container: Option<&String>) {
        let seed = self.seed;
        assert!(self.removing.insert(job), "seed {seed}");
        if let Some(helper) = container.filter(|name| self.helpers.contains(*name)) {
            let is_new = !self.here.contains_key(&job) && !self.kept.contains_key(&job);
            assert!(is_new, "seed {seed}: {job:?} has a leftover of its own");
            assert!(!self.of_helpers.values().any(|other| other == helper), "seed {seed}: {helper}");
            self.of_helpers.insert(job, helper.clone());
        }
        let of_jobs = self.removing.iter().filter(|job| !self.of_helpers.contains_key(job));
        assert!(of_jobs.count() <= 3, "seed {seed}");
    }

    fn check(&self, script: &Script) {
        let seed = self.seed;
        assert!(self.here.len() <= 3, "seed {seed}: more jobs than slots");
        for job in self.working.difference(&self.told) {
            let is_lost = script.coordinator.lost_claims.contains(&key(&self.here[job]));
            assert!(!is_lost, "seed {seed}: {job:?} works, and its claim counts as lost");
        }
        // A run with a free slot takes no place in the backlog.
        assert!(script.coordinator.backlog.len() + self.here.len() <= BACKLOG + 3);
    }
}

/// As [`key`] reads it.
fn shown(key: &ExecutionKey) -> String {
    key.execution_id.as_ref().map_or_else(|| key.task_id.clone(), |id| format!("{}/{id}", key.task_id))
}

/// The state, and the number of the last helper.
struct Random(u64, u64);

impl Random {
    /// A multiplicative generator is enough to pick events.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn answer(&mut self, lookup: &RunLookup) -> Event {
        let states = RunState::ALL;
        let state = states[self.below(states.len() as u64) as usize];
        let updated_at = (self.below(3) > 0).then(|| at(self.below(20) as i64));
        let (systemic, absent) = (self.below(2) == 0, self.below(2) == 0);
        let failure = LookupFailure { systemic, absent, error: "refused".into() };
        let answer = if self.below(4) == 0 { Err(failure) } else { Ok(RunView { state, updated_at }) };
        Event::LookedUp((lookup.number, answer))
    }

    /// A late sweep that found containers of executions, of which this process may have some by now.
    fn swept(&mut self) -> Event {
        let found = (0..self.below(3)).map(|_| (key(&self.id()), Dialect::Old)).collect();
        Event::LateSwept { unstarted: found, again: self.below(2) == 0 }
    }

    /// Some tasks have one execution without an id, others several with ids.
    fn id(&mut self) -> String {
        ["0", "1", "2", "3/1", "3/2", "3/3", "4", "4/1"][self.below(8) as usize].to_owned()
    }

    /// A helper container that a working job could not remove.
    fn helper_left(&mut self, job: JobId, id: &str) -> Event {
        self.1 += 1;
        let left = Leftover {
            key: key(id),
            container: Some(format!("helper-{}", self.1)),
            id: None,
            started: false,
            failed: false,
            second_look: true,
            volumes: vec![],
        };
        Event::Job(job, JobEvent::HelperLeft { left: Arc::new(left) })
    }

    fn event(&mut self, here: &BTreeMap<JobId, String>, working: &BTreeSet<JobId>, seq: u64) -> Event {
        let id = self.id();
        let nth = self.below(3) as usize;
        let job = JobId(self.below(12));
        match self.below(14) {
            0 => Event::LinkDown,
            1 | 2 => Event::LinkUp,
            3 => cancel(&id),
            4 => confirmed(self.below(seq + 1)),
            5 => match working.iter().nth(nth) {
                Some(job) => finished(job.0, completed(&here[job])),
                None => Event::Tick,
            },
            6 => match here.keys().filter(|job| !working.contains(*job)).nth(nth) {
                Some(job) => freed(job.0),
                None => Event::Tick,
            },
            7 => runs(job.0, self.below(300)),
            8 => Event::Job(job, JobEvent::Engine { away: (self.below(3) == 0).then(|| "gone".to_owned()) }),
            9 => Event::Tick,
            10 => Event::DiskChecked { low: (self.below(4) == 0).then(|| "full".to_owned()) },
            11 => match working.iter().nth(nth) {
                Some(job) => self.helper_left(*job, &here[job]),
                None => Event::Tick,
            },
            _ => assignment_at(&id, self.below(20) as i64),
        }
    }
}
