//! The requests of the calls and their handling of the answers.

use std::time::Duration;

use crossbeam_channel::bounded;
use oz_agent_worker::docker::{
    ApiVersion, CreateContainer, Docker, Error, LogStream, MAX_MESSAGE, PullProgress, Reference, Request,
    RequestTarget, Timeouts,
};
use oz_agent_worker::secret::Secret;
use oz_agent_worker::sys::cancel::CancelToken;

use crate::support::fake_docker::{FakeDocker, Script, Step, client, hello, json, write};

const BUSY: &str = r#"{"message":"removal of container c is already in progress"}"#;
const TICK: Duration = Duration::from_millis(10);

fn engine(scripts: Vec<Script>) -> (FakeDocker, Docker, CancelToken) {
    let (fake, docker) = FakeDocker::connected(scripts, Timeouts::default());
    (fake, docker, CancelToken::new())
}

fn connect(scripts: Vec<Script>) -> (FakeDocker, Result<Docker, Error>) {
    let fake = FakeDocker::start(scripts);
    let docker = client(&CancelToken::new(), fake.endpoint(), None);
    (fake, docker)
}

#[test]
fn the_lower_api_version_is_used() {
    let (fake, docker) = connect(hello("1.99"));
    assert_eq!(docker.unwrap().engine().api_version, ApiVersion::MAX);
    let lines: Vec<String> = (0..3).map(|_| fake.request().line().to_owned()).collect();
    assert_eq!(lines, ["HEAD /_ping HTTP/1.1", "GET /v1.47/version HTTP/1.1", "GET /v1.47/info HTTP/1.1"]);
    let (_fake, docker) = connect(hello("1.43"));
    assert_eq!(docker.unwrap().engine().api_version, ApiVersion { major: 1, minor: 43 });
    let (_fake, docker) = connect(hello("1.40"));
    assert!(matches!(docker, Err(Error::TooOld { .. })), "{docker:?}");
}

#[test]
fn the_ping_falls_back_to_get() {
    let mut scripts = hello("1.41");
    scripts.insert(0, vec![write("HTTP/1.1 405 x\r\nContent-Length: 3\r\n\r\n")]);
    let (fake, docker) = connect(scripts);
    docker.unwrap();
    assert_eq!(fake.request().line(), "HEAD /_ping HTTP/1.1");
    assert_eq!(fake.request().line(), "GET /_ping HTTP/1.1");
}

/// Refuses a request for its API version, as an engine whose newest one is `newest`.
fn refuses(newest: &str) -> Script {
    let body = r#"{"message":"client version is not supported"}"#;
    let length = body.len();
    vec![write(&format!("HTTP/1.1 400 x\r\nApi-Version: {newest}\r\nContent-Length: {length}\r\n\r\n{body}"))]
}

/// Answers a ping.
fn pong(newest: &str) -> Script {
    vec![write(&format!("HTTP/1.1 200 OK\r\nApi-Version: {newest}\r\nContent-Length: 2\r\n\r\nOK"))]
}

fn lines(fake: &FakeDocker, count: usize) -> Vec<String> {
    (0..count).map(|_| fake.request().line().replace(" HTTP/1.1", "")).collect()
}

