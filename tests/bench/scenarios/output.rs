//! Tasks with much output, from the assignment to the report. The floor runs the same container by hand and reads its log.

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
    let mut figures: Vec<[Figure; 3]> = KINDS.iter().map(|kind| empty(bench, kind)).collect();
    for _ in bench.rounds(3, 1) {
        for (kind, figures) in KINDS.iter().zip(&mut figures) {
            one_round(bench, &sessions, kind, figures);
        }
    }
    figures.into_iter().flatten().collect()
}

fn empty(bench: &Bench, kind: &Kind) -> [Figure; 3] {
    let name = format!("{} MiB, {}", bench.pick(kind.full, kind.quick), kind.name);
    let cpu = bench.figure(format!("{name}, CPU"), "ms");
    let peak = bench.figure(format!("{name}, peak"), "MiB");
    [bench.figure(name, "ms"), cpu, peak]
}

fn one_round(bench: &Bench, sessions: &[Session], kind: &Kind, [time, cpu, peak]: &mut [Figure; 3]) {
    let bytes = u64::from(bench.pick(kind.full, kind.quick)) << 20;
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
}
