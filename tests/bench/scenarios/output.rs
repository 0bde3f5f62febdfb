//! Tasks with much output, from the assignment to the report. The floor of a time is to run the same container by hand and to read
//! its log; the floor of a peak is the memory of the same worker before all output.

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

/// Of short lines and of bytes that are not text less, because the engine takes seconds for each MiB of them.
const KINDS: [Kind; 4] = [
    Kind { name: "128-byte lines", full: 64, quick: 16, source: "yes $(printf '%0127d' 7)" },
    Kind { name: "2-byte lines", full: 2, quick: 1, source: "yes y" },
    Kind { name: "one line", full: 64, quick: 16, source: "tr '\\000' y < /dev/zero" },
    Kind { name: "binary", full: 16, quick: 2, source: "cat /dev/urandom" },
];

pub fn measure(bench: &Bench) -> Vec<Figure> {
    let sessions = bench.start_all(&[]);
    for session in &sessions {
        session.run(&bench.spec("true"));
    }
    let idle: Vec<f64> = sessions.iter().map(|session| session.gauge().rss_mib()).collect();
    let mut figures: Vec<[Figure; 3]> = KINDS.iter().map(|kind| empty(bench, kind)).collect();
    for _ in bench.rounds(3, 1) {
        for (kind, figures) in KINDS.iter().zip(&mut figures) {
            one_round(bench, &sessions, &idle, kind, figures);
        }
    }
    figures.into_iter().flatten().collect()
}

fn empty(bench: &Bench, kind: &Kind) -> [Figure; 3] {
    let Kind { name, .. } = kind;
    let time = format!("{} MiB, {name}", bench.pick(kind.full, kind.quick));
    let rate = format!("{name}, MiB per CPU second");
    [bench.figure(time, "ms"), bench.figure(rate, ""), bench.figure(format!("{name}, peak"), "MiB")]
}

fn one_round(
    bench: &Bench,
    sessions: &[Session],
    idle: &[f64],
    kind: &Kind,
    [time, rate, peak]: &mut [Figure; 3],
) {
    let mib = bench.pick(kind.full, kind.quick);
    let bytes = u64::from(mib) << 20;
    let script = format!("{} | head -c {bytes}", kind.source);
    for (index, session) in sessions.iter().enumerate() {
        let floor = timed(|| assert!(bench.hand.run_and_read_log(&script) > bytes));
        let usage = session.run_measured(&bench.spec(&script), 1);
        time.add_pair(index, floor, usage.time);
        rate.add(index, usage.per_cpu_second(f64::from(mib)));
        peak.add_pair(index, idle[index], usage.peak);
    }
}
