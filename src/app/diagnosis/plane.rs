//! The steps on the way to the control plane: names, TCP, a proxy, TLS, the key, and REST.

use std::time::{Duration, SystemTime};

use crossbeam_channel::unbounded;
use time::OffsetDateTime;

use super::report::Step;
use crate::app::deadline::within;
use crate::control_plane::rest::{ControlPlane, Health, LookupError};
use crate::control_plane::tls::CertificateFacts;
use crate::control_plane::ws::{LinkConfig, NotConnected, Passed, Timing, probe, proxy_of};
use crate::logging::value;

/// How long the TCP connection may take, and the whole attempt.
const CONNECT: Duration = Duration::from_secs(5);
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(5);
/// Added to a limit that the work knows itself.
const MARGIN: Duration = Duration::from_secs(2);
/// A difference between the clocks that is a warning, in seconds.
const CLOCKS: i64 = 30;
/// A certificate that is valid for fewer days is a warning.
const RENEW: i32 = 14;

/// How a connection is made.
pub(super) struct Way {
    /// The host and the port of the control plane.
    pub(super) peer: String,
    pub(super) tls: bool,
    /// The proxy's URL.
    pub(super) proxy: Option<String>,
    /// Why it is a risk that there is no TLS.
    pub(super) plain: Option<String>,
}

/// Connects with the key, and disconnects at once.
pub(super) fn connect(link: LinkConfig, plain: Option<String>) -> Vec<Step> {
    let timing = Timing { connect: CONNECT, handshake: ATTEMPT, ..Timing::default() };
    let link = LinkConfig { timing, ..link };
    let way = Way {
        peer: link.url.authority().map(ToString::to_string).unwrap_or_default(),
        tls: link.url.scheme_str() == Some("wss"),
        proxy: proxy_of(&link),
        plain,
    };
    let (sender, passed) = unbounded();
    let attempt = move |_: &_| {
        // Fails once the time is over.
        probe(&link, &|step| drop(sender.send(step)))
    };
    let result = within(ATTEMPT + MARGIN, attempt);
    judge(&way, passed.try_iter().collect(), result)
}

/// Returns the steps of an attempt, as far as it has come. Without a result there was none in time.
fn judge(way: &Way, passed: Vec<Passed>, result: Option<Result<(), NotConnected>>) -> Vec<Step> {
    let mut left = vec!["dns", "tcp"];
    left.extend(way.proxy.as_ref().map(|_| "proxy"));
    left.extend(way.tls.then_some("tls"));
    left.push("key");
    let peer = way.proxy.as_ref().unwrap_or(&way.peer);
    let mut steps = Vec::new();
    for step in passed {
        let step = match step {
            Passed::Resolved(addresses) => {
                let addresses: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
                Step::ok("dns", format!("{peer} is {}", addresses.join(", ")))
            }
            Passed::Connected(address) => Step::ok("tcp", format!("connected to {address}")),
            Passed::Tunnelled => Step::ok("proxy", format!("{peer} opens a tunnel to {}", way.peer)),
            Passed::Secured(der) => tls(CertificateFacts::of(&der)),
        };
        left.retain(|name| *name != step.name);
        steps.push(step);
    }
    let next = left.first().copied().unwrap_or("key");
    let connected = matches!(result, Some(Ok(())));
    if way.proxy.is_none() && (connected || next == "key" || next == "tls") {
        steps.push(Step::ok("proxy", "none is used"));
    }
    if !way.tls && (connected || next == "key") {
        steps.push(match &way.plain {
            Some(reason) => Step::warning("tls", reason),
            None => Step::ok("tls", "not used, and the control plane is on this host"),
        });
    }
    steps.push(match result {
        Some(Ok(())) => Step::ok("key", "the control plane accepts the API key"),
        Some(Err(error)) => Step::failed(next, refusal(&error)),
        None => {
            Step::failed(next, format!("no answer within {ATTEMPT:?}; check the network and its firewalls"))
        }
    });
    steps
}

