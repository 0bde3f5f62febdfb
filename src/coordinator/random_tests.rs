//! Random histories of events, from seeds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::tests::*;
use super::{BACKLOG, Effect, Event, JobEvent, JobId, LostRuns, Rules, Settlement};
use crate::job::{LookupFailure, Removal, RunLookup};
use crate::protocol::{ExecutionKey, RunState, RunView};

/// In any order of events, the worker starts no run twice while it has it, uses at most its slots, and never reuses a number.
#[test]
fn random_histories_keep_the_rules() {
    for seed in 0..300 {
        let mut random = Random(seed);
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
        let mut here: BTreeMap<JobId, String> = BTreeMap::new();
        let mut working: BTreeSet<JobId> = BTreeSet::new();
        // The tasks whose reports were received, until their containers are removed.
        let mut kept: BTreeMap<JobId, String> = BTreeMap::new();
        let mut removing: BTreeSet<JobId> = BTreeSet::new();
        let mut last_seq = 0;
        for _ in 0..200 {
            script.now += Duration::from_secs(random.below(20));
            let event = match random.below(16) {
                0..=2 if !script.asked.is_empty() => random.answer(&script.asked.remove(0)),
                3 | 4 => removing.pop_first().map_or(Event::Tick, |job| cleaned_up(job.0)),
                _ => random.event(&here, &working, last_seq),
            };
            match &event {
                Event::Job(job, JobEvent::Finished { .. }) => drop(working.remove(job)),
                Event::Job(job, JobEvent::Done(Removal::Gone)) => drop(here.remove(job)),
                Event::Job(job, JobEvent::CleanedUp(Removal::Gone)) => assert!(kept.remove(job).is_some()),
                _ => {}
            }
            for effect in script.on(event) {
                match effect {
                    Effect::Start { job, work } => {
                        let mut all = here.values().chain(kept.values());
                        assert!(!all.any(|id| *id == shown(work.key())), "seed {seed}: started twice");
                        assert!(here.insert(job, shown(work.key())).is_none());
                        working.insert(job);
                    }
                    Effect::Settle { job, settlement: Settlement::Received } => {
                        kept.extend(here.remove_entry(&job));
                    }
                    Effect::CleanUp { job, .. } => {
                        assert!(removing.insert(job) && removing.len() <= 3, "seed {seed}");
                    }
                    Effect::Release { job } => assert!(working.contains(&job), "seed {seed}: {job:?}"),
                    Effect::Send { seq: Some(seq), .. } => {
                        assert!(seq > last_seq, "seed {seed}: number used again");
                        last_seq = seq;
                    }
                    _ => {}
                }
            }
            assert!(here.len() <= 3, "seed {seed}: more jobs than slots");
            // A run with a free slot takes no place in the backlog.
            assert!(script.coordinator.backlog.len() + here.len() <= BACKLOG + 3);
        }
    }
}

/// As [`key`] reads it.
fn shown(key: &ExecutionKey) -> String {
    key.execution_id.as_ref().map_or_else(|| key.task_id.clone(), |id| format!("{}/{id}", key.task_id))
}

struct Random(u64);

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

    fn event(&mut self, here: &BTreeMap<JobId, String>, working: &BTreeSet<JobId>, seq: u64) -> Event {
        // Some tasks have one execution without an id, others several with ids.
        let id = ["0", "1", "2", "3/1", "3/2", "3/3", "4", "4/1"][self.below(8) as usize].to_owned();
        let nth = self.below(3) as usize;
        let job = JobId(self.below(12));
        match self.below(13) {
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
            _ => assignment_at(&id, self.below(20) as i64),
        }
    }
}
