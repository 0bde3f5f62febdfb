//! A worker is killed while its tasks sleep, and started again: until it has adopted all of their containers, and until it is
//! connected. The floor is to list the containers and to inspect each of them by hand.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bench::Bench;
use crate::figure::Figure;
use crate::session::{Program, Session, millis, time_left, timed};
use crate::support::engine::Engine;
use crate::support::process::Signal;

/// How long the lines about adopted containers are waited for. Another worker may not write them.
const ADOPTED_WITHIN: Duration = Duration::from_secs(10);

pub fn measure(bench: &Bench) -> Vec<Figure> {
    let count = bench.pick(50, 10);
    let mut adopted = bench.figure(format!("start to {count} adopted"), "ms");
    let mut connected = bench.figure(format!("start to connected, {count} adopted"), "ms");
    for (index, program) in bench.programs.iter().enumerate() {
        let slots = count.to_string();
        // Runs that were lost with their worker would be stopped.
        let settings = [("OZ_MAX_CONCURRENT_TASKS", slots.as_str()), ("OZ_LOST_RUNS", "finish")];
        let before = running(&bench.engine).len();
        let mut session = Session::start(&bench.engine, program, &settings);
        (0..count).for_each(|_| drop(session.plane.submit(bench.spec("exec sleep 3600"))));
        wait_running(bench, &session, before + count);
        for round in bench.rounds(5, 3) {
            let floor = timed(|| inspect_all(&bench.engine));
            let times = restart(&mut session, program, &settings, round, count);
            connected.add_pair(index, floor, times.connected);
            if let Some(time) = times.adopted {
                adopted.add_pair(index, floor, time);
            }
        }
        // The containers are then removed with those that have the worker's id.
        session.process.signal(Signal::KILL);
    }
    vec![adopted, connected]
}

struct Times {
    /// `None` if the worker does not write a line for each container.
    adopted: Option<f64>,
    connected: f64,
}

fn restart(
    session: &mut Session,
    program: &Program,
    settings: &[(&str, &str)],
    round: usize,
    count: usize,
) -> Times {
    let start = session.restart(program, settings);
    let session = &*session;
    std::thread::scope(|scope| {
        let adopted = scope.spawn(move || {
            let mut left = count;
            let is_last = |line: &str| {
                left -= usize::from(line.contains("container adopted"));
                left == 0
            };
            session.process.stderr().find(ADOPTED_WITHIN, is_last)?;
            Some(millis(start.elapsed()))
        });
        session.wait_connected(round + 2);
        let connected = millis(start.elapsed());
        Times { adopted: adopted.join().expect("a thread"), connected }
    })
}

/// Returns the running containers.
fn running(engine: &Engine) -> Vec<Value> {
    let list = engine.json("GET", "/containers/json", &Value::Null);
    list.as_array().cloned().unwrap_or_default()
}

fn wait_running(bench: &Bench, session: &Session, count: usize) {
    let end = Instant::now() + time_left();
    while running(&bench.engine).len() < count {
        assert!(Instant::now() < end, "not all tasks run\n{}", session.log_tail());
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn inspect_all(engine: &Engine) {
    for container in running(engine) {
        let id = container["Id"].as_str().unwrap_or_default();
        engine.json("GET", &format!("/containers/{id}/json"), &Value::Null);
    }
}
