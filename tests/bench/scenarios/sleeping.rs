//! Memory and threads while many tasks sleep, and after they have ended. Each worker has its tasks alone.
//!
//! Hundreds of containers take the engine of a small machine too long, so those are on an engine that runs nothing.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bench::Bench;
use crate::figure::Figure;
use crate::session::{Session, time_left, wait_removed};
use crate::support::control_plane::State;
use crate::support::engine::Engine;
use crate::support::sleeping_engine::SleepingEngine;

/// How many removals of a container run at the same time.
const KILLERS: usize = 4;

/// The tasks on an engine that runs nothing.
const MANY: [usize; 2] = [200, 1000];

pub fn measure(bench: &Bench) -> Vec<Figure> {
    let count = bench.pick(50, 20);
    // A container takes about 150 ms to start and to end.
    let time = Duration::from_millis(150) * u32::try_from(count).expect("few");
    let mut figures = sleeping(bench, &bench.engine, count, time);
    let sleeping_engine = SleepingEngine::start();
    let engine = Engine::at(&sleeping_engine.host());
    figures
        .extend(MANY.into_iter().flat_map(|count| sleeping(bench, &engine, count, Duration::from_secs(5))));
    figures
}

/// Measures `count` tasks on `engine`, for each worker for which there is this much time.
fn sleeping(bench: &Bench, engine: &Engine, count: usize, time: Duration) -> Vec<Figure> {
    let mut memory = bench.figure(format!("memory, {count} tasks"), "MiB");
    let mut threads = bench.figure(format!("threads, {count} tasks"), "");
    let mut after = bench.figure(format!("memory, after {count} tasks"), "MiB");
    for (index, program) in bench.programs.iter().enumerate() {
        if !bench.has_time(time) {
            break;
        }
        let slots = count.to_string();
        // The engine that runs nothing cannot pull either.
        let settings = [("OZ_MAX_CONCURRENT_TASKS", slots.as_str()), ("OZ_PULL", "missing")];
        let session = Session::start(engine, program, &settings);
        let before = engine.container_names();
        (0..count).for_each(|_| drop(session.plane.submit(bench.spec("exec sleep 3600"))));
        wait_running(engine, &session, &before, count);
        memory.add(index, session.gauge().rss_mib());
        threads.add(index, session.gauge().threads());
        kill_all(engine, &before);
        let ended =
            session.plane.holds_within(time_left(), |model| model.runs.iter().all(|run| run.state.ended()));
        assert!(ended, "not all tasks have ended\n{}", session.log_tail());
        wait_removed(engine, &before);
        after.add(index, session.gauge().rss_mib());
    }
    if memory.samples() == 0 { Vec::new() } else { vec![memory, threads, after] }
}

/// Waits until all tasks are claimed and their containers run.
fn wait_running(engine: &Engine, session: &Session, before: &[String], count: usize) {
    let claimed = session.plane.holds_within(time_left(), |model| {
        model.runs.iter().all(|run| run.state == State::InProgress || run.state.ended())
    });
    assert!(claimed, "not all tasks are claimed\n{}", session.log_tail());
    let end = Instant::now() + time_left();
    let running = || {
        let list = engine.containers("status", "running");
        list.iter().filter(|container| !is_in(before, container)).count()
    };
    while running() < count {
        assert!(Instant::now() < end, "not all tasks run\n{}", session.log_tail());
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_secs(1));
}

fn is_in(names: &[String], container: &Value) -> bool {
    names.iter().any(|name| container["Names"][0] == name.as_str())
}

/// Kills all containers but those of `before`.
fn kill_all(engine: &Engine, before: &[String]) {
    let list = engine.containers("status", "running");
    let own: Vec<&Value> = list.iter().filter(|container| !is_in(before, container)).collect();
    std::thread::scope(|scope| {
        for part in own.chunks(own.len().div_ceil(KILLERS).max(1)) {
            scope.spawn(move || {
                for container in part {
                    let id = container["Id"].as_str().unwrap_or_default();
                    // One that has ended by itself answers with a conflict.
                    engine.request("POST", &format!("/containers/{id}/kill"), &[], &[]);
                }
            });
        }
    });
}
