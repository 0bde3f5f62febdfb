//! When the kept containers of failed tasks are swept: after each that is added, and when the next is due for removal.

use std::time::{Duration, Instant};

use super::Coordinator;
use super::event::Effect;

#[derive(Debug, Default)]
pub(super) struct FailedSweep {
    due: Option<Instant>,
    under_way: bool,
}

impl FailedSweep {
    /// A container was added.
    pub(super) fn kept(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// A sweep ended; the next container is due then.
    pub(super) fn swept(&mut self, due: Option<Duration>, now: Instant) {
        self.under_way = false;
        self.due = self.due.into_iter().chain(due.map(|due| now + due)).min();
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.filter(|_| !self.under_way)
    }
}

impl Coordinator {
    /// A worker that stops leaves them to the next process.
    pub(super) fn sweep_failed(&mut self, now: Instant) {
        let is_due = self.failed_sweep.deadline().is_some_and(|due| due <= now);
        if is_due && self.stop.is_none() {
            self.failed_sweep = FailedSweep { due: None, under_way: true };
            self.effects.push(Effect::SweepFailed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use super::super::{Event, JobEvent, JobId};
    use super::*;

    const KEPT: Event = Event::Job(JobId(0), JobEvent::Kept);

    fn swept(seconds: Option<u64>) -> Event {
        Event::FailedSwept { due: seconds.map(Duration::from_secs) }
    }

    #[test]
    fn a_kept_container_is_swept_when_it_is_due() {
        let mut script = Script::connected(1);
        assert_eq!(script.on(KEPT), [Effect::SweepFailed]);
        assert_eq!(script.coordinator.deadline(), None, "it is under way");
        assert_eq!(script.on(swept(Some(60))), []);
        assert_eq!(script.coordinator.deadline(), Some(script.now + Duration::from_secs(60)));
        assert_eq!(script.after(59), []);
        assert_eq!(script.after(1), [Effect::SweepFailed]);
        assert_eq!(script.on(swept(None)), []);
        assert_eq!(script.coordinator.deadline(), None, "none is left");
    }

    #[test]
    fn a_container_that_is_added_during_a_sweep_is_swept_after_it() {
        let mut script = Script::connected(1);
        assert_eq!(script.on(KEPT), [Effect::SweepFailed]);
        assert_eq!(script.on(KEPT), []);
        assert_eq!(script.on(swept(Some(60))), [Effect::SweepFailed]);
        // The sweep after the start.
        assert_eq!(script.on(swept(Some(30))), []);
        assert_eq!(script.on(swept(Some(60))), []);
        assert_eq!(script.after(30), [Effect::SweepFailed]);
    }

    #[test]
    fn a_worker_that_stops_sweeps_no_more() {
        let mut script = Script::connected(1);
        script.on(swept(Some(60)));
        script.assign("a");
        script.on(Event::Signal);
        script.now += Duration::from_secs(60);
        assert!(!script.on(Event::Tick).contains(&Effect::SweepFailed));
    }
}
