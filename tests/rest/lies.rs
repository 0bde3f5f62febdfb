//! Look-ups at servers that stall, break off, lie or lead elsewhere. The key is told to none but the configured one, and
//! stands in no error.

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Mutex;

use log::{LevelFilter, Log, Metadata, Record};
use oz_agent_worker::control_plane::rest::{AnswerError, ControlPlane, LookupError, RunPoller};
use oz_agent_worker::job::JobId;
use oz_agent_worker::logging::error_chain;
use oz_agent_worker::protocol::RunState;
use oz_agent_worker::secret::Secret;

use crate::link::{PATIENCE, accept, hangs_up, in_a_process_of_its_own, listen, millis, request};

const KEY: &str = "hunter2-k3y";

fn plane(root: &str) -> ControlPlane {
    ControlPlane::new(root, &Secret::new(KEY)).unwrap()
}

fn http(url: &str) -> String {
    url.replace("ws://", "http://").replace("/ws?worker_id=w", "")
}

/// Looks up the run `r` at a server that does `talk` once it has the request.
fn with(
    asks: impl FnOnce(ControlPlane) -> ControlPlane,
    talk: impl FnOnce(&mut TcpStream) + Send,
) -> Result<RunState, LookupError> {
    let (listener, url) = listen();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = accept(&listener);
            let head = request(&mut stream);
            assert!(head.starts_with("GET /api/v1/agent/runs/r HTTP/1.1\r\n"), "{head}");
            talk(&mut stream);
        });
        asks(plane(&http(&url))).run_state("r")
    });
    if let Err(error) = &result {
        let told = format!("{error} {error:?} {}", error_chain(error));
        assert!(!told.contains(KEY) && !told.contains("/api") && !told.contains('\n'), "{told}");
    }
    result
}

