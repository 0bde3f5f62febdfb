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
        let mut notifier = Self { messages: None, last_sent: None, ended };
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
        if messages.try_send(changes(self.last_sent.as_ref(), now)).is_ok() {
            self.last_sent = Some(now.clone());
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.messages = None;
        // Fails once the thread has ended, or when the service manager does not read.
        let _ = self.ended.recv_timeout(LAST_CHANGES);
    }
}

/// Returns what changed since `before`.
///
/// A worker is ready once it is connected, or once its first attempt failed and it tries again: services that start after it
/// need not wait for the control plane. A permanently refused worker is never ready.
fn changes(before: Option<&Status>, now: &Status) -> Vec<Notice> {
    let mut changes = Vec::new();
    let is_connecting = |status: &Status| status.link == LinkState::Connecting;
    if !is_connecting(now) && before.is_none_or(is_connecting) {
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
        Notice::Status(text) => format!("STATUS={text}"),
        Notice::Stopping => "STOPPING=1".to_owned(),
        Notice::Extend(time) => format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(link: LinkState, tasks: usize) -> Status {
        Status { link, refusal: None, engine_away: None, tasks, stop: None }
    }

    fn stopping(draining: bool) -> Status {
        let stop = Some(Stopping { draining, budget: Duration::from_secs(7 * 24 * 60 * 60) });
        Status { stop, ..status(LinkState::Up, 2) }
    }

    fn texts(before: Option<&Status>, now: &Status) -> Vec<String> {
        changes(before, now).iter().map(assignment).collect()
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
    fn a_full_queue_drops_the_change_and_sends_it_with_the_next() {
        let (messages, queued) = bounded(1);
        let mut notifier = Notifier { messages: Some(messages), last_sent: None, ended: bounded(0).1 };
        notifier.tell(&status(LinkState::Connecting, 0));
        notifier.tell(&status(LinkState::Up, 0));
        notifier.tell(&status(LinkState::Up, 0));
        assert_eq!(queued.try_iter().count(), 1);
        notifier.tell(&status(LinkState::Up, 1));
        let expected = [Notice::Ready, Notice::Status("connected, tasks: 1".to_owned())];
        assert_eq!(queued.try_iter().collect::<Vec<_>>(), [expected]);
    }
}
