//! What a service manager is told (sd_notify): that the worker is ready, how it stands, and that it is stopping and for how
//! long that may take.
//!
//! Owns the words and the thread that says them. It must not know how a state comes about.
//!
//! A service manager that does not read must not stop the thread that claims tasks and sends reports, so that one only
//! queues: what finds no place is dropped. systemd waits for a stop as long as it is told here, so its `TimeoutStopSec`
//! need not follow the worker's drain time.

use std::io;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::warn;
use sd_notify::NotifyState;

use crate::coordinator::{LinkState, Status, Stopping};
use crate::logging::message;
use crate::sys::pool::spawn_detached;

/// The variable that says where a service manager listens; without it there is none.
pub const VARIABLE: &str = "NOTIFY_SOCKET";

/// Messages that wait, at most: more than a service manager that is well leaves unread.
const MESSAGES: usize = 256;

/// From the end of a stop's own deadlines to that of the process, with time to spare.
const LAST_STEPS: Duration = Duration::from_secs(10);

/// Tells the service manager what has changed; without one it does nothing.
pub struct Notifier {
    messages: Option<Sender<Vec<Notice>>>,
    told: Option<Status>,
}

/// One assignment of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Notice {
    Ready,
    Status(String),
    Stopping,
    /// The present step ends within that time.
    Extend(Duration),
}

impl Notifier {
    /// With `wanted`, starts the thread `oz-notify`, which lasts as long as the process. Whom it talks to is in [`VARIABLE`].
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start(wanted: bool) -> io::Result<Self> {
        let mut notifier = Self { messages: None, told: None };
        if wanted {
            let (messages, queued) = bounded(MESSAGES);
            spawn_detached("oz-notify", move || say(&queued))?;
            notifier.messages = Some(messages);
        }
        Ok(notifier)
    }

    /// Says what is new; never blocks. What could not be queued is tried again with the next change.
    pub fn tell(&mut self, now: &Status) {
        let Some(messages) = self.messages.as_ref().filter(|_| self.told.as_ref() != Some(now)) else {
            return;
        };
        if messages.try_send(changes(self.told.as_ref(), now)).is_ok() {
            self.told = Some(now.clone());
        }
    }
}

/// What is new since `before`.
///
/// Ready is a worker that has a connection, or has found that one can be had only later: then it goes on trying, and whoever
/// waits for its start need not. One that is refused for good has never been ready.
fn changes(before: Option<&Status>, now: &Status) -> Vec<Notice> {
    let mut changes = Vec::new();
    let connecting = |status: &Status| status.link == LinkState::Connecting;
    if !connecting(now) && before.is_none_or(connecting) {
        changes.push(Notice::Ready);
    }
    if let (Some(stop), None) = (&now.stop, before.and_then(|before| before.stop.as_ref())) {
        changes.push(Notice::Stopping);
        changes.push(Notice::Extend(stop.budget + LAST_STEPS));
    }
    changes.push(Notice::Status(status(now)));
    changes
}

fn status(now: &Status) -> String {
    let state = match (&now.stop, now.link) {
        (Some(Stopping { draining: true, .. }), _) => "draining",
        (Some(_), _) => "stopping",
        (None, LinkState::Connecting) => "connecting",
        (None, LinkState::Up) => "connected",
        (None, LinkState::Away) => "waiting for the control plane",
    };
    format!("{state}, tasks: {}", now.tasks)
}

fn say(queued: &Receiver<Vec<Notice>>) {
    for notices in queued {
        let notices: Vec<_> = notices.iter().map(notice).collect();
        let states: Vec<_> = notices.iter().map(|text| NotifyState::Custom(text)).collect();
        if let Err(error) = sd_notify::notify(&states) {
            warn!("service manager not told error={}", message(&error.to_string()));
        }
    }
}

/// As sd_notify(3) has it. `NotifyState::ExtendTimeoutUsec` ends at 71 minutes, which is a short drain.
fn notice(notice: &Notice) -> String {
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
        Status { link, tasks, stop: None }
    }

    fn stopping(draining: bool) -> Status {
        let stop = Some(Stopping { draining, budget: Duration::from_secs(7 * 24 * 60 * 60) });
        Status { stop, ..status(LinkState::Up, 2) }
    }

    fn texts(before: Option<&Status>, now: &Status) -> Vec<String> {
        changes(before, now).iter().map(notice).collect()
    }

    #[test]
    fn ready_is_told_once_with_the_first_connection_or_the_first_attempt_that_failed() {
        let connecting = status(LinkState::Connecting, 1);
        assert_eq!(texts(None, &connecting), ["STATUS=connecting, tasks: 1"]);
        let up = status(LinkState::Up, 1);
        assert_eq!(texts(Some(&connecting), &up), ["READY=1", "STATUS=connected, tasks: 1"]);
        let away = status(LinkState::Away, 1);
        let expected = ["READY=1", "STATUS=waiting for the control plane, tasks: 1"];
        assert_eq!(texts(Some(&connecting), &away), expected);
        assert_eq!(texts(Some(&away), &up), ["STATUS=connected, tasks: 1"]);
        assert_eq!(texts(None, &up)[0], "READY=1");
    }

    #[test]
    fn a_stop_is_told_once_with_its_time() {
        let up = status(LinkState::Up, 2);
        let expected = ["STOPPING=1", "EXTEND_TIMEOUT_USEC=604810000000", "STATUS=draining, tasks: 2"];
        assert_eq!(texts(Some(&up), &stopping(true)), expected);
        assert_eq!(texts(Some(&stopping(true)), &stopping(false)), ["STATUS=stopping, tasks: 2"]);
    }

    #[test]
    fn a_reader_that_is_stuck_costs_no_more_than_its_messages() {
        let (messages, queued) = bounded(1);
        let mut notifier = Notifier { messages: Some(messages), told: None };
        notifier.tell(&status(LinkState::Connecting, 0));
        notifier.tell(&status(LinkState::Up, 0));
        notifier.tell(&status(LinkState::Up, 0));
        assert_eq!(queued.try_iter().count(), 1);
        notifier.tell(&status(LinkState::Up, 1));
        let expected = [Notice::Ready, Notice::Status("connected, tasks: 1".to_owned())];
        assert_eq!(queued.try_iter().collect::<Vec<_>>(), [expected]);
    }
}
