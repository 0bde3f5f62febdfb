//! Reports the worker's readiness, status and maximum stop time to the service manager, with sd_notify(3).
//!
//! systemd waits for a stop for the reported time, so `TimeoutStopSec` need not follow the drain timeout.

use std::io;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::warn;
use sd_notify::NotifyState;

use crate::coordinator::{LinkState, Status, Stopping};
use crate::logging::message;
use crate::sys::cancel::Never;
use crate::sys::pool::spawn_detached;

/// The variable with the service manager's socket; unset without one.
pub const VARIABLE: &str = "NOTIFY_SOCKET";

/// The capacity of the queue. With a working service manager it never fills.
const MESSAGES: usize = 256;

/// Added to the longest time of a stop, for closing the link and exiting.
const LAST_STEPS: Duration = Duration::from_secs(10);

/// How long a drop waits for the last changes to be sent.
const LAST_CHANGES: Duration = Duration::from_secs(1);

/// Tells the service manager about changes of the worker's status; does nothing without a service manager.
pub struct Notifier {
    messages: Option<Sender<Vec<Notice>>>,
    last_sent: Option<Status>,
    /// Readiness was sent.
    ready: bool,
    /// Disconnected once the thread has ended.
    ended: Receiver<Never>,
}

/// One assignment of sd_notify(3).
#[derive(Debug, Clone, PartialEq, Eq)]
enum Notice {
    Ready,
    Status(String),
    Stopping,
    /// The present step ends within this time.
    Extend(Duration),
}

impl Notifier {
    /// If `wanted`, starts the thread `oz-notify`, which lasts as long as the notifier and writes to [`VARIABLE`].
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(wanted: bool) -> io::Result<Self> {
        let (running, ended) = bounded(0);
        let mut notifier = Self { messages: None, last_sent: None, ready: false, ended };
        if wanted {
            let (messages, queued) = bounded(MESSAGES);
            spawn_detached("oz-notify", move || {
                let _running: Sender<Never> = running;
                deliver(&queued);
            })?;
            notifier.messages = Some(messages);
        }
        Ok(notifier)
    }

    /// Queues the changes; never blocks, because a service manager that does not read must not delay claims and reports. If
    /// the queue is full, the changes are sent with the next ones.
    pub fn tell(&mut self, now: &Status) {
        let Some(messages) = self.messages.as_ref().filter(|_| self.last_sent.as_ref() != Some(now)) else {
            return;
        };
        let changes = changes(self.last_sent.as_ref(), now, self.ready);
        let ready = self.ready || changes.contains(&Notice::Ready);
        if messages.try_send(changes).is_ok() {
            self.last_sent = Some(now.clone());
            self.ready = ready;
        }
    }

    /// Queues that the worker waits for the engine, and why. It is ready: services that start after it need not wait for the
    /// engine.
    pub fn tell_no_engine(&mut self, reason: &str) {
        let Some(messages) = &self.messages else { return };
        let ready = (!self.ready).then_some(Notice::Ready);
        let status = Notice::Status(format!("waiting for the engine: {reason}"));
        self.ready |= messages.try_send(ready.into_iter().chain([status]).collect()).is_ok();
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.messages = None;
        // Fails once the thread has ended, or when the service manager does not read.
        let _ = self.ended.recv_timeout(LAST_CHANGES);
    }
}

/// Returns what changed since `before`; `ready` is whether readiness was sent.
///
/// A worker is ready once it is connected, or once its first attempt failed and it tries again: services that start after it
/// need not wait for the control plane. A permanently refused worker is never ready.
fn changes(before: Option<&Status>, now: &Status, ready: bool) -> Vec<Notice> {
    let mut changes = Vec::new();
    if !ready && now.link != LinkState::Connecting {
        changes.push(Notice::Ready);
    }
    if let (Some(stop), None) = (&now.stop, before.and_then(|before| before.stop.as_ref())) {
        changes.push(Notice::Stopping);
        changes.push(Notice::Extend(stop.budget + LAST_STEPS));
    }
    changes.push(Notice::Status(status_text(now)));
    changes
}

