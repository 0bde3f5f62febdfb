//! Tasks with much output, from the assignment to the report. The floor runs the same container by hand and reads its log.

use std::time::Duration;

use crate::bench::Bench;
use crate::figure::Figure;
use crate::session::{Session, timed};

/// A kind of output.
struct Kind {
    name: &'static str,
    /// In MiB, without and with `BENCH_QUICK`.
    full: u32,
    quick: u32,
    /// A command that writes without an end.
    source: &'static str,
}

const KINDS: [Kind; 4] = [
    Kind { name: "128-byte lines", full: 64, quick: 16, source: "yes $(printf '%0127d' 7)" },
    Kind { name: "2-byte lines", full: 8, quick: 1, source: "yes y" },
    Kind { name: "one line", full: 64, quick: 16, source: "tr '\\000' y < /dev/zero" },
    Kind { name: "binary", full: 16, quick: 2, source: "cat /dev/urandom" },
];

pub fn measure(bench: &Bench) -> Vec<Figure> {
    let sessions = bench.start_all(&[]);
    for session in &sessions {
        session.run(&bench.spec("true"));
    }
    let mut figures = Vec::new();
    for kind in &KINDS {
        if !figures.is_empty() && !bench.has_time(Duration::ZERO) {
            break;
        }
        figures.extend(of_kind(bench, &sessions, kind));
    }
    figures
}

fn of_kind(bench: &Bench, sessions: &[Session], kind: &Kind) -> [Figure; 3] {
    let mib = bench.pick(kind.full, kind.quick);
    let name = format!("{mib} MiB, {}", kind.name);
    let mut time = bench.figure(&name, "ms");
    let mut cpu = bench.figure(format!("{name}, CPU"), "ms");
    let mut peak = bench.figure(format!("{name}, peak"), "MiB");
    let bytes = u64::from(mib) << 20;
    let script = format!("{} | head -c {bytes}", kind.source);
    for (index, session) in sessions.iter().enumerate() {
        let floor = timed(|| assert!(bench.hand.run_and_read_log(&script) > bytes));
        let gauge = session.gauge();
        gauge.reset_peak();
        let before = gauge.cpu_ms();
        time.add_pair(index, floor, session.run(&bench.spec(&script)));
        cpu.add(index, gauge.cpu_ms() - before);
        peak.add(index, gauge.peak_mib());
    }
    [time, cpu, peak]
}
