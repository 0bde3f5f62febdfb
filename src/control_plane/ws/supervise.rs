//! The loop over connections: dials, runs the session and waits, until the link closes or gives up.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use http::Uri;
use log::{info, warn};

use super::dial::dial;
use super::error::{CHECK_URL, Details, DialError};
use super::outbox::Inbox;
use super::probe::proxy_of;
use super::session::{Session, SessionEnd};
use super::timers::{Backoff, Next};
use super::wait::wait;
use super::{Epoch, LinkConfig, LinkError, LinkEvent, Refused};
use crate::logging::{message, value};

/// How long an attempt to connect may take. It has shorter deadlines, but the resolver has its own.
const DIAL: Duration = Duration::from_secs(180);

/// Runs the link's thread until the link has closed, has failed permanently, or the receiver of `events` is dropped.
pub(super) fn supervise(link: &LinkConfig, inbox: Inbox, events: &Sender<LinkEvent>) {
    let supervisor = Supervisor {
        link,
        inbox: Rc::new(inbox),
        events,
        backoff: Backoff::new(&link.timing, link.max_attempts, link.window),
        epoch: Epoch(0),
        advised: false,
    };
    if let Ok(last) = supervisor.run() {
        // Fails if the receiver is dropped; then the event is not needed.
        let _ = events.send(last);
    }
}

struct Supervisor<'a> {
    link: &'a LinkConfig,
    inbox: Rc<Inbox>,
    events: &'a Sender<LinkEvent>,
    backoff: Backoff,
    epoch: Epoch,
    /// Whether the log has said what to check.
    advised: bool,
}

