//! An engine that is silent, cuts the connection or sends malformed answers.

use std::io::{self, Read};
use std::time::Duration;

use crossbeam_channel::bounded;
use oz_agent_worker::docker::{CreateContainer, Endpoint, Error, Reference, Timeouts};
use oz_agent_worker::job::AdoptedTask;
use oz_agent_worker::protocol::{Dialect, ExecutionKey};
use oz_agent_worker::sys::cancel::{CancelReason, CancelToken};
use oz_agent_worker::task::adopt::{self, Found};
use oz_agent_worker::task::processes::Processes;
use serde_json::json as value;

use crate::support::fake_docker::{FakeDocker, Script, Step, client, hello, json, temp_dir, write};
use crate::support::stage::container_name;

const SHORT: Duration = Duration::from_millis(50);
/// Much longer than the deadline under test, so that no other deadline can expire.
const LONG: Duration = Duration::from_secs(60);

fn generous() -> Timeouts {
    let connect = Duration::from_secs(20);
    Timeouts {
        connect,
        call: LONG,
        list: LONG,
        head: LONG,
        search: LONG,
        create: LONG,
        idle: LONG,
        pull_idle: LONG,
        stop_margin: LONG,
        remove: LONG,
    }
}

/// Returns the error of an inspect that the engine answers with `script`.
fn inspect(script: Script, timeouts: Timeouts) -> Error {
    let (_fake, docker) = FakeDocker::connected(vec![script], timeouts);
    docker.container_inspect(&CancelToken::new(), "c").unwrap_err()
}

#[track_caller]
fn assert_timeout(error: &Error, phase: &str, limit: Duration) {
    let Error::Timeout { what, after } = error else { panic!("{error:?}") };
    assert!(what.contains(phase), "{what}");
    assert_eq!(*after, limit);
}

#[track_caller]
fn assert_cut(error: &Error) {
    assert!(error.is_connection_lost(), "{error:?}");
    assert!(
        matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof),
        "{error:?}"
    );
}

#[track_caller]
fn assert_protocol(error: &Error, words: &str) {
    assert!(matches!(error, Error::Protocol { what } if what.contains(words)), "{error:?}");
}

#[test]
fn a_missing_head_is_a_timeout() {
    for start in ["", "HTTP/1.1 200", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let timeouts = Timeouts { call: SHORT, ..generous() };
        let error = inspect(vec![write(start), Step::Stall], timeouts);
        assert_timeout(&error, "GET /containers/c/json: waiting for the response's head", SHORT);
    }
}

#[test]
fn a_slow_head_is_a_timeout() {
    let drips = (0..10_000).flat_map(|_| [write("A"), Step::Pause(SHORT / 5)]);
    let script = [write("HTTP/1.1 200 OK\r\n")].into_iter().chain(drips).collect();
    let error = inspect(script, Timeouts { call: SHORT * 4, ..generous() });
    assert_timeout(&error, "waiting for the response's head", SHORT * 4);
}

#[test]
fn a_stalled_body_is_a_timeout() {
    let heads = ["Content-Length: 50\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n5\r\n{", "\r\n{"];
    for head in heads {
        let timeouts = Timeouts { idle: SHORT, ..generous() };
        let error = inspect(vec![write(&format!("HTTP/1.1 200 OK\r\n{head}")), Step::Stall], timeouts);
        assert_timeout(&error, "GET /containers/c/json: reading the body", SHORT);
    }
}

#[test]
fn a_cut_answer_is_an_error() {
    let cut = [
        "",
        "HTTP/1.1 200 OK\r\nContent-",
        "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
    ];
    for text in cut {
        assert_cut(&inspect(vec![write(text)], generous()));
        assert_cut(&inspect(vec![write(text), Step::HalfClose, Step::Stall], generous()));
    }
}

#[test]
fn an_answer_that_is_not_http_is_a_protocol_error() {
    assert_protocol(&inspect(vec![write("SSH-2.0-OpenSSH\r\n"), Step::Stall], generous()), "not HTTP");
    let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(70_000));
    assert_protocol(&inspect(vec![write(&endless), Step::Stall], generous()), "longer than");
    let many = format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(200));
    assert_protocol(&inspect(vec![write(&many), Step::Stall], generous()), "headers");
    let lengths = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}";
    assert_protocol(&inspect(vec![write(lengths), Step::Stall], generous()), "Content-Length");
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}x";
    assert_protocol(&inspect(vec![write(chunk), Step::Stall], generous()), "chunk");
}

