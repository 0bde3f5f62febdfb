//! One warm task `true`, from its assignment to its report, and the worker's processor time for it. The floor is to create, start,
//! await and remove the same container by hand.

use crate::bench::Bench;
use crate::figure::Figure;
use crate::session::timed;

pub fn measure(bench: &Bench) -> Vec<Figure> {
    ["auto", "missing"].into_iter().flat_map(|policy| with_policy(bench, policy)).collect()
}

fn with_policy(bench: &Bench, policy: &str) -> [Figure; 2] {
    let mut time = bench.figure(format!("true to completed, pull {policy}"), "ms");
    let mut cpu = bench.figure(format!("CPU per task, pull {policy}"), "ms");
    let sessions = bench.start_all(&[("OZ_PULL", policy)]);
    let spec = bench.spec("true");
    bench.hand.run("true");
    for session in &sessions {
        session.run(&spec);
    }
    let before: Vec<f64> = sessions.iter().map(|session| session.gauge().cpu_ms()).collect();
    let mut count = 0;
    for _ in bench.rounds(30, 10) {
        for (index, session) in sessions.iter().enumerate() {
            let floor = timed(|| bench.hand.run("true"));
            time.add_pair(index, floor, session.run(&spec));
        }
        count += 1;
    }
    // One value over all tasks, because the kernel counts in steps of 10 ms.
    for (index, session) in sessions.iter().enumerate() {
        cpu.add(index, (session.gauge().cpu_ms() - before[index]) / f64::from(count));
    }
    [time, cpu]
}