#[test]
fn a_refused_api_version_is_negotiated_again_and_the_call_repeated() {
    // Upgraded: 1.41 is too old. Rolled back: 1.47 is too new.
    for (before, newest, now) in [("1.41", "1.52", "1.47"), ("1.47", "1.45", "1.45")] {
        let done = || vec![write("HTTP/1.1 204 No Content\r\n\r\n")];
        let created = || vec![Step::ReadBody, json(201, r#"{"Id":"abc"}"#)];
        let negotiation = [refuses(newest), refuses(newest), pong(newest), pong(newest), created(), done()];
        let fake = FakeDocker::start(hello(before).into_iter().chain(negotiation).collect());
        let (docker, cancel) =
            (client(&CancelToken::new(), fake.endpoint(), None).unwrap(), CancelToken::new());
        lines(&fake, 3);
        let create = CreateContainer { image: "i".to_owned(), ..CreateContainer::default() };
        assert_eq!(docker.clone().container_create(&cancel, "n", &create).unwrap().id, "abc");
        docker.container_start(&cancel, "c").unwrap();
        let create = |version: &str| format!("POST /v{version}/containers/create?name=n");
        let ping = |version: &str| format!("GET /v{version}/_ping");
        let expected =
            [create(before), ping(before), "GET /_ping".to_owned(), ping(now)].map(|line| (line, Vec::new()));
        for (line, body) in expected {
            let request = fake.request();
            assert_eq!((request.line().replace(" HTTP/1.1", ""), request.body), (line, body));
        }
        let repeated = fake.request();
        assert_eq!(repeated.line().replace(" HTTP/1.1", ""), create(now));
        assert_eq!(repeated.body, br#"{"Image":"i","HostConfig":{}}"#, "with its body");
        assert_eq!(lines(&fake, 1), [format!("POST /v{now}/containers/c/start")], "for later calls too");
        assert_eq!(docker.api_version().to_string(), now);
    }
}

#[test]
fn a_call_that_was_sent_before_the_version_was_refused_is_repeated() {
    let there = vec![json(200, r#"[{"Id":"c"}]"#)];
    let (fake, docker, cancel) =
        engine(vec![refuses("1.43"), refuses("1.43"), pong("1.43"), pong("1.43"), there]);
    assert_eq!(docker.send_list(&cancel, &[]).unwrap().finish().unwrap()[0].id, "c");
    assert_eq!(lines(&fake, 5)[4], "GET /v1.43/containers/json?all=1");
}

/// The caller repeats it: its data was read.
#[test]
fn an_upload_whose_version_is_refused_is_not_repeated_here() {
    let (_fake, docker, cancel) =
        engine(vec![refuses("1.43"), refuses("1.43"), pong("1.43"), pong("1.43"), vec![json(200, "")]]);
    let put = || docker.archive_put(&cancel, "c", "/x", &mut b"data".as_slice());
    let error = put().unwrap_err();
    assert!(matches!(&error, Error::Version { .. }) && error.is_gone() && !error.is_ambiguous(), "{error:?}");
    put().unwrap();
}

#[test]
fn a_bad_request_is_not_a_refused_version() {
    let bad = vec![write("HTTP/1.1 400 x\r\nApi-Version: 1.41\r\nContent-Length: 3\r\n\r\nbad")];
    let plain = vec![json(400, "bad")];
    let (fake, docker, cancel) = engine(vec![bad, pong("1.41"), plain]);
    for _ in 0..2 {
        let error = docker.container_start(&cancel, "c").unwrap_err();
        assert!(matches!(&error, Error::Engine { status: 400, message } if message == "bad"), "{error:?}");
    }
    assert_eq!(lines(&fake, 3)[1..], ["GET /v1.41/_ping", "POST /v1.41/containers/c/start"]);
}

/// The minimum is too high, the newest version is too low, or the operator pinned the version.
#[test]
fn an_engine_without_a_common_version_is_unreachable_until_it_has_one() {
    let too_new = vec![refuses("1.55"), refuses("1.55"), pong("1.55"), refuses("1.55")];
    let too_old = vec![refuses("1.40"), refuses("1.40"), pong("1.40")];
    let pinned = vec![refuses("1.45"), refuses("1.45"), refuses("1.45")];
    let cases = [
        (too_new, None, vec![pong("1.55"), pong("1.55"), refuses("1.55")]),
        (too_old, None, vec![pong("1.40"), pong("1.40")]),
        (pinned, Some(ApiVersion::MAX), vec![pong("1.45"), refuses("1.45")]),
    ];
    for (refusals, pin, still) in cases {
        let back = match pin {
            None => vec![pong("1.43"), pong("1.43"), pong("1.43")],
            Some(_) => vec![pong("1.47"), pong("1.47")],
        };
        let version = if pin.is_some() { "1.47" } else { "1.43" };
        let greeting = hello("1.47").into_iter().skip(usize::from(pin.is_some()));
        let ready = vec![write("HTTP/1.1 204 No Content\r\n\r\n")];
        let scripts = greeting.chain(refusals).chain(still).chain(back).chain([ready]).collect();
        let fake = FakeDocker::start(scripts);
        let cancel = CancelToken::new();
        let docker = client(&cancel, fake.endpoint(), pin).unwrap();
        let error = docker.container_start(&cancel, "c").unwrap_err();
        assert!(matches!(&error, Error::Version { .. }) && error.is_unreachable(), "{error:?}");
        assert!(error.to_string().contains("refuses API version 1.47: "), "{error}");
        assert!(matches!(docker.ping(&cancel), Err(Error::Version { .. })), "{pin:?}");
        docker.ping(&cancel).unwrap();
        docker.container_start(&cancel, "c").unwrap();
        assert_eq!(docker.api_version().to_string(), version);
    }
}

#[test]
fn a_refused_ping_and_one_without_a_version_are_errors() {
    let (_fake, docker) = connect(vec![vec![write("HTTP/1.1 500 x\r\n\r\n")], vec![json(500, "go away")]]);
    assert!(
        matches!(&docker, Err(Error::Engine { status: 500, message }) if message == "go away"),
        "{docker:?}"
    );
    let plain = || vec![write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")];
    let (_fake, docker) = connect(vec![plain(), plain()]);
    assert!(matches!(&docker, Err(Error::Protocol { .. })), "{docker:?}");
}

#[test]
fn an_engine_message_becomes_one_short_line() {
    let answers = [
        (json(500, r#"{"message":"first\nsecond\u001b"}"#), "first second"),
        (json(502, "<html>\r\nBad Gateway"), "<html> Bad Gateway"),
        (json(500, r#"{"other":1}"#), r#"{"other":1}"#),
        (json(500, ""), ""),
        (write("HTTP/1.1 500 x\r\nContent-Length: 99\r\n\r\ncut off"), "cut off"),
        (write("HTTP/1.1 301 x\r\nLocation: /\r\n\r\nmoved"), "moved"),
    ];
    for (answer, words) in answers {
        let (_fake, docker, cancel) = engine(vec![vec![answer]]);
        let error = docker.container_start(&cancel, "c").unwrap_err();
        assert!(matches!(&error, Error::Engine { message, .. } if message == words), "{error:?}");
    }
    let (_fake, docker, cancel) = engine(vec![vec![json(500, &"long ".repeat(50_000))]]);
    let error = docker.container_start(&cancel, "c").unwrap_err();
    assert!(matches!(&error, Error::Engine { message, .. } if message.len() <= MAX_MESSAGE), "{error:?}");
}

/// A socket proxy answers with a page. An engine's own 403 has a message, such as that of a plugin.
#[test]
fn a_call_that_a_proxy_refuses_is_named() {
    let page =
        "<html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</body></html>";
    let plugin = r#"{"message":"authorization denied by plugin p"}"#;
    let (fake, docker, cancel) =
        engine(vec![vec![json(403, page)], vec![write("HTTP/1.1 403 x\r\n\r\n")], vec![json(403, plugin)]]);
    let error = docker.container_start(&cancel, "c").unwrap_err();
    let address = fake.endpoint().to_string();
    let text = error.to_string();
    assert!(text.starts_with(&format!("{address} does not allow POST /containers/c/start: ")), "{text}");
    assert!(!text.contains("html"), "{text}");
    let error = docker.archive_stat(&cancel, "c", "/x").unwrap_err();
    assert!(error.to_string().contains("does not allow HEAD /containers/c/archive"), "{error}");
    let error = docker.container_start(&cancel, "c").unwrap_err();
    assert!(error.to_string().contains("403: authorization denied by plugin p"), "{error}");
}

/// The labels, variables and mounts of containers are not bounded, even if this program's are.
#[test]
fn lists_and_inspects_of_any_size_are_read() {
    let labels: Vec<String> =
        (0..17).map(|index| format!(r#""l{index}":"{}""#, "x".repeat(1 << 20))).collect();
    let labels = format!(r#"{{{},"oz-worker-id":"w"}}"#, labels.join(","));
    let summary = format!(r#"[{{"Id":"c","Labels":{labels}}}]"#);
    let container = format!(r#"{{"Id":"c","Config":{{"Labels":{labels},"Env":["A=1"]}}}}"#);
    let volume = format!(r#"{{"Name":"v","Labels":{labels}}}"#);
    let answers = [container.clone(), summary, format!(r#"{{"Volumes":[{volume}]}}"#), volume, container];
    let (_fake, docker, cancel) = engine(answers.iter().map(|body| vec![json(200, body)]).collect());
    let own = std::collections::BTreeMap::from([("oz-worker-id".to_owned(), "w".to_owned())]);
    assert_eq!(docker.container_inspect(&cancel, "c").unwrap().labels, own);
    assert_eq!(docker.container_list(&cancel, &[]).unwrap()[0].labels, own);
    assert_eq!(docker.volume_list(&cancel, &[]).unwrap()[0].labels, own);
    assert_eq!(docker.volume_create(&cancel, "v", &own).unwrap().labels, own);
    assert_eq!(docker.image_inspect(&cancel, "i").unwrap().id, "c");
}

#[test]
fn calls_without_effect_succeed() {
    let unchanged = || vec![write("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")];
    let gone = || vec![json(404, r#"{"message":"no such"}"#)];
    let idle = || vec![json(409, r#"{"message":"Container c is not running"}"#)];
    let (fake, docker, cancel) = engine(vec![unchanged(), idle(), idle(), gone(), gone()]);
    docker.container_start(&cancel, "c/d").unwrap();
    docker.container_stop(&cancel, "c", Duration::ZERO).unwrap();
    docker.container_stop(&cancel, "c", Duration::from_secs(1)).unwrap();
    assert!(!docker.container_remove(&cancel, "c").unwrap(), "there was none");
    assert!(!docker.volume_remove(&cancel, "v").unwrap(), "there was none");
    let lines: Vec<String> = (0..5).map(|_| fake.request().line().replace(" HTTP/1.1", "")).collect();
    let expected = [
        "POST /v1.41/containers/c%2Fd/start",
        "POST /v1.41/containers/c/kill?signal=SIGKILL",
        "POST /v1.41/containers/c/kill?signal=SIGTERM",
        "DELETE /v1.41/containers/c?force=1&v=1",
        "DELETE /v1.41/volumes/v",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_stop_sends_sigterm_and_kills_what_runs_on_after_the_grace_time() {
    let done = || vec![write("HTTP/1.1 204 No Content\r\n\r\n")];
    let head = || write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let exits = || vec![head(), write("10\r\n{\"StatusCode\":0}\r\n0\r\n\r\n")];
    let runs_on = vec![head(), Step::Pause(Duration::from_millis(100))];
    let scripts = vec![done(), exits(), done(), runs_on, done(), exits(), done(), vec![head(), Step::Stall]];
    let timeouts = Timeouts { stop_margin: Duration::from_secs(2), ..Timeouts::default() };
    let (fake, docker) = FakeDocker::connected(scripts, timeouts);
    let stop = |grace| docker.container_stop(&CancelToken::new(), "c", Duration::from_millis(grace));
    stop(600_000).unwrap();
    stop(50).unwrap();
    let error = stop(0).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    // All but the wait that stalls.
    let lines: Vec<String> = (0..7).map(|_| fake.request().line().replace(" HTTP/1.1", "")).collect();
    let [term, kill, wait] = ["kill?signal=SIGTERM", "kill?signal=SIGKILL", "wait?condition=not-running"]
        .map(|call| format!("POST /v1.41/containers/c/{call}"));
    let [term, kill, wait] = [&term, &kill, &wait];
    assert_eq!(lines.iter().collect::<Vec<_>>(), [term, wait, term, wait, kill, wait, kill]);
}

#[test]
fn rename_and_remove_without_force() {
    let done = || vec![write("HTTP/1.1 204 No Content\r\n\r\n")];
    let runs = || vec![json(409, r#"{"message":"You cannot remove a running container"}"#)];
    let (fake, docker, cancel) = engine(vec![done(), done(), vec![json(404, "")], runs()]);
    docker.container_rename(&cancel, "c/d", "e.f").unwrap();
    assert!(docker.container_remove_idle(&cancel, "c").unwrap());
    assert!(!docker.container_remove_idle(&cancel, "c").unwrap(), "there was none");
    assert!(docker.container_remove_idle(&cancel, "c").unwrap_err().is_conflict());
    let lines: Vec<String> = (0..2).map(|_| fake.request().line().replace(" HTTP/1.1", "")).collect();
    assert_eq!(lines, ["POST /v1.41/containers/c%2Fd/rename?name=e.f", "DELETE /v1.41/containers/c?v=1"]);
}

#[test]
fn a_removal_in_progress_is_awaited() {
    let (_fake, docker, cancel) =
        engine(vec![vec![json(409, BUSY)], vec![json(409, BUSY)], vec![json(404, "")]]);
    assert!(docker.container_remove(&cancel, "c").unwrap());
    let other = r#"{"message":"container is paused"}"#;
    let (_fake, docker, cancel) = engine(vec![vec![json(409, other)]]);
    assert!(docker.container_remove(&cancel, "c").unwrap_err().is_conflict());
    let timeouts = Timeouts { remove: Duration::from_secs(1), ..Timeouts::default() };
    let busy = (0..10).map(|_| vec![json(409, BUSY)]).collect();
    let (_fake, docker) = FakeDocker::connected(busy, timeouts);
    let error = docker.container_remove(&cancel, "c").unwrap_err();
    assert!(error.is_conflict() || matches!(error, Error::Timeout { .. }), "{error:?}");
}

/// Podman fails one of two concurrent calls for one name.
#[test]
fn a_volume_that_exists_although_its_creation_failed_is_used() {
    let exists = || vec![json(500, r#"{"message":"volume with name v already exists"}"#)];
    let there = vec![json(200, r#"{"Name":"v","Labels":{"oz-a":"b"}}"#)];
    let absent = vec![json(404, r#"{"message":"no such volume"}"#)];
    let (_fake, docker, cancel) = engine(vec![exists(), there, exists(), absent]);
    let labels = std::collections::BTreeMap::new();
    assert_eq!(docker.volume_create(&cancel, "v", &labels).unwrap().labels["oz-a"], "b");
    let error = docker.volume_create(&cancel, "v", &labels).unwrap_err();
    assert!(error.to_string().contains("500: volume with name v already exists"), "{error}");
}

/// An answer to `HEAD` has no message.
#[test]
fn a_failed_stat_has_the_engines_message() {
    let bare = || vec![write("HTTP/1.1 500 x\r\nContent-Length: 40\r\n\r\n")];
    let failed = vec![json(500, r#"{"message":"error mounting /agent/data"}"#)];
    let stat = "eyJzaXplIjo1LCJtb2RlIjo0MjB9";
    let works = vec![write(&format!(
        "HTTP/1.1 200 x\r\nX-Docker-Container-Path-Stat: {stat}\r\nContent-Length: 0\r\n\r\n"
    ))];
    let (_fake, docker, cancel) = engine(vec![bare(), failed, bare(), works]);
    let error = docker.archive_stat(&cancel, "c", "/x").unwrap_err();
    assert!(error.to_string().ends_with("answered 500: error mounting /agent/data"), "{error}");
    assert_eq!(docker.archive_stat(&cancel, "c", "/x").unwrap().unwrap().size, 5);
}

/// Podman 4 answers 500 for a name that is taken. Its message decides nothing.
#[test]
fn a_name_is_taken_if_a_container_has_it() {
    let failed = || vec![Step::ReadBody, json(500, r#"{"message":"the name is already in use"}"#)];
    let there = vec![json(200, r#"{"Id":"c"}"#)];
    let absent = vec![json(404, r#"{"message":"no such container"}"#)];
    let (_fake, docker, cancel) = engine(vec![failed(), there, failed(), absent]);
    let create = || docker.container_create(&cancel, "c", &CreateContainer::default()).unwrap_err();
    assert!(create().is_conflict());
    assert!(!create().is_conflict());
}

#[test]
fn a_missing_path_is_distinguished_from_a_missing_container() {
    let missing = || vec![write("HTTP/1.1 404 x\r\nContent-Length: 40\r\n\r\n")];
    let there = || vec![json(200, r#"{"Id":"c"}"#)];
    let gone = || vec![json(404, r#"{"message":"No such container: c"}"#)];
    let (_fake, docker, cancel) = engine(vec![missing(), there(), missing(), gone()]);
    assert_eq!(docker.archive_stat(&cancel, "c", "/x").unwrap(), None);
    assert!(docker.archive_stat(&cancel, "c", "/x").unwrap_err().is_not_found());
}

#[test]
fn calls_that_were_sent_are_answered_in_any_order() {
    let (release, released) = bounded(1);
    let container = |id: &str| json(200, &format!(r#"[{{"Id":"{id}","ImageID":"sha256:{id}"}}]"#));
    let (_fake, docker, cancel) =
        engine(vec![vec![Step::Await(released), container("first")], vec![container("second")]]);
    let first = docker.send_list(&cancel, &[]).unwrap();
    let second = docker.send_list(&cancel, &[]).unwrap();
    assert_eq!(second.finish().unwrap()[0].image, "sha256:second");
    release.send(()).unwrap();
    assert_eq!(first.finish().unwrap()[0].id, "first");
}

#[test]
fn a_create_sends_its_json() {
    let created = r#"{"Id":"abc","Warnings":null}"#;
    let (fake, docker, cancel) = engine(vec![vec![Step::ReadBody, json(201, created)]]);
    let create = CreateContainer {
        image: "i".to_owned(),
        env: vec![Secret::new("K=hunter2")],
        ..CreateContainer::default()
    };
    let answer = docker.container_create(&cancel, "n&m", &create).unwrap();
    assert_eq!((answer.id.as_str(), answer.warnings.len()), ("abc", 0));
    let request = fake.request();
    assert_eq!(request.line(), "POST /v1.41/containers/create?name=n%26m HTTP/1.1");
    assert_eq!(request.body, br#"{"Image":"i","Env":["K=hunter2"],"HostConfig":{}}"#);
}

#[test]
fn a_silent_pull_still_reports_progress() {
    let (release, released) = bounded(1);
    let line = r#"{"status":"Downloading","progressDetail":{"current":3,"total":8},"id":"a"}"#;
    let script = vec![write(&format!("HTTP/1.1 200 OK\r\n\r\n{line}\r\n")), Step::Await(released)];
    let (fake, docker, cancel) = engine(vec![script]);
    let image = Reference::parse("h:5000/a:t").unwrap();
    let mut seen = Vec::new();
    let mut progress = |progress: &PullProgress| {
        seen.push(progress.clone());
        // The engine waits for the third report, so that report must come while the engine is silent.
        if seen.len() == 3 {
            release.send(()).unwrap();
        }
    };
    let auth = Secret::new("e30=");
    docker.image_pull(&cancel, &image, Some("linux/amd64"), Some(&auth), TICK, &mut progress).unwrap();
    assert_eq!(seen[2], PullProgress { layers: 1, layers_done: 0, bytes: 3, bytes_total: 8 });
    let request = fake.request();
    let target = "/v1.41/images/create?fromImage=h%3A5000%2Fa&tag=t&platform=linux%2Famd64";
    assert_eq!(request.line(), format!("POST {target} HTTP/1.1"));
    assert!(request.head.contains("\r\nX-Registry-Auth: e30=\r\n"), "{}", request.head);
    assert!(request.head.contains("\r\nContent-Length: 0\r\n"), "{}", request.head);
}

#[test]
fn an_error_in_the_pull_stream_fails_the_pull() {
    let line = r#"{"errorDetail":{"message":"manifest unknown"},"error":"manifest unknown"}"#;
    let (_fake, docker, cancel) = engine(vec![vec![json(200, line)]]);
    let image = Reference::parse("a").unwrap();
    let error = docker.image_pull(&cancel, &image, None, None, TICK, &mut |_| {}).unwrap_err();
    assert!(matches!(&error, Error::Pull { message } if message == "manifest unknown"), "{error:?}");
}

#[test]
fn a_log_is_split_by_stream() {
    let body =
        b"HTTP/1.1 200 OK\r\n\r\n\x01\0\0\0\0\0\0\x02ou\x02\0\0\0\0\0\0\x01e\x01\0\0\0\0\0\0\x01t".to_vec();
    let (fake, docker, cancel) = engine(vec![vec![Step::Write(body)]]);
    let mut log = Vec::new();
    let mut answer = docker.send_logs(&cancel, "c", Duration::MAX).unwrap().finish().unwrap();
    while answer.read_some(&cancel, &mut |stream, bytes| log.push((stream, bytes.to_vec()))).unwrap() {}
    let piece = |stream, text: &str| (stream, text.as_bytes().to_vec());
    assert_eq!(
        log,
        [piece(LogStream::Stdout, "ou"), piece(LogStream::Stderr, "e"), piece(LogStream::Stdout, "t")]
    );
    assert_eq!(fake.request().line(), "GET /v1.41/containers/c/logs?stdout=1&stderr=1 HTTP/1.1");
}

#[test]
fn a_wait_returns_the_exit_code_or_the_engines_error() {
    let exit = |body| vec![json(200, body)];
    let scripts = vec![
        exit(r#"{"StatusCode":137,"Error":null}"#),
        exit(r#"{"StatusCode":1}"#),
        exit(r#"{"StatusCode":0,"Error":{"Message":"no such shim"}}"#),
    ];
    let (_fake, docker, cancel) = engine(scripts);
    let wait = || docker.container_wait(&cancel, "c").unwrap().join();
    assert_eq!(wait().unwrap(), 137);
    assert_eq!(wait().unwrap(), 1);
    assert!(matches!(wait(), Err(Error::Engine { message, .. }) if message == "no such shim"));
}

#[test]
fn lists_filter_by_label() {
    let (fake, docker, cancel) = engine(vec![vec![json(200, "[]")], vec![json(200, r#"{"Volumes":null}"#)]]);
    assert!(docker.container_list(&cancel, &[("a", "b")]).unwrap().is_empty());
    assert!(docker.volume_list(&cancel, &[]).unwrap().is_empty());
    let line = fake.request().line().to_owned();
    assert_eq!(
        line,
        "GET /v1.41/containers/json?all=1&filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D HTTP/1.1"
    );
    assert_eq!(fake.request().line(), "GET /v1.41/volumes HTTP/1.1");
}

#[test]
fn a_value_that_could_change_the_request_is_not_sent() {
    let (fake, docker, cancel) = engine(vec![vec![]]);
    for bad in ["", ".", ".."] {
        assert!(matches!(docker.container_remove(&cancel, bad), Err(Error::Invalid { .. })), "{bad}");
    }
    let request = Request::get(RequestTarget::of("info")).header("X-Registry-Auth", Secret::new("a\r\nX: y"));
    let error = docker.exchange(&cancel, request).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    assert!(fake.is_quiet());
}
