//! A connected worker without tasks: memory, threads, wake-ups and processor time. All workers are measured at the same time.

use std::time::Duration;

use crate::bench::Bench;
use crate::figure::Figure;

/// How long a worker is left alone before wake-ups are counted: its threads without a job end after 10 s.
const SETTLE: Duration = Duration::from_secs(12);

pub fn measure(bench: &Bench) -> Vec<Figure> {
    let window = bench.pick(Duration::from_secs(60), Duration::from_secs(15));
    let mut fresh = bench.figure("memory, new", "MiB");
    let mut memory = bench.figure("memory, after one task", "MiB");
    let mut threads = bench.figure("threads, after one task", "");
    let mut wake_ups = bench.figure(format!("wake-ups per minute, in {} s", window.as_secs()), "");
    let mut cpu = bench.figure("CPU per minute", "ms");
    let sessions = bench.start_all(&[]);
    std::thread::sleep(Duration::from_secs(1));
    for (index, session) in sessions.iter().enumerate() {
        fresh.add(index, session.gauge().rss_mib());
        session.run(&bench.spec("true"));
    }
    std::thread::sleep(SETTLE);
    let counters = || sessions.iter().map(|one| (one.gauge().wake_ups(), one.gauge().cpu_ms()));
    let before: Vec<(f64, f64)> = counters().collect();
    std::thread::sleep(window);
    let per_minute = 60.0 / window.as_secs_f64();
    for (index, (woken, used)) in counters().enumerate() {
        wake_ups.add(index, (woken - before[index].0) * per_minute);
        cpu.add(index, (used - before[index].1) * per_minute);
    }
    for (index, session) in sessions.iter().enumerate() {
        memory.add(index, session.gauge().rss_mib());
        threads.add(index, session.gauge().threads());
    }
    vec![fresh, memory, threads, wake_ups, cpu]
}
