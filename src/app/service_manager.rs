//! Reports the worker's readiness, status and maximum stop time to the service manager, with sd_notify(3).
//!
//! systemd waits for a stop for the reported time, so `TimeoutStopSec` need not follow the drain timeout.

use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::warn;
use sd_notify::NotifyState;

use crate::coordinator::{LinkState, Status, Stopping};
use crate::exit::Exit;
use crate::logging::message;
use crate::net::digits::number;
use crate::sys::cancel::Never;
use crate::sys::environment::Environment;
use crate::sys::pool::spawn_detached;

/// The variable with the service manager's socket; unset without one.
const SOCKET: &str = "NOTIFY_SOCKET";

/// The variables with the time, in microseconds, within which the service manager wants to hear of the process, and with the id
/// of the process that is meant.
const WATCHDOG: [&str; 2] = ["WATCHDOG_USEC", "WATCHDOG_PID"];

/// The capacity of the queue. With a working service manager it never fills.
const MESSAGES: usize = 256;

/// Added to the longest time of a stop, for closing the link and exiting.
const LAST_STEPS: Duration = Duration::from_secs(10);

/// How long a drop waits for the last changes to be sent.
const LAST_CHANGES: Duration = Duration::from_secs(1);

/// How long an attempt to find the engine and the tasks on it may take. Its calls have shorter deadlines.
const ATTEMPT: Duration = Duration::from_secs(20 * 60);

/// Tells the service manager about changes of the worker's status; does nothing without a service manager.
pub struct Notifier {
    messages: Option<Sender<Vec<Notice>>>,
    last_sent: Option<Status>,
    /// Readiness was sent.
    ready: bool,
    /// Within what time the service manager wants to hear of the process; `None` if it does not.
    watchdog: Option<Duration>,
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
    /// The worker goes on.
    Watchdog,
    /// The worker goes on until this time, and need not say so itself.
    Busy(Instant),
}

impl Notifier {
    /// If the environment names a service manager, starts the thread `oz-notify`, which lasts as long as the notifier and writes to
    /// that.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(environment: &Environment) -> io::Result<Self> {
        let (running, ended) = bounded(0);
        let watchdog = watchdog(environment);
        let mut notifier = Self { messages: None, last_sent: None, ready: false, watchdog, ended };
        if environment.get(SOCKET).is_some() {
            let (messages, queued) = bounded(MESSAGES);
            spawn_detached("oz-notify", move || {
                let _running: Sender<Never> = running;
                deliver(&queued, watchdog);
            })?;
            notifier.messages = Some(messages);
        }
        Ok(notifier)
    }

    /// Returns how often to call [`Notifier::goes_on`]; `None` if that is not wanted.
    pub fn interval(&self) -> Option<Duration> {
        self.watchdog.map(|watchdog| watchdog / 2)
    }

    /// Queues that the worker goes on, if the service manager wants to hear that.
    pub fn goes_on(&self) {
        if let Some(messages) = self.messages.as_ref().filter(|_| self.watchdog.is_some()) {
            // With a full queue the service manager does not read.
            let _ = messages.try_send(vec![Notice::Watchdog]);
        }
    }

    /// Queues why the worker ends. It is the last status.
    pub fn tell_end(&mut self, exit: Exit, reason: &str) {
        let what = match exit {
            Exit::Refused => "refused",
            Exit::Engine => "engine not usable",
            _ => "ended",
        };
        if let Some(messages) = &self.messages {
            let _ = messages.try_send(vec![Notice::Status(one_line(&format!("{what}: {reason}")))]);
        }
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
        let status = Notice::Status(one_line(&format!("waiting for the engine: {reason}")));
        let busy = self.watchdog.map(|_| Notice::Busy(Instant::now() + ATTEMPT));
        self.ready |= messages.try_send(ready.into_iter().chain([status]).chain(busy).collect()).is_ok();
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
    let error = now.stop.as_ref().and_then(|stop| stop.reason.as_ref());
    let refusal = now.refusal.as_ref().filter(|_| now.link == LinkState::Away && error.is_none());
    let refusal = refusal.map(|reason| format!("refused: {reason}"));
    let problems = [error, refusal.as_ref(), now.engine_away.as_ref(), now.disk_low.as_ref()];
    let problems = problems.into_iter().flatten().map(|reason| format!("; {reason}"));
    one_line(&format!("{state}, tasks: {} of {}{}", now.tasks, now.slots, problems.collect::<String>()))
}

/// A status is one line.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Returns within what time the service manager wants to hear of this process.
fn watchdog(environment: &Environment) -> Option<Duration> {
    let number = |name| environment.get(name)?.to_str().and_then(number);
    let [time, process] = WATCHDOG.map(number);
    let is_own = process.is_none_or(|process| process == u64::from(std::process::id()));
    time.filter(|time| *time > 0 && is_own).map(Duration::from_micros)
}

