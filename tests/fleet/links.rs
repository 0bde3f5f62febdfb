//! A thousand links and one control plane that restarts: when do they come back, and does each get its part of the runs?

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use oz_agent_worker::control_plane::ws::Timing;
use oz_agent_worker::exit::Exit;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::figures::{histogram, per_second, percentile, processor_time, status};
use crate::member::{Ended, Member};
use crate::support::control_plane::{ControlPlane, Model, Options, Pacing, RunSpec, State};

const WORKERS: usize = 1000;
/// What each worker gets in each half of the test.
const ROUNDS: usize = 5;
/// As the real control plane does it: each connected worker gets one run.
const POLL: Duration = Duration::from_millis(1500);
/// The time limit of every wait.
const DEADLINE: Duration = Duration::from_secs(120);
/// A connection that lasted as long counts as stable.
const STABLE: Duration = Duration::from_secs(31);

/// Waits until `holds`, which is asked ten times a second: the state is large.
fn wait(plane: &ControlPlane, what: &str, holds: impl Fn(&Model) -> bool) {
    let end = Instant::now() + DEADLINE;
    while !plane.view(&holds) {
        let counts = plane.view(|model| {
            let mut counts = BTreeMap::new();
            for run in &model.runs {
                *counts.entry(run.state.to_string()).or_insert(0) += 1;
            }
            (model.connected(), counts)
        });
        assert!(Instant::now() < end, "timed out: {what}; connected and runs: {counts:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn ended(model: &Model) -> usize {
    model.runs.iter().filter(|run| run.state.ended()).count()
}

fn submit(plane: &ControlPlane, count: usize) {
    let spec = RunSpec { sidecar_image: "none".to_owned(), ..RunSpec::default() };
    for _ in 0..count {
        plane.submit(&spec);
    }
}

/// Restarts the control plane after `outage`, and waits until all workers are back. Panics if more than a tenth of them came back in
/// one second.
fn restart(plane: ControlPlane, outage: Duration) -> ControlPlane {
    let before = plane.connections();
    let (began, used) = (Instant::now(), processor_time());
    let plane = plane.restart_after(outage);
    let down = began.elapsed();
    let open = Instant::now();
    wait(&plane, "all workers are back", |model| model.connected() == WORKERS);
    let times: Vec<Duration> = plane.view(|model| {
        let later = model.connections.iter().skip(before);
        later.map(|connection| connection.at.saturating_duration_since(open)).collect()
    });
    assert_eq!(times.len(), WORKERS, "a worker connected more than once");
    let seconds = per_second(&times);
    let most = seconds.iter().copied().max().unwrap();
    println!(
        "restart: down for {:.1} s, all back {:.1} s later, at most {most} in one second, {:.1} s of processor time\n{}",
        down.as_secs_f64(),
        times.iter().max().unwrap().as_secs_f64(),
        processor_time() - used,
        histogram(&seconds)
    );
    assert!(most * 10 <= WORKERS, "{most} of {WORKERS} workers came back in one second");
    plane
}

/// Lets this process have as many open files as it may.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit }).unwrap();
}

#[test]
fn a_thousand_workers_come_back_over_time_and_none_starves() {
    raise_limit();
    let seconds = std::env::var("OZ_FLEET_SPREAD").ok().map(|seconds| seconds.parse().unwrap());
    let spread = seconds.map_or(Timing::default().spread, Duration::from_secs);
    let plane = ControlPlane::start(Options { pacing: Pacing::Poll(POLL), ..Options::default() });
    let (began, used) = (Instant::now(), processor_time());
    let members: Vec<_> =
        (0..WORKERS).map(|number| Member::start(&plane, &format!("worker-{number}"), spread)).collect();
    wait(&plane, "all workers are connected", |model| model.connected() == WORKERS);
    println!(
        "{WORKERS} workers connected in {:.1} s with {:.1} s of processor time; both sides together: {} threads, {} MiB",
        began.elapsed().as_secs_f64(),
        processor_time() - used,
        status("Threads"),
        status("VmRSS") >> 10
    );

    let half = WORKERS * ROUNDS;
    submit(&plane, half);
    wait(&plane, "the first runs have ended", |model| ended(model) >= half / 2);
    let plane = restart(plane, Duration::ZERO);
    wait(&plane, "the first half of the runs has ended", |model| ended(model) == half);
    wait(&plane, "all connections are stable", |model| {
        model.connections.iter().all(|connection| connection.at.elapsed() > STABLE)
    });
    // Long enough for a second attempt of half of the workers.
    let plane = restart(plane, Duration::from_secs(7));

    let (began, used) = (Instant::now(), processor_time());
    let asked = plane.view(|model| model.requests.len());
    submit(&plane, half);
    wait(&plane, "all runs have ended", |model| ended(model) == 2 * half);
    println!(
        "{half} runs in {:.1} s with {:.1} s of processor time and {} look-ups; {} threads, {} MiB",
        began.elapsed().as_secs_f64(),
        processor_time() - used,
        plane.view(|model| model.requests.len()) - asked,
        status("Threads"),
        status("VmRSS") >> 10
    );
    let ends = end(members);
    check(&plane, &ends);
}

/// Stops all workers.
fn end(members: Vec<Member>) -> Vec<Ended> {
    members.iter().for_each(Member::stop);
    members.into_iter().map(Member::join).collect()
}

/// Checks that no run was started twice or lost, and that each worker had its part.
fn check(plane: &ControlPlane, ends: &[Ended]) {
    assert!(ends.iter().all(|ended| ended.exit == Exit::Success));
    let mut starts: HashMap<&str, usize> = HashMap::new();
    for id in ends.iter().flat_map(|ended| &ended.started) {
        *starts.entry(id).or_default() += 1;
    }
    let runs = plane.runs();
    let failed = runs.iter().filter(|run| run.state != State::Succeeded);
    let failed = failed.inspect(|run| {
        assert_eq!(run.message.as_deref(), Some("the worker disconnected"), "{run:#?}");
    });
    let failed = failed.count();
    for run in &runs {
        let count = starts.get(run.id.as_str()).copied().unwrap_or_default();
        assert!(count <= 1, "started {count} times: {run:#?}");
        assert!(count == 1 || run.state == State::Failed, "never started: {run:#?}");
    }
    let mut parts: HashMap<&str, usize> = HashMap::new();
    for run in runs.iter().filter(|run| run.state == State::Succeeded) {
        *parts.entry(run.worker.as_deref().unwrap()).or_default() += 1;
    }
    let least = parts.values().copied().min().unwrap();
    let most = parts.values().copied().max().unwrap();
    let mut claims: Vec<Duration> = runs
        .iter()
        .filter_map(|run| {
            let claim = run.history.iter().find(|received| received.kind == "task_claimed")?;
            Some(claim.at.saturating_duration_since(run.sent?))
        })
        .collect();
    println!(
        "{} runs, {failed} of them failed with the restart; each of {} workers had {least} to {most}; from assignment to claim: \
         median {:.1?}, 99 % {:.1?}, longest {:.1?}",
        runs.len(),
        parts.len(),
        percentile(&mut claims, 50),
        percentile(&mut claims, 99),
        percentile(&mut claims, 100)
    );
    assert_eq!(parts.len(), WORKERS, "a worker had no run");
    assert!(least >= ROUNDS, "a worker had {least} of {} runs", 2 * ROUNDS);
    plane.assert_no_violations();
}
