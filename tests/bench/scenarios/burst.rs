//! Many assignments at once, far more than a worker can run, until each is claimed or given back.

use std::collections::HashSet;

use crate::bench::Bench;
use crate::figure::Figure;
use crate::link::Link;
use crate::session::millis;

const COUNT: usize = 1000;

pub fn measure(bench: &Bench) -> Vec<Figure> {
    let mut time = bench.figure(format!("{COUNT} assignments answered"), "ms");
    let mut claimed = bench.figure("claimed of them", "");
    let mut cpu = bench.figure("CPU", "ms");
    let mut peak = bench.figure("peak memory", "MiB");
    let spec = bench.failing_spec();
    for _ in bench.rounds(3, 1) {
        for (index, program) in bench.programs.iter().enumerate() {
            let mut link = Link::start(&bench.engine, program);
            let before = link.gauge().cpu_ms();
            let sent: Vec<_> = (0..COUNT).map(|_| link.assign(&spec)).collect();
            let first = sent.first().expect("an assignment").1;
            let mut waiting: HashSet<String> = sent.into_iter().map(|(id, _)| id).collect();
            let (mut claims, mut ended, mut last, mut used) = (0, 0, first, before);
            // To the end of all, so that the worker is idle when it is stopped.
            while !waiting.is_empty() || ended < COUNT {
                let answer = link.next();
                ended += usize::from(answer.is_final());
                if waiting.remove(&answer.task_id) {
                    claims += usize::from(answer.kind == "task_claimed");
                    last = answer.at;
                    used = if waiting.is_empty() { link.gauge().cpu_ms() } else { used };
                }
            }
            time.add(index, millis(last.duration_since(first)));
            claimed.add(index, claims as f64);
            cpu.add(index, used - before);
            peak.add(index, link.gauge().peak_mib());
        }
    }
    vec![time, claimed, cpu, peak]
}