impl Supervisor<'_> {
    /// Returns the last event of the link.
    ///
    /// # Errors
    /// The receiver of the events is dropped.
    fn run(mut self) -> Result<LinkEvent, ReceiverDropped> {
        let url = redacted(&self.link.url);
        let proxy = proxy_of(self.link).map(|proxy| format!(" proxy={}", value(&proxy))).unwrap_or_default();
        loop {
            info!("connecting url={}{proxy}", value(&url));
            self.inbox.goes_on_by(Instant::now() + DIAL);
            let (line, reason, next) = match dial(self.link, &self.inbox) {
                Err(DialError::Permanent(error)) => return Ok(LinkEvent::Fatal(error)),
                Err(DialError::Closing) => return Ok(LinkEvent::Closed),
                Err(DialError::Transient(reason, details)) => {
                    self.not_connected(reason, &body_field(&details), details.retry_after)?
                }
                Err(DialError::Unreachable(reason)) => {
                    let note = self.note_field();
                    self.not_connected(reason, &note, None)?
                }
                Err(DialError::Refused(refusal, details)) => {
                    let next = self.failed(true, details.retry_after);
                    let reason = refusal.to_string();
                    let retry_in = match next {
                        Next::Retry { delay, .. } => Some(delay),
                        Next::GiveUp { .. } => None,
                    };
                    let body = details.body;
                    self.send(LinkEvent::Refused(Refused { refusal, body, retry_in }))?;
                    // The receiver logs it.
                    (None, reason, next)
                }
                Ok(socket) => {
                    let connected_at = Instant::now();
                    self.epoch.0 += 1;
                    info!("connected url={} epoch={}", value(&url), self.epoch.0);
                    self.send(LinkEvent::Up { epoch: self.epoch })?;
                    match Session::new(socket, &self.inbox, self.events, self.link, self.epoch).run() {
                        SessionEnd::ReceiverDropped => return Err(ReceiverDropped),
                        SessionEnd::Closed => return Ok(LinkEvent::Closed),
                        SessionEnd::Lost(_) if self.inbox.closing() => return Ok(LinkEvent::Closed),
                        SessionEnd::Lost(reason) => {
                            self.shorten_waits_if_asked();
                            self.send(LinkEvent::Down { reason: reason.clone() })?;
                            let now = Instant::now();
                            let next = self.backoff.ended(now - connected_at, now, random());
                            (Some(format!("connection lost reason={}", message(&reason))), reason, next)
                        }
                    }
                }
            };
            match next {
                Next::GiveUp { failures } => {
                    return Ok(LinkEvent::Fatal(LinkError::GaveUp { failures, reason }));
                }
                Next::Retry { delay, attempt } => {
                    if let Some(line) = line {
                        warn!("{line} retry_in={delay:.1?} attempt={attempt}");
                    }
                    self.pause(delay);
                }
            }
            if self.inbox.closing() {
                return Ok(LinkEvent::Closed);
            }
        }
    }

    /// Counts an attempt without a connection. Returns its log line, with further keys, the reason and what follows.
    fn not_connected(
        &mut self,
        reason: String,
        keys: &str,
        retry_after: Option<Duration>,
    ) -> Result<(Option<String>, String, Next), ReceiverDropped> {
        let next = self.failed(false, retry_after);
        self.send(LinkEvent::Failed)?;
        Ok((Some(format!("connecting failed reason={}{keys}", message(&reason))), reason, next))
    }

    /// Returns the key of a log line with what to check, once. A worker that was connected has no mistake in its URL.
    fn note_field(&mut self) -> String {
        if std::mem::replace(&mut self.advised, true) || self.epoch != Epoch(0) {
            return String::new();
        }
        format!(" note={}", value(CHECK_URL))
    }

    /// Counts a failed attempt and returns what follows.
    fn failed(&mut self, refused: bool, retry_after: Option<Duration>) -> Next {
        self.shorten_waits_if_asked();
        self.backoff.failed(refused, retry_after, Instant::now(), random())
    }

    fn send(&self, event: LinkEvent) -> Result<(), ReceiverDropped> {
        self.events.send(event).map_err(|_| ReceiverDropped)
    }

    /// Limits every later wait if the link was asked to stop waiting since the last call; returns whether it was.
    fn shorten_waits_if_asked(&mut self) -> bool {
        let asked = self.inbox.take_stop_waiting();
        if asked {
            self.backoff.stop_waiting();
        }
        asked
    }

    /// Waits for `delay`, or until the link is asked to stop waiting or to close. Drops messages queued during the wait:
    /// they are for a connection that has ended.
    fn pause(&mut self, delay: Duration) {
        let until = Instant::now() + delay;
        self.inbox.goes_on_by(until);
        while !self.inbox.closing() {
            self.inbox.discard_queued();
            if Instant::now() >= until || self.shorten_waits_if_asked() {
                return;
            }
            match wait(&*self.inbox, None, until) {
                Ok(woken) if woken.waker => self.inbox.clear_wake(),
                Ok(_) => {}
                // Without poll(2) the pause still prevents a busy loop.
                Err(_) => std::thread::sleep(until.saturating_duration_since(Instant::now())),
            }
        }
    }
}

/// Returns the key of a log line with the body of an answer, if it has one.
fn body_field(details: &Details) -> String {
    if details.body.is_empty() { String::new() } else { format!(" body={}", value(&details.body)) }
}

/// The receiver of the link's events was dropped.
struct ReceiverDropped;

/// Returns a number that spreads workers over time; it is not fit for secrets.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Returns the URL without user info and query, which may hold secrets.
fn redacted(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{host}{port}{}", url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redacted_url_has_no_query_and_no_user_info() {
        let url: Uri = "wss://me:secret@[::1]:8443/a/b?worker_id=w&token=secret".parse().unwrap();
        assert_eq!(redacted(&url), "wss://[::1]:8443/a/b");
        assert_eq!(redacted(&"ws://h/".parse().unwrap()), "ws://h/");
    }

    #[test]
    fn random_numbers_differ() {
        let first = random();
        assert!((0..100).any(|_| random() != first));
    }
}
