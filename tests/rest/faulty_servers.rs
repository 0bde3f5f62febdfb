//! Look-ups at servers that stall, disconnect, redirect or send wrong data. The key never leaks.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use oz_agent_worker::control_plane::rest::{AnswerError, ControlPlane, LookupError, RunPoller};
use oz_agent_worker::job::RunLookup;
use oz_agent_worker::logging::error_chain;
use oz_agent_worker::protocol::RunState;

use crate::link::{TIMEOUT, accept, api_key, hangs_up, in_own_process, listen, millis, request};
use crate::support::peer::Peer;

const KEY: &str = "hunter2-k3y";

fn plane(root: &str) -> ControlPlane {
    ControlPlane::new(root, &api_key(KEY)).unwrap()
}

fn http(url: &str) -> String {
    url.replace("ws://", "http://").replace("/ws?worker_id=w", "")
}

/// Looks up the run `r` at a server that runs `talk` after the request.
fn with(limit: Duration, talk: impl FnOnce(&mut Peer) + Send) -> Result<RunState, LookupError> {
    with_plane(|plane| plane, limit, talk)
}

fn with_plane(
    configure: impl FnOnce(ControlPlane) -> ControlPlane,
    limit: Duration,
    talk: impl FnOnce(&mut Peer) + Send,
) -> Result<RunState, LookupError> {
    let (listener, url) = listen();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = accept(&listener);
            let head = request(&mut stream);
            assert!(head.starts_with("GET /api/v1/agent/runs/r HTTP/1.1\r\n"), "{head}");
            let agent = format!("user-agent: oz-agent-worker/{} (linux; a", env!("CARGO_PKG_VERSION"));
            assert!(head.to_ascii_lowercase().contains(&agent), "{head}");
            talk(&mut stream);
        });
        configure(plane(&http(&url))).look_up("r", limit)
    });
    if let Err(error) = &result {
        let text = format!("{error} {error:?} {}", error_chain(error));
        assert!(!text.contains(KEY) && !text.contains("/api") && !text.contains('\n'), "{text}");
    }
    result.map(|run| run.state)
}

fn answered(answer: &str) -> Result<RunState, LookupError> {
    with(TIMEOUT, |stream| stream.write_all(answer.as_bytes()).unwrap())
}

fn status(status: &str) -> LookupError {
    answered(&format!("HTTP/1.1 {status}\r\nContent-Length: 20\r\n\r\n{{\"state\":\"CANCELLED\""))
        .unwrap_err()
}

