//! Connection after connection: dial, run, wait, again; until the end is asked for or no attempt can help.
//!
//! Owns the epoch and the log lines of the link. It must not know frames.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use http::Uri;
use log::{info, warn};

use super::dial::{DialError, dial};
use super::outbox::Inbox;
use super::session::{End, Session};
use super::timers::{Backoff, Next};
use super::wait::wait;
use super::{Epoch, LinkConfig, LinkError, LinkEvent};
use crate::logging::{message, value};

/// The body of the link's thread.
pub(super) fn supervise(link: &LinkConfig, inbox: Inbox, events: &Sender<LinkEvent>) {
    let last = Supervisor {
        link,
        inbox: Rc::new(inbox),
        events,
        backoff: Backoff::new(&link.timing, link.max_attempts, link.window),
        epoch: Epoch(0),
    }
    .run();
    if let Some(event) = last {
        // Whoever dropped the receiver does not want to know.
        let _ = events.send(event);
    }
}

struct Supervisor<'a> {
    link: &'a LinkConfig,
    inbox: Rc<Inbox>,
    events: &'a Sender<LinkEvent>,
    backoff: Backoff,
    epoch: Epoch,
}

impl Supervisor<'_> {
    /// Gives the last event; none when nobody listens.
    fn run(mut self) -> Option<LinkEvent> {
        let url = shown(&self.link.url);
        loop {
            info!("connecting url={}", value(&url));
            let (why, next) = match dial(self.link, &self.inbox) {
                Err(DialError::Permanent(error)) => return Some(LinkEvent::Fatal(error)),
                Err(DialError::Closing) => return Some(LinkEvent::Closed),
                Err(DialError::Transient(why)) => {
                    self.notice_stop_waiting();
                    let next = self.backoff.failed(Instant::now(), random());
                    if self.epoch == Epoch(0) && matches!(next, Next::Retry { attempt: 1, .. }) {
                        self.events.send(LinkEvent::Failed).ok()?;
                    }
                    (format!("connecting failed: {why}"), next)
                }
                Ok(socket) => {
                    let up = Instant::now();
                    self.epoch.0 += 1;
                    info!("connected url={} epoch={}", value(&url), self.epoch.0);
                    self.events.send(LinkEvent::Up { epoch: self.epoch }).ok()?;
                    match Session::new(socket, &self.inbox, self.events, self.link, self.epoch).run() {
                        End::Abandoned => return None,
                        End::Closed => return Some(LinkEvent::Closed),
                        End::Lost(_) if self.inbox.closing() => return Some(LinkEvent::Closed),
                        End::Lost(why) => {
                            self.notice_stop_waiting();
                            self.events.send(LinkEvent::Down { why: why.clone() }).ok()?;
                            let now = Instant::now();
                            (why, self.backoff.ended(now - up, now, random()))
                        }
                    }
                }
            };
            if let Some(last) = self.follow(why, next) {
                return Some(last);
            }
        }
    }

    /// Whether the link was told to stop_waiting since the last look.
    fn notice_stop_waiting(&mut self) -> bool {
        let stop_waiting_requested = self.inbox.stop_waiting_requested();
        if stop_waiting_requested {
            self.backoff.stop_waiting();
        }
        stop_waiting_requested
    }

    fn follow(&mut self, why: String, next: Next) -> Option<LinkEvent> {
        match next {
            Next::GiveUp { failures } => Some(LinkEvent::Fatal(LinkError::GaveUp { failures, why })),
            Next::Retry { delay, attempt } => {
                warn!("connection lost why={} retry_in={delay:.1?} attempt={attempt}", message(&why));
                self.pause(delay).then_some(LinkEvent::Closed)
            }
        }
    }

    /// Waits, unless haste is asked for meanwhile; `true` says that the end was asked for. What is queued meanwhile can only
    /// be for a connection that has ended.
    fn pause(&mut self, delay: Duration) -> bool {
        let until = Instant::now() + delay;
        while !self.inbox.closing() {
            self.inbox.discard_queued();
            if Instant::now() >= until || self.notice_stop_waiting() {
                return false;
            }
            match wait(&*self.inbox, None, until) {
                Ok(woken) if woken.waker => self.inbox.clear(),
                Ok(_) => {}
                // Without poll(2) there is still the pause to keep.
                Err(_) => std::thread::sleep(until.saturating_duration_since(Instant::now())),
            }
        }
        true
    }
}

/// Of no use for secrets, and good enough to spread workers.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The URL without its query and user info, which may hold what is not for the log.
fn shown(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{host}{port}{}", url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_shown_without_query_and_user_info() {
        let url: Uri = "wss://me:secret@[::1]:8443/a/b?worker_id=w&token=secret".parse().unwrap();
        assert_eq!(shown(&url), "wss://[::1]:8443/a/b");
        assert_eq!(shown(&"ws://h/".parse().unwrap()), "ws://h/");
    }

    #[test]
    fn randomness_is_not_always_the_same() {
        let first = random();
        assert!((0..100).any(|_| random() != first));
    }
}
