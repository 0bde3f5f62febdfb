//! Several processes with one worker's id on one engine.

use serde_json::json;

use crate::support::control_plane::run::new_id;
use crate::support::engine_proxy::EngineProxy;
use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::{Worker, WorkerBuilder};

fn builder(stage: &Stage, sync: &SyncDir) -> WorkerBuilder {
    stage.worker().args(["--reconcile-interval", "0", "-v", &sync.mount(), "--log-level", "debug"])
}

/// Returns how often a line of the log has this text.
fn count(worker: &Worker, text: &str) -> usize {
    worker.stderr().all().iter().filter(|line| line.contains(text)).count()
}

/// Signals a worker and waits for its end.
fn end(mut worker: Worker, signal: Signal) -> Option<i32> {
    worker.signal(signal);
    worker.wait_exit(DEADLINE).code()
}

#[test]
fn a_second_process_with_the_id_exits_with_5_and_names_the_first() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let first = stage.start(builder(&stage, &sync));
    let id = stage.plane.submit(stage.spec(&format!("echo >> /sync/log; {WAIT}; echo out")));
    sync.wait_lines(&stage, 1);
    let connections = stage.plane.connections();
    let mut second = builder(&stage, &sync).start();
    assert_eq!(second.wait_exit(DEADLINE).code(), Some(5));
    let named =
        format!("worker id \\\"{}\\\" is in use by process {} on this host", stage.worker_id, first.id());
    let log = second.stderr().all();
    assert!(log.last().unwrap().contains(&named), "{log:#?}");
    assert!(log.last().unwrap().contains("--shared-id"), "{log:#?}");
    assert_eq!(stage.plane.connections(), connections, "it did not connect");
    // Another id is another worker.
    let other = stage.start(stage.worker_named(&format!("{}-2", stage.worker_id)));
    assert_eq!(end(other, Signal::TERM), Some(0));
    sync.release(1);
    assert_eq!(stage.plane.wait_ended(&id).output.as_deref(), Some("out\n"));
    stage.wait_clean();
    stage.stop(first);
}

/// The lock ends with the process, however that ends, also while a child of it still runs.
#[test]
fn the_id_is_free_at_once_after_a_kill() {
    let stage = Stage::new();
    for _ in 0..5 {
        assert_eq!(end(stage.start_worker(), Signal::KILL), None);
    }
    // Without a wait for the end.
    let worker = stage.start_worker();
    worker.signal(Signal::KILL);
    let next = stage.start_worker();
    stage.stop(next);
}

/// The second process leaves alone what the first runs, prepares and fills, also at its stop.
#[test]
fn processes_that_share_an_id_leave_each_other_s_tasks_alone() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let proxy = EngineProxy::start(stage.engine.host());
    let shared = || builder(&stage, &sync).args(["--shared-id"]);
    let first = stage.start(shared().env("DOCKER_HOST", &proxy.host()));
    assert_eq!(count(&first, "worker id shared others=0"), 1);
    let mut spec = stage.spec(&format!("echo >> /sync/log; {WAIT}; echo out"));
    spec.additional_sidecars =
        vec![json!({"image": stage.sidecar_image, "mount_path": "/data", "read_write": true})];
    let running = stage.plane.submit(&spec);
    sync.wait_lines(&stage, 1);
    // One is created and not started, and one fills a volume.
    let start = proxy.delay("/start", 1);
    let unstarted = stage.plane.submit(stage.spec("echo unstarted"));
    start.wait(1);
    let export = proxy.hold("/export", 1);
    let filling = stage.plane.submit(&spec);
    export.wait(1);
    let before =
        (stage.engine.containers_of(&stage.worker_id).len(), stage.engine.volumes_of(&stage.worker_id).len());
    assert_eq!(before.0, 4, "two tasks, and two helpers of a third one");

    let second = stage.start(shared().env("OZ_MAX_CONCURRENT_TASKS", "1"));
    assert_eq!(count(&second, "worker id shared others=1 "), 1);
    let after =
        (stage.engine.containers_of(&stage.worker_id).len(), stage.engine.volumes_of(&stage.worker_id).len());
    assert_eq!(after, before);
    assert_eq!((count(&second, "container adopted"), count(&second, "removed")), (0, 0));
    // A process that does not share the id does not run beside them.
    let mut third = builder(&stage, &sync).start();
    assert_eq!(third.wait_exit(DEADLINE).code(), Some(5));
    assert!(count(&third, &first.id().to_string()) == 1 && count(&third, &second.id().to_string()) == 1);
    assert_eq!(end(second, Signal::TERM), Some(0));

    start.release();
    export.release();
    sync.wait_lines(&stage, 2);
    sync.release(2);
    // This control plane has failed the runs when the second process disconnected, but their reports arrive.
    for id in [&running, &unstarted, &filling] {
        stage.plane.wait_message(id, "task_completed");
    }
    stage.wait_clean();
    assert_eq!(end(first, Signal::TERM), Some(0));
}

/// After the end of one of them, the next process takes over its tasks, and only those.
#[test]
fn the_tasks_of_an_ended_process_go_to_one_other() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let shared = || builder(&stage, &sync).args(["--shared-id", "--lost-runs", "finish"]);
    let assign = |task: &str, execution: &str| {
        let mut data = stage.spec(&format!("echo >> /sync/log; {WAIT}; echo {execution}")).assignment(task);
        data["execution_id"] = json!(execution);
        stage.plane.send_text(json!({"type": "task_assignment", "data": data}).to_string());
    };
    let task = new_id();
    let first = stage.start(shared());
    assign(&task, "1");
    sync.wait_lines(&stage, 1);
    let second = stage.start(shared());
    assign(&task, "2");
    sync.wait_lines(&stage, 2);
    assert_eq!(count(&second, "container adopted"), 0);
    assert_eq!(end(first, Signal::KILL), None);
    // The second process still has the id, although the first one had its lock.
    let mut alone = builder(&stage, &sync).start();
    assert_eq!(alone.wait_exit(DEADLINE).code(), Some(5));
    let (third, fourth) = (stage.start(shared()), stage.start(shared()));
    assert_eq!((count(&third, "container adopted"), count(&fourth, "container adopted")), (1, 0));
    assert_eq!(count(&third, &format!("container adopted task={task} execution=1 ")), 1);
    sync.release(2);
    stage.plane.wait_for(DEADLINE, |model| {
        model.messages.iter().filter(|message| message.kind == "task_completed").count() == 2
    });
    stage.wait_clean();
    for worker in [second, third, fourth] {
        assert_eq!(end(worker, Signal::TERM), Some(0));
    }
}
