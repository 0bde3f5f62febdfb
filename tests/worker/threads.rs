//! The threads of a running worker are those that the crate's documentation lists.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;

use crate::support::control_plane::State;
use crate::support::stage::Stage;
use crate::tidy;

/// Threads that end once their work is done.
const SHORT_LIVED: [&str; 2] = ["oz-disk", "oz-sweep"];

/// Returns the first column of the table of threads in `src/lib.rs`.
fn documented() -> BTreeSet<String> {
    let text = tidy::read("src/lib.rs");
    let mut lines = text.lines().skip_while(|line| !line.starts_with("//! | thread |"));
    assert!(lines.next().is_some(), "src/lib.rs has no table of threads");
    let rows = lines.skip(1).map_while(|line| line.strip_prefix("//! |"));
    rows.map(|row| row.split('|').next().unwrap().replace('`', "").trim().to_owned()).collect()
}

/// Returns the names of a worker's threads as the table has them.
fn running(id: u32) -> BTreeSet<String> {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    // A thread may end before its name is read.
    let names =
        threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok());
    let as_documented = |name: String| match name.trim() {
        "oz-agent-worker" => "main".to_owned(),
        name if name.starts_with("oz-task-") => "oz-task-N".to_owned(),
        name => name.to_owned(),
    };
    names.map(as_documented).collect()
}

#[test]
fn a_worker_has_the_documented_threads_and_no_others() {
    let (stage, folder) = (Stage::new(), tempfile::tempdir().unwrap());
    let socket = folder.path().join("notify");
    let _manager = UnixDatagram::bind(&socket).unwrap();
    let worker = stage.start(stage.worker().env("NOTIFY_SOCKET", socket.to_str().unwrap()));
    let id = stage.plane.submit(stage.spec("trap 'exit 0' TERM; sleep 1000 & wait"));
    stage.plane.wait_state(&id, State::InProgress);
    stage.wait_running(&id);

    let (documented, running) = (documented(), running(worker.id()));
    let undocumented: Vec<_> = running.difference(&documented).collect();
    assert!(undocumented.is_empty(), "not in the table of src/lib.rs: {undocumented:?}");
    let absent: Vec<_> =
        documented.difference(&running).filter(|name| !SHORT_LIVED.contains(&name.as_str())).collect();
    assert!(absent.is_empty(), "in the table of src/lib.rs, but not running: {absent:?}");
}
