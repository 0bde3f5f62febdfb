//! A control plane that receives claims and reports and does not store them: no run waits for ever, and none runs twice.

use std::time::{Duration, Instant};

use super::{pending, starts};
use crate::support::control_plane::RunSpec;
use crate::support::control_plane::{ControlPlane, Faults, Model, Options, State};
use crate::support::process::Signal;
use crate::support::rng::Seed;
use crate::support::sleeping_engine::SleepingEngine;
use crate::support::stage::DEADLINE;
use crate::support::worker::{Worker, WorkerBuilder, binary};

const RUNS: usize = 300;
const WORKERS: usize = 2;

/// The limit on runs that have not ended, so that none waits long for a slot.
const MAX_PENDING: usize = 24;

fn worker(plane: &ControlPlane, engine: &SleepingEngine, number: usize) -> Worker {
    let worker = WorkerBuilder::new(&binary()).control_plane(plane, &format!("w{number}"));
    let args = ["--pull", "missing", "--max-concurrent-tasks", "8", "--lost-runs", "finish"];
    worker.args(args).env("DOCKER_HOST", &engine.host()).env("OZ_RECONNECT_SPREAD", "0").start()
}

/// The engine's containers end at once, so that almost all time is that of the control plane and the worker.
#[test]
fn three_hundred_runs_at_a_store_with_faults_each_run_once_and_end() {
    let seed = Seed::new();
    let mut rng = seed.rng();
    let claim_timeout = Duration::from_secs(10);
    let plane = ControlPlane::start(Options { claim_timeout, ..Options::default() });
    let engine = SleepingEngine::of_short_tasks();
    let mut workers: Vec<_> = (0..WORKERS).map(|number| worker(&plane, &engine, number)).collect();
    plane.wait_connected(WORKERS);
    let spec = RunSpec { sidecar_image: "sidecar".to_owned(), ..RunSpec::default() };
    // The first look-up must succeed, so that claims wait for the others.
    let first = plane.submit(&spec);
    plane.wait_state(&first, State::Succeeded);
    plane.delay_rest(Duration::from_millis(20));
    let faults =
        Faults { lose_claim: 8, lose_report: 8, lock: 100, crash: 100, large_answer: 200, fail_look_up: 20 };
    plane.inject(faults, rng.fork());
    let begun = Instant::now();
    for _ in 0..RUNS {
        plane.submit(&spec);
        let room = plane.holds_within(DEADLINE, |model| pending(model) < MAX_PENDING);
        assert!(room, "no run ended in time\n{}", plane.view(Model::describe));
    }
    plane.wait_for(DEADLINE, |model| pending(model) == 0);
    plane.inject(Faults::default(), rng.fork());
    engine.wait_empty(DEADLINE);
    let count = plane.view(|model| model.faults);
    eprintln!("{count} faults in {:?}", begun.elapsed());
    assert!(count >= 30, "only {count} faults");
    let all = engine.starts();
    let twice: Vec<_> = starts(&all).into_iter().filter(|(_, count)| *count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}\n{}", plane.view(Model::describe));
    for worker in &mut workers {
        worker.signal(Signal::TERM);
        assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0), "{:#?}", worker.stderr().all());
    }
    plane.assert_no_violations();
}
