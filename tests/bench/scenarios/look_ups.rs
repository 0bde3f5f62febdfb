//! What look-ups of runs cost. Here the floor is the same worker without look-ups: its REST part knows no run. The tasks are on an
//! engine that runs nothing, so that almost all time is the worker's.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::figure::Figure;
use crate::session::{Program, Session, millis, time_left};
use crate::support::control_plane::{Model, RunSpec, State};
use crate::support::engine::Engine;
use crate::support::sleeping_engine::SleepingEngine;

/// The runs of a burst, which end at once, without and with `BENCH_QUICK`.
const RUNS: usize = 1000;
const QUICK_RUNS: usize = 200;

/// The slots of their worker, and how many runs wait for one: fewer than the worker's backlog takes.
const SLOTS: usize = 64;
const WAITING: usize = 48;

/// How long the REST part of the control plane takes for each answer, in milliseconds.
const DELAYS: [u64; 2] = [100, 1000];

/// The answer of a control plane without look-ups.
const UNKNOWN: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The URL of a REST part that knows no run. It answers until the bench ends.
static NO_REST: LazyLock<String> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A request is short. One that ends early gets no answer.
            let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(UNKNOWN));
        }
    });
    url
});

pub fn measure(bench: &Bench) -> Vec<Figure> {
    let mut figures = vec![warm_task(bench)];
    figures.extend(bursts(bench));
    figures
}

/// Starts a worker with or without a REST part.
fn start(engine: &Engine, program: &Program, with_rest: bool) -> Session {
    let slots = SLOTS.to_string();
    // The engine cannot pull.
    let settings = [
        ("OZ_MAX_CONCURRENT_TASKS", slots.as_str()),
        ("OZ_PULL", "missing"),
        ("OZ_REST_URL", NO_REST.as_str()),
    ];
    let settings = if with_rest { &settings[..2] } else { &settings };
    let session = Session::start(engine, program, settings);
    // What follows is warm, and a look-up has succeeded, or three have shown that there are none.
    session.run(&spec());
    session
}

fn spec() -> RunSpec {
    RunSpec { sidecar_image: "sidecar".to_owned(), ..RunSpec::default() }
}

fn bursts(bench: &Bench) -> Vec<Figure> {
    let figure = |delay: u64| bench.figure(format!("burst of short tasks, {delay} ms per look-up"), "ms");
    let mut figures = DELAYS.map(figure);
    let runs = bench.pick(RUNS, QUICK_RUNS);
    for _ in bench.rounds(5, 1) {
        for (figure, delay) in figures.iter_mut().zip(DELAYS) {
            for (index, program) in bench.programs.iter().enumerate() {
                let without = burst(program, runs, None);
                figure.add_pair(index, without, burst(program, runs, Some(Duration::from_millis(delay))));
            }
        }
    }
    figures.into()
}

/// Returns the time from the first assignment to the end of this number of runs, in milliseconds. Further runs keep the slots busy
/// to the end. An answer of the REST part takes this time; `None`: there is no REST part.
fn burst(program: &Program, runs: usize, rest: Option<Duration>) -> f64 {
    let engine = SleepingEngine::of_short_tasks();
    let session = start(&Engine::at(&engine.host()), program, rest.is_some());
    let plane = &session.plane;
    plane.delay_rest(rest.unwrap_or_default());
    let count = |state: fn(State) -> bool| {
        move |model: &Model| model.runs.iter().filter(|run| state(run.state)).count()
    };
    let (waiting, ended) = (count(|state| state == State::Claimed), count(State::ended));
    let begun = Instant::now();
    while plane.view(ended) < runs {
        plane.submit(spec());
        let has_room = plane.holds_within(time_left(), |model| waiting(model) < WAITING);
        assert!(has_room, "no run was claimed\n{}", session.log_tail());
    }
    let time = millis(begun.elapsed());
    let good = plane.view(|model| {
        let mut ended = model.runs.iter().filter(|run| run.state.ended());
        ended.all(|run| run.state == State::Succeeded)
    });
    assert!(good, "a run has failed\n{}", session.log_tail());
    time
}

/// One warm task, with a REST part that answers at once.
fn warm_task(bench: &Bench) -> Figure {
    let mut time = bench.figure("one task to completed, with look-ups", "ms");
    let engine = SleepingEngine::of_short_tasks();
    let engine = Engine::at(&engine.host());
    let sessions =
        bench.programs.iter().map(|program| [false, true].map(|rest| start(&engine, program, rest)));
    let sessions: Vec<_> = sessions.collect();
    for _ in bench.rounds(30, 10) {
        for (index, [without, with]) in sessions.iter().enumerate() {
            let without = without.run(&spec());
            time.add_pair(index, without, with.run(&spec()));
        }
    }
    time
}