fn tls(facts: Option<CertificateFacts>) -> Step {
    let Some(CertificateFacts { issuer, not_before, not_after, days_left }) = facts else {
        return Step::ok("tls", "the certificate verifies");
    };
    let text = format!("valid from {not_before} to {not_after}, issuer {}", value(&issuer));
    if days_left < RENEW {
        return Step::warning("tls", format!("{text}; renew it, it expires in {days_left} days"));
    }
    Step::ok("tls", text)
}

/// Returns the reason with all that the answer says.
fn refusal(error: &NotConnected) -> String {
    let NotConnected { reason, body, error, retry_after } = error;
    let mut text = reason.clone();
    if !error.is_empty() {
        text.push_str(&format!("; header {error:?}"));
    }
    if let Some(time) = retry_after {
        text.push_str(&format!("; Retry-After {} s", time.as_secs()));
    }
    if !body.is_empty() {
        text.push_str(&format!("; answer {body:?}"));
    }
    text
}

/// Asks for the health, compares the clocks, and makes a look-up as the worker does.
pub(super) fn rest(plane: &ControlPlane, url: &str, run: String) -> Vec<Step> {
    let asked = plane.clone();
    let health = within(REQUEST + MARGIN, move |_| asked.health(REQUEST));
    let now = SystemTime::now().into();
    let asked = plane.clone();
    let found = within(REQUEST + MARGIN, move |_| asked.look_up(&run, REQUEST).map(drop));
    let mut steps = vec![well(url, health.as_ref())];
    steps.extend(health.and_then(Result::ok).and_then(|health| clocks(health.date?, now)));
    steps.push(reached(url, found));
    steps
}

fn well(url: &str, health: Option<&Result<Health, LookupError>>) -> Step {
    match health {
        Some(Ok(Health { status: 200, .. })) => Step::ok("health", format!("{url}/health answers 200")),
        Some(Ok(Health { status, .. })) => Step::warning(
            "health",
            format!("{url}/health answers {status}; check --rest-url, or ask its operator"),
        ),
        Some(Err(error)) => Step::warning("health", error.to_string()),
        None => Step::warning("health", format!("{url}/health does not answer within {REQUEST:?}")),
    }
}

fn clocks(theirs: OffsetDateTime, now: OffsetDateTime) -> Option<Step> {
    let seconds = (now - theirs).whole_seconds();
    Some(match seconds {
        // A date has whole seconds, and the answer was on its way.
        -2..=2 => Step::ok("clock", "as the control plane's"),
        _ => {
            let relation = if seconds > 0 { "ahead of" } else { "behind" };
            let text = format!("{} s {relation} the control plane's", seconds.abs());
            if seconds.abs() > CLOCKS {
                Step::warning("clock", format!("{text}; synchronise the clock of this host (timedatectl)"))
            } else {
                Step::ok("clock", text)
            }
        }
    })
}