/// Writes what is queued. While the worker is busy, also tells within each `watchdog` that it goes on.
fn deliver(queued: &Receiver<Vec<Notice>>, watchdog: Option<Duration>) {
    let mut busy_until = None;
    loop {
        let now = Instant::now();
        let pause = watchdog.filter(|_| busy_until.is_some_and(|until| now < until));
        let next = match pause {
            Some(watchdog) => queued.recv_timeout(watchdog / 2),
            None => queued.recv().map_err(RecvTimeoutError::from),
        };
        let notices = match next {
            Ok(notices) => notices,
            Err(RecvTimeoutError::Timeout) => vec![Notice::Watchdog],
            Err(RecvTimeoutError::Disconnected) => return,
        };
        busy_until = notices.iter().fold(busy_until, |until, notice| match notice {
            Notice::Busy(until) => Some(*until),
            Notice::Watchdog => until,
            _ => None,
        });
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
        Notice::Watchdog | Notice::Busy(_) => "WATCHDOG=1".to_owned(),
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
        Status { link, refusal: None, engine_away: None, disk_low: None, tasks, slots: 4, stop: None }
    }

    fn stopping(draining: bool) -> Status {
        let stop = Some(Stopping { draining, budget: Duration::from_secs(7 * 24 * 60 * 60), reason: None });
        Status { stop, ..status(LinkState::Up, 2) }
    }

    fn texts(before: Option<&Status>, now: &Status) -> Vec<String> {
        let ready = before.is_some_and(|before| before.link != LinkState::Connecting);
        changes(before, now, ready).iter().map(assignment).collect()
    }

    #[test]
    fn ready_is_sent_once_after_the_first_connection_or_failed_attempt() {
        let connecting = status(LinkState::Connecting, 1);
        assert_eq!(texts(None, &connecting), ["STATUS=connecting, tasks: 1 of 4"]);
        let up = status(LinkState::Up, 1);
        assert_eq!(texts(Some(&connecting), &up), ["READY=1", "STATUS=connected, tasks: 1 of 4"]);
        let away = status(LinkState::Away, 1);
        let expected = ["READY=1", "STATUS=waiting for the control plane, tasks: 1 of 4"];
        assert_eq!(texts(Some(&connecting), &away), expected);
        assert_eq!(texts(Some(&away), &up), ["STATUS=connected, tasks: 1 of 4"]);
        assert_eq!(texts(None, &up)[0], "READY=1");
        let refused = Status { refusal: Some("the control plane answered 404".to_owned()), ..away.clone() };
        let expected =
            ["STATUS=waiting for the control plane, tasks: 1 of 4; refused: the control plane answered 404"];
        assert_eq!(texts(Some(&away), &refused), expected);
    }

    #[test]
    fn the_status_tells_on_one_line_why_the_engine_cannot_be_used() {
        let engine_away = Some("the docker engine refuses\nAPI version 1.47".to_owned());
        let away = Status { engine_away, ..status(LinkState::Up, 1) };
        let expected = ["STATUS=connected, tasks: 1 of 4; the docker engine refuses API version 1.47"];
        assert_eq!(texts(Some(&status(LinkState::Up, 1)), &away), expected);
    }

    #[test]
    fn a_stop_is_sent_once_with_its_longest_time() {
        let up = status(LinkState::Up, 2);
        let expected = ["STOPPING=1", "EXTEND_TIMEOUT_USEC=604810000000", "STATUS=draining, tasks: 2 of 4"];
        assert_eq!(texts(Some(&up), &stopping(true)), expected);
        assert_eq!(texts(Some(&stopping(true)), &stopping(false)), ["STATUS=stopping, tasks: 2 of 4"]);
    }

    /// Returns a notifier and its queue, which has room for `size` notices.
    fn notifier(size: usize) -> (Notifier, Receiver<Vec<Notice>>) {
        let (messages, queued) = bounded(size);
        let messages = Some(messages);
        (Notifier { messages, last_sent: None, ready: false, watchdog: None, ended: bounded(0).1 }, queued)
    }

    #[test]
    fn a_worker_that_waits_for_the_engine_is_ready_once() {
        let (mut notifier, queued) = notifier(8);
        notifier.tell_no_engine("no such\nfile");
        notifier.tell_no_engine("refused");
        notifier.tell(&status(LinkState::Connecting, 0));
        notifier.tell(&status(LinkState::Up, 0));
        let sent: Vec<String> = queued.try_iter().flatten().map(|notice| assignment(&notice)).collect();
        let expected = [
            "READY=1",
            "STATUS=waiting for the engine: no such file",
            "STATUS=waiting for the engine: refused",
            "STATUS=connecting, tasks: 0 of 4",
            "STATUS=connected, tasks: 0 of 4",
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
            beat_every: Duration::ZERO,
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
        let (mut notifier, queued) = notifier(1);
        notifier.tell(&status(LinkState::Connecting, 0));
        notifier.tell(&status(LinkState::Up, 0));
        notifier.tell(&status(LinkState::Up, 0));
        assert_eq!(queued.try_iter().count(), 1);
        notifier.tell(&status(LinkState::Up, 1));
        let expected = [Notice::Ready, Notice::Status("connected, tasks: 1 of 4".to_owned())];
        assert_eq!(queued.try_iter().collect::<Vec<_>>(), [expected]);
    }
}