fn answered(answer: &str) -> Result<RunState, LookupError> {
    with(|plane| plane.with_deadline(PATIENCE), |stream| stream.write_all(answer.as_bytes()).unwrap())
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
fn each_status_means_what_it_says() {
    assert!(matches!(status("401 No"), LookupError::Refused { status: 401, .. }));
    assert!(matches!(status("403 No"), LookupError::Refused { status: 403, .. }));
    assert_eq!(status("404 Not Found"), LookupError::Unknown);
    for code in [201, 204, 206, 400, 405, 410, 429, 500, 502, 503] {
        let error = status(&format!("{code} X"));
        assert!(matches!(error, LookupError::Status { status, .. } if status == code), "{error:?}");
    }
    let told = status("500 Oh").to_string();
    assert!(told.starts_with("http://127.0.0.1:") && told.ends_with(" answered 500"), "{told}");
}

#[test]
fn a_bare_status_line_is_an_answer() {
    assert!(matches!(
        answered("HTTP/1.1 403 Refused\r\n\r\n"),
        Err(LookupError::Refused { status: 403, .. })
    ));
}

#[test]
fn a_redirect_is_an_error_and_nobody_else_sees_the_key() {
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
    assert!(elsewhere.accept().is_err(), "somebody followed");
}

#[test]
fn what_is_no_run_is_no_state() {
    assert_eq!(body(r#"{"run_id":"r","state":"CANCELLED"}"#), Ok(RunState::Cancelled));
    assert!(matches!(source(body("<html>welcome to the hotel</html>")), AnswerError::Json { .. }));
    assert!(matches!(source(body("")), AnswerError::Json { .. }));
    assert_eq!(source(body(r#"{"state":7}"#)), AnswerError::NoState);
    assert_eq!(source(body(r#"{"run_id":"s","state":"CANCELLED"}"#)), AnswerError::OtherRun);
    let told = error_chain(&body(r#"{"state":"DONE\nnow"}"#).unwrap_err());
    assert!(told.ends_with("cannot be used: its state is \"DONE\\nnow\", which is none"), "{told}");
    let zipped = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x08xx";
    assert!(matches!(source(answered(zipped)), AnswerError::Json { .. }));
}

#[test]
fn half_an_answer_is_none() {
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
fn what_has_no_end_is_cut_off() {
    let endless = |head: &'static str, more: &'static [u8]| {
        with(
            |plane| plane.with_deadline(PATIENCE),
            move |stream| {
                stream.write_all(head.as_bytes()).unwrap();
                let block = more.repeat(1000);
                while stream.write_all(&block).is_ok() {}
            },
        )
    };
    let limit = 1 << 20;
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
fn who_is_slow_or_silent_runs_into_the_deadline() {
    let short = |plane: ControlPlane| plane.with_deadline(millis(300));
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
fn nobody_there_is_said_with_the_place() {
    let (listener, url) = listen();
    let root = http(&url);
    drop(listener);
    let Err(LookupError::Unreachable { at, why }) = plane(&root).run_state("r") else { panic!("reached") };
    assert!(at == root && why.contains("refused"), "{at} {why}");
    let error = plane("http://no-such-host.invalid").run_state("r").unwrap_err();
    assert!(error.to_string().starts_with("no answer from http://no-such-host.invalid:80: "), "{error}");
    assert!(error.is_systemic());
}

#[test]
fn the_environment_names_no_proxy_and_no_line_of_the_log_has_the_key() {
    let (proxy, url) = listen();
    let url = PathBuf::from(http(&url));
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"];
    let variables = names.map(|name| (name, url.clone()));
    in_a_process_of_its_own("rest::lies::in_a_process_with_a_proxy_and_a_log", &variables);
    proxy.set_nonblocking(true).unwrap();
    assert!(proxy.accept().is_err(), "somebody came to the proxy");
}

/// Every line of every crate, as the log of a process of its own.
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

#[test]
#[ignore = "run by the test above in a process of its own"]
fn in_a_process_with_a_proxy_and_a_log() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let (listener, url) = listen();
    let (sender, answers) = crossbeam_channel::bounded(1);
    let poller = RunPoller::start(plane(&http(&url)), sender).unwrap();
    let taken = || {
        let found = answers.recv_timeout(PATIENCE).unwrap();
        let lines = std::mem::take(&mut *LINES.0.lock().unwrap());
        let told = lines.join("\n");
        assert!(!told.contains(KEY) && told.contains("DEBUG ureq"), "{told}");
        // At that level ureq shows the bytes of a request, sixteen a line.
        assert!(!told.contains("TRACE"), "{told}");
        let own = lines.into_iter().filter(|line| line.contains(" oz_agent_worker"));
        (found.len(), own.collect::<Vec<_>>())
    };
    let answer = |status: &str, body: &str| {
        let mut stream = accept(&listener);
        request(&mut stream);
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    };
    let batch = |ids: &[&str]| {
        assert!(poller.poll((0..).map(JobId).zip(ids.iter().map(|&id| id.to_owned())).collect()));
    };

    batch(&["a", "b", "c d", "e", "f"]);
    answer("200 OK", r#"{"state":"FAILED"}"#);
    answer("404 Not Found", "");
    answer("200 OK", r#"{"state":"what\n?"}"#);
    answer("403 Forbidden", "");
    let (found, own) = taken();
    let at = http(&url);
    let room = "oz_agent_worker::control_plane::rest::poller";
    let expected = [
        format!("DEBUG {room} run looked up task=a state=FAILED"),
        format!("DEBUG {room} run not found task=b error=\"the control plane does not know this run\""),
        format!(
            "WARN {room} run look-up failed task=\"c d\" not_asked=0 error=\"the answer of {at} cannot be used: its state is \\\"what\\\\n?\\\", which is none\""
        ),
        format!(
            "DEBUG {room} run look-up failed task=e not_asked=1 error=\"{at} answered 403: check the key (OZ_API_KEY or OZ_API_KEY_FILE)\""
        ),
    ];
    assert_eq!((found, own), (1, expected.to_vec()));

    batch(&["a", "b", "c"]);
    answer("302 Found", "");
    let (found, own) = taken();
    assert!(found == 0 && own.len() == 1, "{own:?}");
    assert!(
        own[0].starts_with(&format!("WARN {room} run look-up failed task=a not_asked=2 error=")),
        "{own:?}"
    );
    drop(listener);
    batch(&["a"]);
    let (found, own) = taken();
    assert!(found == 0 && own.len() == 1 && own[0].contains("refused"), "{own:?}");
}