/// A look-up of a run that does not exist.
fn reached(url: &str, found: Option<Result<(), LookupError>>) -> Step {
    let lost = "the worker runs, but cannot see whether its claims and reports are stored; check --rest-url";
    match found {
        Some(Ok(()) | Err(LookupError::Unknown)) => Step::ok("rest", format!("the worker reaches {url}")),
        Some(Err(error @ LookupError::Refused { .. })) => Step::failed("rest", error.to_string()),
        Some(Err(error)) => Step::warning("rest", format!("{error}; {lost}")),
        None => Step::warning("rest", format!("{url} does not answer within {REQUEST:?}; {lost}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    fn way(tls: bool, proxy: Option<&str>) -> Way {
        Way { peer: "h:1".into(), tls, proxy: proxy.map(str::to_owned), plain: None }
    }

    fn error(reason: &str) -> NotConnected {
        NotConnected { reason: reason.into(), body: String::new(), error: String::new(), retry_after: None }
    }

    fn names(steps: &[Step]) -> Vec<(&str, State)> {
        steps.iter().map(|step| (step.name, step.state)).collect()
    }

    #[test]
    fn the_step_after_the_last_one_that_passed_has_failed() {
        let address = "10.0.0.1:1".parse().unwrap();
        let (resolved, connected) = (Passed::Resolved(vec![address]), Passed::Connected(address));
        let failed = |passed: &[Passed], way: &Way| {
            let steps = judge(way, passed.to_vec(), Some(Err(error("why"))));
            let last = steps.last().unwrap();
            assert_eq!((last.state, last.text.as_str()), (State::Failed, "why"), "{steps:?}");
            last.name
        };
        let (plain, proxied) = (way(false, None), way(true, Some("http://p:2")));
        let all = [resolved, connected, Passed::Tunnelled, Passed::Secured(Vec::new())];
        assert_eq!([0, 1, 2].map(|count| failed(&all[..count], &plain)), ["dns", "tcp", "key"]);
        let expected = ["dns", "tcp", "proxy", "tls", "key"];
        assert_eq!([0, 1, 2, 3, 4].map(|count| failed(&all[..count], &proxied)), expected);
        assert_eq!(failed(&all[..2], &way(true, None)), "tls");
        let silent = judge(&proxied, all[..2].to_vec(), None);
        assert!(silent.last().unwrap().text.starts_with("no answer within 10s"), "{silent:?}");
        let steps = judge(&proxied, all.to_vec(), Some(Ok(())));
        assert_eq!(names(&steps), expected.map(|name| (name, State::Ok)));
    }

    #[test]
    fn a_connection_without_tls_to_another_host_is_a_warning() {
        let address = "10.0.0.1:1".parse().unwrap();
        let passed = || vec![Passed::Resolved(vec![address]), Passed::Connected(address)];
        let risky = Way { plain: Some("not encrypted".into()), ..way(false, None) };
        let steps = judge(&risky, passed(), Some(Ok(())));
        let ok = State::Ok;
        let expected = [("dns", ok), ("tcp", ok), ("proxy", ok), ("tls", State::Warning), ("key", ok)];
        assert_eq!(names(&steps), expected);
        assert_eq!(judge(&way(false, None), passed(), Some(Ok(())))[3].state, ok);
    }

    #[test]
    fn a_refusal_shows_all_that_the_answer_says_on_one_line() {
        let error = NotConnected {
            body: "no\nkey".into(),
            error: "X-Error: bad".into(),
            retry_after: Some(Duration::from_secs(7)),
            ..error("answered 401")
        };
        let expected = r#"answered 401; header "X-Error: bad"; Retry-After 7 s; answer "no\nkey""#;
        assert_eq!(refusal(&error), expected);
    }

    #[test]
    fn clocks_that_differ_by_more_than_half_a_minute_are_a_warning() {
        let step = |ahead: i64| {
            let now = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1000);
            clocks(now - time::Duration::seconds(ahead), now).unwrap()
        };
        assert_eq!([0, 2, -2, 30, -30].map(|ahead| step(ahead).state), [State::Ok; 5]);
        assert_eq!([31, -31].map(|ahead| step(ahead).state), [State::Warning; 2]);
        assert!(step(90).text.starts_with("90 s ahead of") && step(-90).text.starts_with("90 s behind"));
    }

    #[test]
    fn a_certificate_that_expires_soon_is_a_warning() {
        let facts = |days_left| CertificateFacts {
            issuer: "CN=a b".into(),
            not_before: "x".into(),
            not_after: "y".into(),
            days_left,
        };
        let step = tls(Some(facts(14)));
        assert_eq!((step.state, step.text.as_str()), (State::Ok, "valid from x to y, issuer \"CN=a b\""));
        assert_eq!(tls(Some(facts(13))).state, State::Warning);
    }

    #[test]
    fn without_rest_a_worker_runs_but_a_refused_key_is_a_failure() {
        let at = || "http://h:1".to_owned();
        let state = |found| reached("u", found).state;
        assert_eq!(state(Some(Err(LookupError::Unknown))), State::Ok);
        assert_eq!(state(Some(Err(LookupError::Refused { at: at(), status: 401 }))), State::Failed);
        assert_eq!(state(Some(Err(LookupError::Status { at: at(), status: 500 }))), State::Warning);
        assert_eq!(state(None), State::Warning);
        let health = |status| well("u", Some(&Ok(Health { status, date: None }))).state;
        assert_eq!((health(200), health(404)), (State::Ok, State::Warning));
    }
}
