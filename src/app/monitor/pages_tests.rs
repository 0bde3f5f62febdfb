//! The pages for every state.

use super::*;
use crate::coordinator::{Coordinator, Event, Rules, Stopping};
use crate::policy::LostRuns;
use crate::protocol::ExecutionKey;

fn facts() -> Facts {
    Facts {
        worker_id: "w1".to_owned(),
        slots: 4,
        steps: Arc::default(),
        started: Duration::from_secs(1_700_000_000),
        uptime: Duration::from_secs(7),
        process: ProcessStats::default(),
        disk_free: Some(9),
        min_free_disk: 5,
        dropped_lines: 0,
    }
}

/// The sample of a connected worker with one task.
fn sample() -> Sample {
    let rules = Rules {
        slots: 4,
        task_timeout: Duration::ZERO,
        drain_timeout: Duration::ZERO,
        stop_grace: Duration::ZERO,
        reconcile_interval: Duration::ZERO,
        lost_runs: LostRuns::Stop,
        check_disk: false,
        late_sweep_after: Duration::ZERO,
        shared_id: false,
        beat_every: Duration::ZERO,
    };
    let now = std::time::Instant::now();
    let mut coordinator = Coordinator::new(rules);
    coordinator.handle(Event::LinkUp, now);
    let mut view = coordinator.view(now);
    view.status.tasks = 1;
    view.backlog = 2;
    view.jobs.push(JobView {
        key: ExecutionKey::new("secret-task", Some("e1")),
        phase: "running",
        running_s: Some(12),
        report: None,
        claimed: true,
        engine_away: false,
        ending: None,
    });
    Sample { view, link_overdue: Duration::ZERO }
}

fn running(change: impl FnOnce(&mut Sample)) -> State {
    let mut sample = sample();
    change(&mut sample);
    State::Running(Box::new(sample))
}

fn get(path: &str, is_local: bool, state: &State) -> (u16, String) {
    let answer = page(path, is_local, state, &facts());
    (answer.status, answer.body)
}

#[test]
fn a_worker_is_ready_only_if_it_can_take_tasks() {
    let stop = |reason: Option<&str>| Stopping {
        draining: true,
        budget: Duration::ZERO,
        reason: reason.map(str::to_owned),
    };
    let cases = [
        (running(|_| ()), 200, "ok\n", "ok\n"),
        (State::Starting(None), 503, "starting\n", "starting\n"),
        (
            State::Starting(Some("no socket".to_owned())),
            503,
            "waiting for the engine: no socket\n",
            "engine unavailable\n",
        ),
        (State::Stuck, 503, "the main thread does not answer\n", "unhealthy\n"),
        (State::Ended, 503, "the worker has ended\n", "stopping\n"),
        (
            running(|sample| {
                sample.view.status.link = LinkState::Away;
                sample.view.status.refusal = Some("it answered 404".to_owned());
            }),
            503,
            "not connected to the control plane: it answered 404\n",
            "not connected\n",
        ),
        (
            running(|sample| {
                sample.view.status.engine_away = Some("gone".to_owned());
                sample.view.status.disk_low = Some("1 KiB free".to_owned());
            }),
            503,
            "gone\n1 KiB free\n",
            "engine unavailable\ndisk full\n",
        ),
        (running(|sample| sample.view.status.stop = Some(stop(None))), 503, "draining\n", "stopping\n"),
        (
            running(|sample| sample.view.status.stop = Some(stop(Some("it answered 401")))),
            503,
            "draining: it answered 401\n",
            "stopping\n",
        ),
        (
            running(|sample| sample.link_overdue = LINK_LATE + Duration::from_secs(1)),
            503,
            "the link's thread does not go on\n",
            "unhealthy\n",
        ),
    ];
    for (state, status, local, remote) in cases {
        assert_eq!(get("/readyz", true, &state), (status, local.to_owned()), "{state:?}");
        assert_eq!(get("/readyz", false, &state), (status, remote.to_owned()), "{state:?}");
        let page: Value = serde_json::from_str(&get("/status", true, &state).1).unwrap();
        assert_eq!(page["ready"], status == 200);
        let reasons = if status == 200 { String::new() } else { local.trim_end().to_owned() };
        let shown = page["reasons"].as_array().unwrap();
        assert_eq!(shown.iter().map(|text| text.as_str().unwrap()).collect::<Vec<_>>().join("\n"), reasons);
    }
}

#[test]
fn a_worker_is_healthy_while_both_threads_go_on() {
    let waits = running(|sample| sample.view.status.link = LinkState::Away);
    let slow = running(|sample| sample.link_overdue = LINK_LATE);
    for state in [State::Starting(None), waits, slow, State::Ended] {
        assert_eq!(get("/healthz", false, &state), (200, "ok\n".to_owned()), "{state:?}");
    }
    let stuck = running(|sample| sample.link_overdue = LINK_LATE + Duration::from_millis(1));
    assert_eq!(get("/healthz", false, &stuck), (503, "the link's thread does not go on\n".to_owned()));
    assert_eq!(get("/healthz", false, &State::Stuck), (503, "the main thread does not answer\n".to_owned()));
}

#[test]
fn the_status_names_tasks_to_local_clients_only() {
    let state = running(|sample| sample.view.status.engine_away = Some("unix:///secret-path".to_owned()));
    let page: Value = serde_json::from_str(&get("/status", true, &state).1).unwrap();
    let task = json!({
        "task_id": "secret-task", "execution_id": "e1", "phase": "running", "running_s": 12, "report": null,
        "claim_confirmed": true, "engine_away": false, "ending": null,
    });
    let expected = json!({
        "version": env!("CARGO_PKG_VERSION"), "state": "connected", "healthy": true, "ready": false,
        "connected": true, "uptime_s": 7, "slots": 4, "tasks_active": 1, "backlog": 2, "reports_unsettled": 0,
        "engine_up": false, "disk_free_bytes": 9, "disk_min_free_bytes": 5, "worker_id": "w1",
        "pid": std::process::id(), "reasons": ["unix:///secret-path"], "tasks": [task],
    });
    assert_eq!(page, expected);
    let (status, text) = get("/status", false, &state);
    assert!(status == 200 && !text.contains("secret") && !text.contains("w1"), "{text}");
    let page: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&page["tasks_active"], &page["backlog"], &page["tasks"]),
        (&json!(1), &json!(2), &Value::Null)
    );
}

#[test]
fn metrics_are_there_from_the_start_and_not_without_the_main_thread() {
    let (status, text) = get("/metrics", false, &State::Starting(None));
    assert!(status == 200 && text.contains("\noz_worker_engine_up 0\n"), "{text}");
    let (status, text) = get("/metrics", false, &running(|_| ()));
    let lines =
        ["oz_worker_connected 1", "oz_worker_backlog 2", "oz_worker_tasks_active 1", "oz_worker_engine_up 1"];
    assert!(status == 200 && lines.iter().all(|line| text.contains(&format!("\n{line}\n"))), "{text}");
    assert_eq!(get("/metrics", true, &State::Stuck).0, 503);
    assert_eq!(get("/other", true, &State::Stuck).0, 404);
    assert_eq!(get("/", true, &State::Stuck).0, 200);
}
