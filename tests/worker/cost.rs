//! What tasks cost, in counts that do not depend on the speed of the machine.

use crate::support::control_plane::State;
use crate::support::engine_proxy::EngineProxy;
use crate::support::stage::Stage;

/// The calls of a task whose images and sidecar volumes are on the engine, in order.
const WARM_TASK: [&str; 0] = [];

/// Returns a request line as method and path, without version and query, and with `*` in place of an id or a name.
fn call(line: &str) -> String {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let path = target.split('?').next().unwrap();
    let segments = path.split('/').skip(2);
    let shown = |(index, segment)| match (index, segment) {
        (1, "create" | "json") => segment,
        (1, _) => "*",
        _ => segment,
    };
    let segments: Vec<&str> = segments.enumerate().map(shown).collect();
    format!("{method} /{}", segments.join("/"))
}

#[test]
fn a_warm_task_makes_only_these_calls_to_the_engine() {
    let stage = Stage::new();
    let proxy = EngineProxy::start(stage.engine.host());
    let worker = stage.start(stage.worker().env("DOCKER_HOST", &proxy.host()));
    for _ in 0..2 {
        assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
        stage.wait_no_containers();
    }
    stage.stop(worker);
    let calls: Vec<String> = proxy.requests().iter().map(|line| call(line)).collect();
    assert_eq!(calls, WARM_TASK);
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
