//! Many tasks `true` at once, all of which may run at the same time. The floor is as many threads that each run one by hand.

use crate::bench::Bench;
use crate::figure::Figure;
use crate::session::{Session, timed};

pub fn measure(bench: &Bench) -> Vec<Figure> {
    let counts = bench.pick([10, 100].as_slice(), [5, 20].as_slice());
    let most = counts.iter().max().expect("a count").to_string();
    let sessions = bench.start_all(&[("OZ_MAX_CONCURRENT_TASKS", &most)]);
    for session in &sessions {
        session.run(&bench.spec("true"));
    }
    counts.iter().flat_map(|count| at_once(bench, &sessions, *count)).collect()
}

fn at_once(bench: &Bench, sessions: &[Session], count: usize) -> [Figure; 3] {
    let mut time = bench.figure(format!("{count} true at once"), "ms");
    let mut cpu = bench.figure(format!("{count} at once, CPU per task"), "ms");
    let mut peak = bench.figure(format!("{count} at once, peak memory"), "MiB");
    // A hundred take half a minute for two workers and their floors.
    for _ in bench.rounds(if count > 10 { 1 } else { 3 }, 1) {
        for (index, session) in sessions.iter().enumerate() {
            let floor = timed(|| by_hand(bench, count));
            let usage = session.run_measured(&bench.spec("true"), count);
            time.add_pair(index, floor, usage.time);
            cpu.add(index, usage.cpu / count as f64);
            peak.add(index, usage.peak);
        }
    }
    [time, cpu, peak]
}

fn by_hand(bench: &Bench, count: usize) {
    let hand = &bench.hand;
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| hand.run("true"));
        }
    });
}