#[test]
fn unexpected_json_is_a_protocol_error_that_quotes_nothing() {
    assert_protocol(&inspect(vec![json(200, "[]")], generous()), "not the JSON expected");
    let error = inspect(vec![json(200, r#"{"Id":"a","Config":{"Labels":"hunter2"}}"#)], generous());
    assert_protocol(&error, "Data error");
    assert!(!error.to_string().contains("hunter2"));
    let long = " ".repeat(17 * 1024 * 1024);
    assert_protocol(&inspect(vec![json(200, &long)], generous()), "Eof error");
    let (_fake, docker) = FakeDocker::connected(vec![vec![json(201, &long)]], generous());
    let create = docker.container_create(&CancelToken::new(), "c", &CreateContainer::default());
    assert_protocol(&create.unwrap_err(), "longer than");
}

#[test]
fn a_cut_stream_is_an_error_on_every_read() {
    let start = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let (_fake, docker) = FakeDocker::connected(vec![vec![write(start)]], generous());
    let mut body = docker.container_export(&CancelToken::new(), "c").unwrap();
    let mut bytes = Vec::new();
    let error = body.read_to_end(&mut bytes).unwrap_err();
    assert_eq!((bytes.as_slice(), error.kind()), (b"hello".as_slice(), io::ErrorKind::UnexpectedEof));
    assert!(body.read(&mut [0; 8]).is_err(), "the next read");
    assert_cut(&Error::from_read(error));
}

#[test]
fn only_a_wait_and_a_stop_may_stay_silent() {
    let pause = || Step::Pause(SHORT * 8);
    let exit = || write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let body = || write("10\r\n{\"StatusCode\":9}\r\n0\r\n\r\n");
    let stopped = || vec![json(204, "")];
    // Long enough for a busy machine to answer the wait.
    let head = Duration::from_secs(2);
    let exits = || vec![exit(), pause(), body()];
    let scripts = vec![exits(), stopped(), exits(), vec![Step::Stall]];
    let timeouts = Timeouts { head, remove: head, idle: SHORT, ..generous() };
    let (_fake, docker) = FakeDocker::connected(scripts, timeouts);
    let cancel = CancelToken::new();
    assert_eq!(docker.container_wait(&cancel, "c").unwrap().join().unwrap(), 9);
    docker.container_stop(&cancel, "c", Duration::ZERO).unwrap();
    let error = docker.container_remove(&cancel, "c").unwrap_err();
    let Error::Timeout { what, after } = &error else { panic!("{error:?}") };
    assert!(what.contains("DELETE /containers/c") && *after <= head, "{error:?}");
}

/// Each byte ends a silence, so only a limit for the whole response ends such a call.
#[test]
fn a_response_that_drips_is_a_timeout() {
    let limit = SHORT * 4;
    let timeouts =
        Timeouts { call: limit, list: limit, create: limit, remove: limit, idle: LONG, ..generous() };
    let drip = |status: u16| {
        let head = write(&format!("HTTP/1.1 {status} x\r\nContent-Length: 100000\r\n\r\n"));
        let drops = (0..50_000).flat_map(|_| [write(" "), Step::Pause(SHORT / 5)]);
        [head].into_iter().chain(drops).collect::<Script>()
    };
    let scripts = [200, 200, 200, 200, 200, 409].map(drip).into_iter().collect();
    let (_fake, docker) = FakeDocker::connected(scripts, timeouts);
    let cancel = CancelToken::new();
    let create = CreateContainer::default();
    let errors = [
        ("GET /containers/c/json", docker.container_inspect(&cancel, "c").unwrap_err()),
        ("GET /images/i/json", docker.image_inspect(&cancel, "i").unwrap_err()),
        ("GET /containers/json", docker.container_list(&cancel, &[]).unwrap_err()),
        ("GET /volumes", docker.volume_list(&cancel, &[]).unwrap_err()),
        ("POST /containers/create", docker.container_create(&cancel, "c", &create).unwrap_err()),
    ];
    for (call, error) in errors {
        assert_timeout(&error, &format!("{call}: reading the body"), limit);
    }
    assert!(docker.container_remove(&cancel, "c").unwrap_err().is_conflict(), "the status counts");
}

/// The message of an error is limited as a whole, even if the call's body is not. The silences are far below the limit, and the
/// whole message takes five times as long.
#[test]
fn an_error_that_drips_ends() {
    let drops = (0..100).flat_map(|_| [write("x"), Step::Pause(SHORT)]);
    let head = write("HTTP/1.1 500 x\r\n\r\n");
    let script = [head].into_iter().chain(drops).chain([write("the end")]).collect();
    let (_fake, docker) = FakeDocker::connected(vec![script], Timeouts { idle: SHORT * 20, ..generous() });
    let error = docker.container_export(&CancelToken::new(), "c").unwrap_err();
    let Error::Engine { status: 500, message } = &error else { panic!("{error:?}") };
    assert!(message.starts_with('x') && !message.contains("the end"), "{error:?}");
}

/// As nginx does with its default settings.
#[test]
fn a_wait_whose_head_is_held_back_can_be_asked_again() {
    let (release, released) = bounded(1);
    let head = "HTTP/1.1 200 OK\r\nTransfer-";
    let rest = "Encoding: chunked\r\n\r\n10\r\n{\"StatusCode\":9}\r\n0\r\n\r\n";
    let script = vec![write(head), Step::Await(released), write(rest)];
    let (_fake, docker) = FakeDocker::connected(vec![script], generous());
    let mut wait = docker.container_wait(&CancelToken::new(), "c").unwrap();
    assert!(!wait.begin(SHORT).unwrap() && !wait.begin(SHORT).unwrap());
    release.send(()).unwrap();
    assert!(wait.begin(LONG).unwrap() && wait.begin(SHORT).unwrap());
    assert_eq!(wait.join().unwrap(), 9);
}

#[test]
fn a_cut_wait_is_a_lost_connection() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (_fake, docker) = FakeDocker::connected(vec![vec![write(head)]], generous());
    let wait = docker.container_wait(&CancelToken::new(), "c").unwrap();
    assert_cut(&wait.join().unwrap_err());
}

#[test]
fn a_silent_or_cut_pull_is_an_error() {
    let start = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n";
    let scripts = vec![vec![write(start), Step::Stall], vec![write(start)]];
    let timeouts = Timeouts { pull_idle: SHORT * 4, ..generous() };
    let (_fake, docker) = FakeDocker::connected(scripts, timeouts);
    let image = Reference::parse("a").unwrap();
    let mut reports = 0;
    let mut pull =
        || docker.image_pull(&CancelToken::new(), &image, None, None, SHORT, &mut |_| reports += 1);
    assert_timeout(&pull().unwrap_err(), "POST /images/create: reading the body", SHORT * 4);
    assert_cut(&pull().unwrap_err());
    assert!(reports > 0);
}

#[test]
fn a_missing_engine_is_unreachable() {
    let dir = temp_dir();
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    for endpoint in [Endpoint::Unix(dir.join("none")), Endpoint::Tcp { host: "127.0.0.1".into(), port: free }]
    {
        let error = client(&CancelToken::new(), endpoint.clone(), None).unwrap_err();
        assert!(error.is_unreachable(), "{error:?}");
        assert!(error.to_string().contains(&endpoint.to_string()), "{error}");
    }
    std::fs::remove_dir(&dir).unwrap();
}

#[test]
fn the_client_connects_over_tcp() {
    let fake = FakeDocker::start_tcp(hello("1.41"));
    let docker = client(&CancelToken::new(), fake.endpoint(), None).unwrap();
    assert_eq!(docker.engine().cpus, 4);
    assert!(fake.request().head.contains("\r\nHost: localhost:"));
}

/// One container hangs, one is broken, one answers nonsense: none of them keeps the worker from starting or loses its result, and
/// those that were never started are removed.
#[test]
fn containers_that_cannot_be_inspected_are_found_as_the_list_shows_them() {
    let listed = |task: &str, state: &str, name: String| {
        let labels = value!({"oz-worker-id": "w", "oz-task-id": task});
        let mounts =
            value!([{"Type": "volume", "Name": format!("v-{task}")}, {"Type": "bind", "Source": "/x"}]);
        value!({"Id": format!("id-{task}"), "Names": [format!("/{name}")], "Labels": labels, "State": state,
            "Created": 1_700_000_000, "Mounts": mounts})
    };
    let name = |task: &str| container_name("w", task, None);
    let hangs = listed("hangs", "running", name("hangs"));
    let mut broken = listed("broken", "exited", name("broken"));
    broken["Created"] = value!(null);
    let mut odd = listed("odd", "running", format!("{}.graceful_shutdown", name("odd")));
    odd["Created"] = value!("yesterday");
    odd["Mounts"] = value!(7);
    let unstarted = listed("unstarted", "created", name("unstarted"));
    let list = value!([hangs, broken, odd, unstarted]).to_string();
    let own = value!({"oz-worker-id": "w", "oz-task-id": "hangs"});
    let volumes = value!({"Volumes": [{"Name": "v-hangs", "Labels": own}]}).to_string();
    let scripts = vec![
        vec![json(200, &volumes)],
        vec![json(200, &list)],
        vec![Step::Stall],
        vec![json(500, r#"{"message":"broken"}"#)],
        vec![json(200, "[]")],
        vec![Step::Stall],
        vec![write("HTTP/1.1 204 No Content\r\n\r\n")],
    ];
    let (_fake, docker) = FakeDocker::connected(scripts, Timeouts { search: SHORT, ..generous() });
    let found = adopt::find(&docker, &CancelToken::new(), "w", &Processes::without_lock("p")).unwrap();
    let task = |task: &str, ended_for| AdoptedTask {
        key: ExecutionKey::new(task, None),
        dialect: Dialect::Old,
        container: format!("id-{task}"),
        created_as: name(task),
        volumes: Vec::new(),
        ran: None,
        reduced: None,
        ended_for,
    };
    let ran = found.tasks[0].ran;
    assert!(ran.is_some_and(|ran| ran > Duration::ZERO), "since its creation: {ran:?}");
    let tasks = vec![
        AdoptedTask { volumes: vec!["v-hangs".to_owned()], ran, ..task("hangs", None) },
        task("broken", None),
        AdoptedTask { ran: Some(Duration::ZERO), ..task("odd", Some(CancelReason::Shutdown)) },
    ];
    let unstarted = vec![(ExecutionKey::new("unstarted", None), Dialect::Old)];
    assert_eq!(found, Found { tasks, unstarted });
}