fn body(body: &str) -> Result<RunState, LookupError> {
    answered(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

fn source(result: Result<RunState, LookupError>) -> AnswerError {
    match result {
        Err(LookupError::Answer { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_status_has_its_error() {
    assert!(matches!(status("401 No"), LookupError::Refused { status: 401, .. }));
    assert!(matches!(status("403 No"), LookupError::Refused { status: 403, .. }));
    assert_eq!(status("404 Not Found"), LookupError::Unknown);
    for code in [201, 204, 206, 400, 405, 410, 429, 500, 502, 503] {
        let error = status(&format!("{code} X"));
        assert!(matches!(error, LookupError::Status { status, .. } if status == code), "{error:?}");
    }
    let text = status("500 Oh").to_string();
    assert!(text.starts_with("http://127.0.0.1:") && text.ends_with(" answered 500"), "{text}");
}

#[test]
fn a_bare_status_line_is_classified() {
    assert!(matches!(
        answered("HTTP/1.1 403 Refused\r\n\r\n"),
        Err(LookupError::Refused { status: 403, .. })
    ));
}

#[test]
fn a_redirect_is_an_error_and_is_not_followed() {
    let (elsewhere, target) = listen();
    let target = http(&target);
    for code in [300, 301, 302, 303, 307, 308] {
        for location in
            [format!("Location: {target}/api\r\n"), "Location: /other\r\n".to_owned(), String::new()]
        {
            let answer = format!("HTTP/1.1 {code} Go\r\n{location}Content-Length: 0\r\n\r\n");
            let error = answered(&answer).unwrap_err();
            assert!(matches!(error, LookupError::Redirected { status, .. } if status == code), "{error:?}");
        }
    }
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "the redirect was followed");
}

#[test]
fn a_body_that_is_not_a_run_is_an_error() {
    assert_eq!(body(r#"{"run_id":"r","state":"CANCELLED"}"#), Ok(RunState::Cancelled));
    assert!(matches!(source(body("<html>welcome to the hotel</html>")), AnswerError::Json { .. }));
    assert!(matches!(source(body("")), AnswerError::Json { .. }));
    assert_eq!(source(body(r#"{"state":7}"#)), AnswerError::NoState);
    assert_eq!(source(body(r#"{"run_id":"s","state":"CANCELLED"}"#)), AnswerError::OtherRun);
    let text = error_chain(&body(r#"{"state":"DONE\nnow"}"#).unwrap_err());
    assert!(text.ends_with(": unknown state \"DONE\\nnow\""), "{text}");
    let zipped = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x08xx";
    assert!(matches!(source(answered(zipped)), AnswerError::Json { .. }));
}

#[test]
fn a_truncated_response_is_an_error() {
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{\"state\":\"CANCELLED\"}";
    assert_eq!(answered(whole), Ok(RunState::Cancelled));
    for cut in [0, 7, 15, 30, 45, whole.len() - 1] {
        let error = answered(whole.get(..cut).unwrap()).unwrap_err();
        assert!(matches!(error, LookupError::Unreachable { .. }), "{cut}: {error:?}");
    }
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n15\r\n{\"state\":\"CANCELLED\"}\r\n";
    assert!(matches!(answered(chunked), Err(LookupError::Unreachable { .. })), "without its last chunk");
    assert_eq!(answered(&format!("{chunked}0\r\n\r\n")), Ok(RunState::Cancelled));
    assert!(matches!(
        answered("HTTP/1.1 200 OK\r\n\r\n{\"state\":\"CANCEL"),
        Err(LookupError::Answer { source: AnswerError::Json { .. }, .. })
    ));
    assert!(matches!(answered("SSH-2.0-OpenSSH_9\r\n\r\n"), Err(LookupError::Unreachable { .. })));
}

#[test]
fn an_endless_response_is_cut_off() {
    let limit = 1 << 20;
    let endless = |head: &'static str, more: &'static [u8]| {
        with_plane(
            |plane| plane.with_max_body(limit),
            TIMEOUT,
            move |stream| {
                stream.write_all(head.as_bytes()).unwrap();
                let block = more.repeat(1000);
                while stream.write_all(&block).is_ok() {}
            },
        )
    };
    assert_eq!(source(endless("HTTP/1.1 200 OK\r\n\r\n", b" ")), AnswerError::TooLong { limit });
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(source(endless(chunked, b"8\r\n        \r\n")), AnswerError::TooLong { limit });
    let declared = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
    assert_eq!(source(endless(declared, b" ")), AnswerError::TooLong { limit });
    let one = source(endless("HTTP/1.1 200 OK\r\nX: ", b"x"));
    assert!(matches!(one, AnswerError::LongHead { .. }), "{one:?}");
    for many in [endless("HTTP/1.1 200 OK\r\n", b"X: y\r\n"), endless("", b"HTTP/1.1 100 Continue\r\n\r\n")] {
        assert!(many.is_err(), "{many:?}");
    }
}

#[test]
fn slow_and_silent_servers_time_out() {
    let short = millis(300);
    let silent = with(short, |stream| assert!(hangs_up(stream)));
    let drip = |head: &'static str, drop: &'static str| {
        with(short, move |stream| {
            stream.write_all(head.as_bytes()).unwrap();
            while stream.write_all(drop.as_bytes()).is_ok() {
                std::thread::sleep(millis(10));
            }
        })
    };
    let head = drip("HTTP/1.1 200 OK\r\n", "X: y\r\n");
    let body = drip("HTTP/1.1 200 OK\r\n\r\n{", " ");
    for result in [silent, head, body] {
        let Err(LookupError::TimedOut { at, within }) = result else { panic!("{result:?}") };
        assert!(at.starts_with("http://127.0.0.1:") && within == millis(300), "{at} {within:?}");
    }
}

#[test]
fn an_unreachable_server_is_named_in_the_error() {
    let (listener, url) = listen();
    let root = http(&url);
    drop(listener);
    let Err(LookupError::Unreachable { at, reason }) = plane(&root).look_up("r", TIMEOUT) else {
        panic!("connected")
    };
    assert!(at == root && reason.contains("refused"), "{at} {reason}");
    let error = plane("http://no-such-host.invalid").look_up("r", TIMEOUT).unwrap_err();
    assert!(error.to_string().starts_with("no answer from http://no-such-host.invalid:80: "), "{error}");
    assert!(error.is_systemic());
}

#[test]
fn proxy_variables_are_ignored_and_the_key_is_not_logged() {
    let (proxy, url) = listen();
    let url = PathBuf::from(http(&url));
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"];
    let variables = names.map(|name| (name, url.clone()));
    in_own_process("rest::faulty_servers::in_a_process_with_a_proxy_and_a_log", &variables);
    proxy.set_nonblocking(true).unwrap();
    assert!(proxy.accept().is_err(), "a request went to the proxy");
}

/// A logger that keeps the lines of every crate.
struct Lines(Mutex<Vec<String>>);

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = format!("{} {} {}", record.level(), record.target(), record.args());
        self.0.lock().unwrap().push(line);
    }

    fn flush(&self) {}
}

static LINES: Lines = Lines(Mutex::new(Vec::new()));

/// Look-ups that fail: the id, the status and the body of the answer, whether others would fail too, and the error.
fn failures(at: &str) -> [(&'static str, &'static str, &'static str, bool, String); 4] {
    [
        ("b", "404 Not Found", "", false, "the control plane does not know this run".to_owned()),
        (
            "c d",
            "200 OK",
            r#"{"state":"what\n?"}"#,
            false,
            format!("invalid response from {at}: unknown state \\\"what\\\\n?\\\""),
        ),
        (
            "e",
            "403 Forbidden",
            "",
            true,
            format!("{at} answered 403: check the API key in OZ_API_KEY or OZ_API_KEY_FILE"),
        ),
        (
            "f",
            "302 Found",
            "",
            true,
            format!("{at} answered 302: redirects are not followed; set --rest-url to the final URL"),
        ),
    ]
}

#[test]
#[ignore = "run by the test above in a separate process"]
fn in_a_process_with_a_proxy_and_a_log() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let (listener, url) = listen();
    let (sender, answers) = crossbeam_channel::bounded(4);
    let poller = RunPoller::new(plane(&http(&url)), sender.clone());
    // Nothing listens there.
    let refused = RunPoller::new(plane("http://127.0.0.1:1"), sender);
    let mut number = 0;
    // Returns whether the look-up succeeded, and what the worker has logged about it.
    let mut look_up = |task_id: &str, answer: Option<(&str, &str)>| {
        number += 1;
        let poller = if answer.is_some() { &poller } else { &refused };
        poller.look_up(RunLookup { number, task_id: task_id.to_owned(), limit: TIMEOUT }).unwrap();
        if let Some((status, body)) = answer {
            let mut stream = accept(&listener);
            request(&mut stream);
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
        let (answered, result) = answers.recv_timeout(TIMEOUT).unwrap();
        assert_eq!(answered, number);
        let lines = std::mem::take(&mut *LINES.0.lock().unwrap());
        let text = lines.join("\n");
        assert!(!text.contains(KEY) && text.contains("DEBUG ureq"), "{text}");
        // At TRACE ureq would log the bytes of a request, sixteen per line.
        assert!(!text.contains("TRACE"), "{text}");
        let own = lines.into_iter().filter(|line| line.contains(" oz_agent_worker"));
        (result.map_err(|failure| failure.systemic), own.collect::<Vec<_>>().join("\n"))
    };
    let at = http(&url);
    let line = |text: &str| format!("DEBUG oz_agent_worker::control_plane::rest::poller run {text}");
    let (result, own) = look_up("a", Some(("200 OK", r#"{"state":"FAILED"}"#)));
    assert_eq!(result.map(|run| run.state), Ok(RunState::Failed));
    assert_eq!(own, line("looked up task=a state=FAILED"));
    for (id, status, body, systemic, error) in failures(&at) {
        let (result, own) = look_up(id, Some((status, body)));
        assert_eq!(result, Err(systemic));
        let task = if id.contains(' ') { format!("\"{id}\"") } else { id.to_owned() };
        assert_eq!(own, line(&format!("look-up failed task={task} error=\"{error}\"")));
    }
    let (result, own) = look_up("a", None);
    assert!(result == Err(true) && own.contains("refused"), "{own}");
}