fn status_text(now: &Status) -> String {
    let state = match (&now.stop, now.link) {
        (Some(Stopping { draining: true, .. }), _) => "draining",
        (Some(_), _) => "stopping",
        (None, LinkState::Connecting) => "connecting",
        (None, LinkState::Up) => "connected",
        (None, LinkState::Away) => "waiting for the control plane",
    };
    let refusal = now.refusal.as_ref().filter(|_| now.link == LinkState::Away);
    let refusal = refusal.map(|reason| format!("; {reason}")).unwrap_or_default();
    let engine = now.engine_away.as_ref().map(|reason| format!("; {reason}")).unwrap_or_default();
    // A status is one line.
    format!("{state}, tasks: {}{refusal}{engine}", now.tasks).replace(char::is_control, " ")
}

fn deliver(queued: &Receiver<Vec<Notice>>) {
    for notices in queued {
        let assignments: Vec<_> = notices.iter().map(assignment).collect();
        let states: Vec<_> = assignments.iter().map(|text| NotifyState::Custom(text)).collect();
        if let Err(error) = sd_notify::notify(&states) {
            warn!("service manager not notified error={}", message(&error.to_string()));
        }
    }
}

/// Written by hand because `NotifyState::ExtendTimeoutUsec` is limited to 71 minutes, and a drain may take longer.
fn assignment(notice: &Notice) -> String {
    match notice {
        Notice::Ready => "READY=1".to_owned(),
        // A line break would begin another assignment.
        Notice::Status(text) => format!("STATUS={}", text.replace('\n', " ")),
        Notice::Stopping => "STOPPING=1".to_owned(),
        Notice::Extend(time) => format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::cli::SETTINGS;
    use crate::coordinator::{Coordinator, Event, Rules};
    use crate::policy::LostRuns;

    fn status(link: LinkState, tasks: usize) -> Status {
        Status { link, refusal: None, engine_away: None, tasks, stop: None }
    }

    fn stopping(draining: bool) -> Status {
        let stop = Some(Stopping { draining, budget: Duration::from_secs(7 * 24 * 60 * 60) });
        Status { stop, ..status(LinkState::Up, 2) }
    }

    fn texts(before: Option<&Status>, now: &Status) -> Vec<String> {
        let ready = before.is_some_and(|before| before.link != LinkState::Connecting);
        changes(before, now, ready).iter().map(assignment).collect()
    }

    #[test]
    fn ready_is_sent_once_after_the_first_connection_or_failed_attempt() {
        let connecting = status(LinkState::Connecting, 1);
        assert_eq!(texts(None, &connecting), ["STATUS=connecting, tasks: 1"]);
        let up = status(LinkState::Up, 1);
        assert_eq!(texts(Some(&connecting), &up), ["READY=1", "STATUS=connected, tasks: 1"]);
        let away = status(LinkState::Away, 1);
        let expected = ["READY=1", "STATUS=waiting for the control plane, tasks: 1"];
        assert_eq!(texts(Some(&connecting), &away), expected);
        assert_eq!(texts(Some(&away), &up), ["STATUS=connected, tasks: 1"]);
        assert_eq!(texts(None, &up)[0], "READY=1");
        let refused = Status { refusal: Some("the control plane answered 404".to_owned()), ..away.clone() };
        let expected = ["STATUS=waiting for the control plane, tasks: 1; the control plane answered 404"];
        assert_eq!(texts(Some(&away), &refused), expected);
    }

    #[test]
    fn the_status_tells_on_one_line_why_the_engine_cannot_be_used() {
        let engine_away = Some("the docker engine refuses\nAPI version 1.47".to_owned());
        let away = Status { engine_away, ..status(LinkState::Up, 1) };
        let expected = ["STATUS=connected, tasks: 1; the docker engine refuses API version 1.47"];
        assert_eq!(texts(Some(&status(LinkState::Up, 1)), &away), expected);
    }

    #[test]
    fn a_stop_is_sent_once_with_its_longest_time() {
        let up = status(LinkState::Up, 2);
        let expected = ["STOPPING=1", "EXTEND_TIMEOUT_USEC=604810000000", "STATUS=draining, tasks: 2"];
        assert_eq!(texts(Some(&up), &stopping(true)), expected);
        assert_eq!(texts(Some(&stopping(true)), &stopping(false)), ["STATUS=stopping, tasks: 2"]);
    }

    #[test]
    fn a_worker_that_waits_for_the_engine_is_ready_once() {
        let (messages, queued) = bounded(8);
        let mut notifier =
            Notifier { messages: Some(messages), last_sent: None, ready: false, ended: bounded(0).1 };
        notifier.tell_no_engine("no such\nfile");
        notifier.tell_no_engine("refused");
        notifier.tell(&status(LinkState::Connecting, 0));
        notifier.tell(&status(LinkState::Up, 0));
        let sent: Vec<String> = queued.try_iter().flatten().map(|notice| assignment(&notice)).collect();
        let expected = [
            "READY=1",
            "STATUS=waiting for the engine: no such file",
            "STATUS=waiting for the engine: refused",
            "STATUS=connecting, tasks: 0",
            "STATUS=connected, tasks: 0",
        ];
        assert_eq!(sent, expected);
    }

    /// The unit and the manual name the longest time of a stop with the default settings, for those that the worker cannot tell.
    #[test]
    fn the_unit_and_the_manual_allow_enough_time_for_a_stop() {
        let limit = |setting: &str| {
            let setting = SETTINGS.iter().find(|other| other.flag == Some(setting)).unwrap();
            match setting.default {
                Some("5m") => Duration::from_secs(300),
                Some("10s") => Duration::from_secs(10),
                other => panic!("{other:?}"),
            }
        };
        let mut coordinator = Coordinator::new(Rules {
            slots: 1,
            task_timeout: Duration::ZERO,
            drain_timeout: limit("--drain-timeout"),
            stop_grace: limit("--stop-grace"),
            reconcile_interval: Duration::ZERO,
            lost_runs: LostRuns::Stop,
            check_disk: false,
            late_sweep_after: Duration::ZERO,
            shared_id: false,
        });
        coordinator.handle(Event::Signal, Instant::now());
        let seconds = (coordinator.status().stop.unwrap().budget + LAST_STEPS).as_secs();
        let unit = include_str!("../../packaging/systemd/oz-agent-worker.service.in");
        assert!(unit.contains(&format!("\nTimeoutStopSec={seconds}s\n")), "{seconds}");
        let manual = include_str!("../cli/docs/manual/stopping.md");
        for text in [
            format!("docker stop -t {seconds}`"),
            format!("terminationGracePeriodSeconds: {seconds}`"),
            format!("stop_grace_period: {seconds}s`"),
        ] {
            assert!(manual.contains(&text), "{text}");
        }
    }

    #[test]
    fn a_full_queue_drops_the_change_and_sends_it_with_the_next() {
        let (messages, queued) = bounded(1);
        let mut notifier =
            Notifier { messages: Some(messages), last_sent: None, ready: false, ended: bounded(0).1 };
        notifier.tell(&status(LinkState::Connecting, 0));
        notifier.tell(&status(LinkState::Up, 0));
        notifier.tell(&status(LinkState::Up, 0));
        assert_eq!(queued.try_iter().count(), 1);
        notifier.tell(&status(LinkState::Up, 1));
        let expected = [Notice::Ready, Notice::Status("connected, tasks: 1".to_owned())];
        assert_eq!(queued.try_iter().collect::<Vec<_>>(), [expected]);
    }
}
