//! What tasks cost, in counts that do not depend on the speed of the machine.

use std::time::Duration;

use allocation_counter::measure;
use oz_agent_worker::control_plane::rest::ControlPlane as Rest;
use oz_agent_worker::docker::{Reference, Timeouts};
use oz_agent_worker::protocol::{Dialect, ExecutionKey, Outgoing, decode, encode};
use oz_agent_worker::sys::cancel::CancelToken;

use crate::link::api_key;
use crate::support::control_plane::{ControlPlane, DEADLINE, Options, RunSpec, State};
use crate::support::engine_proxy::EngineProxy;
use crate::support::fake_docker::{FakeDocker, json};
use crate::support::messages::assignment;
use crate::support::stage::Stage;

/// The calls of a task whose images and sidecar volume are on the engine, up to its start. The list finds containers of the same
/// task, and shows the image of its own; the check of the volume's marker is the `HEAD` of an archive. Only the first task looks for an output file.
/// Only the first and the last have a fixed place, as most are under way at the same time.
const BEFORE_START: [&str; 7] = [
    "POST /containers/create",
    "GET /images/*/json",
    "GET /images/*/json",
    "GET /containers/json",
    "HEAD /containers/*/archive",
    "POST /containers/*/wait",
    START,
];
const START: &str = "POST /containers/*/start";

/// The calls after the start.
const AFTER_START: [&str; 3] =
    ["GET /containers/*/archive", "GET /containers/*/logs", "DELETE /containers/*"];

/// Tasks of the test for open files, and how many of them run at once.
const TASKS: usize = 24;
const SLOTS: usize = 6;

/// The most allocations of a message. `make instructions` has the number of an optimized build.
const DECODED: u64 = 63;
const CLAIM: u64 = 12;

/// The most bytes that a call to the engine has allocated at once: musl's allocator maps and unmaps memory for each block of some
/// KiB.
const CALL: u64 = 4 * 1024;
/// The least and the most bytes of a look-up: the buffers of its connection, and what it takes besides.
const CONNECTION: u64 = 160 * 1024;
const LOOK_UP: u64 = 168 * 1024;

/// Returns a request line as method and path, without version and query, and with `*` in place of an id or a name.
fn call(line: &str) -> String {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let path = target.split('?').next().unwrap();
    let shown = |(index, segment)| match (index, segment) {
        (1, "create" | "json") | (0 | 2.., _) => segment,
        (1, _) => "*",
    };
    // The first two are empty and the version.
    let segments: Vec<&str> = path.split('/').skip(2).enumerate().map(shown).collect();
    format!("{method} /{}", segments.join("/"))
}

fn sorted<S: AsRef<str>>(calls: &[S]) -> Vec<&str> {
    let mut calls: Vec<&str> = calls.iter().map(AsRef::as_ref).collect();
    calls.sort_unstable();
    calls
}

#[test]
fn a_warm_task_makes_only_these_calls_to_the_engine() {
    let stage = Stage::new();
    let proxy = EngineProxy::start(stage.engine.host());
    let worker = stage.start(stage.worker().env("DOCKER_HOST", &proxy.host()));
    let run = || {
        assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
        stage.wait_no_containers();
    };
    run();
    let before = proxy.requests().len();
    run();
    stage.stop(worker);
    let mut requests = proxy.requests().split_off(before);
    // The late sweep for containers of an earlier process searches by the worker's id alone.
    requests.retain(|line| !line.contains("/containers/json") || line.contains("oz-task-id"));
    let calls: Vec<String> = requests.iter().map(|line| call(line)).collect();
    let (before_start, after) = calls.split_at(calls.iter().position(|call| call == START).unwrap() + 1);
    assert_eq!(sorted(before_start), sorted(&BEFORE_START));
    assert_eq!(sorted(after), sorted(&AFTER_START));
}

/// Returns what a process has open, sorted.
fn open_files(process: u32) -> Vec<String> {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    // A file may be closed before its name is read.
    let names = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
    let mut names: Vec<String> = names.map(|name| name.display().to_string()).collect();
    names.sort();
    names
}

#[test]
fn ended_tasks_leave_no_file_open() {
    let stage = Stage::new();
    let worker = stage.start(stage.worker().args(["--max-concurrent-tasks", &SLOTS.to_string()]));
    let run = |count| {
        let ids: Vec<String> = (0..count).map(|_| stage.plane.submit(stage.spec("echo; echo >&2"))).collect();
        for id in ids {
            assert_eq!(stage.plane.wait_ended(&id).state, State::Succeeded);
        }
        stage.wait_no_containers();
    };
    // Files that stay open are opened for the first tasks.
    run(SLOTS);
    let before = open_files(worker.id());
    run(TASKS);
    // The last look-up of a run may not have ended yet.
    stage.wait(&format!("as many files are open as before: {before:#?}"), || {
        open_files(worker.id()).len() <= before.len()
    });
    stage.stop(worker);
}

#[test]
fn a_message_takes_few_allocations() {
    let text = assignment();
    let decoded = measure(|| drop(decode(&text, None).unwrap())).count_total;
    assert!((1..=DECODED).contains(&decoded), "{decoded} allocations for an assignment");
    let claim = Outgoing::Claimed { key: ExecutionKey::new("run-1", None), dialect: Dialect::Old };
    let encoded = measure(|| drop(encode(&claim, "worker"))).count_total;
    assert!((1..=CLAIM).contains(&encoded), "{encoded} allocations for a claim");
}

#[test]
fn a_usual_answer_of_the_engine_takes_little_memory() {
    let image = json(200, &format!(r#"{{"Id":"sha256:abc","Config":"{}"}}"#, "x".repeat(1500)));
    let pull = json(200, "{\"status\":\"Status: Image is up to date\"}\r\n");
    let (_fake, docker) = FakeDocker::connected(vec![vec![image], vec![pull]], Timeouts::default());
    let (cancel, reference) = (CancelToken::new(), Reference::parse("a").unwrap());
    let inspect = || drop(docker.image_inspect(&cancel, "a").unwrap());
    let pull = || docker.image_pull(&cancel, &reference, None, None, Duration::MAX, &mut |_| {}).unwrap();
    for bytes in [measure(inspect).bytes_max, measure(pull).bytes_max] {
        assert!((1..=CALL).contains(&bytes), "{bytes} bytes");
    }
}

#[test]
fn a_look_up_takes_little_memory_besides_its_connection() {
    let plane = ControlPlane::start(Options::default());
    let id = plane.submit(RunSpec::default());
    let rest = Rest::new(&plane.root_url(), &api_key(plane.key())).unwrap();
    let bytes = measure(|| assert!(rest.look_up(&id, DEADLINE).is_ok())).bytes_max;
    assert!((CONNECTION..=LOOK_UP).contains(&bytes), "{bytes} bytes");
}
