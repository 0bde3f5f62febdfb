//! Tasks with 1 GiB of output, and with a large cap. The bench makes the log instead of the engine, which takes minutes to
//! store that much. The log has the engine's form, a chunk for each line, but arrives as fast as the worker reads. The floor of
//! memory is that of the same worker before all output.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use crate::bench::Bench;
use crate::figure::Figure;
use crate::session::{Program, Session, VERSUS};
use crate::support::engine::Engine;
use crate::support::engine_proxy::EngineProxy;

/// How long after the end of a task the memory is read again.
const AFTERWARDS: Duration = Duration::from_secs(10);

/// A kind of output.
struct Kind {
    name: &'static str,
    /// In MiB, without and with `BENCH_QUICK`.
    full: usize,
    quick: usize,
    /// About how long a worker takes for `full`, in seconds.
    seconds: u64,
    /// Returns 1 MiB in the pieces that the engine would send.
    pieces: fn() -> Vec<Vec<u8>>,
}

const LINES: Kind = Kind {
    name: "128-byte lines",
    full: 1024,
    quick: 64,
    seconds: 2,
    pieces: || vec![line(128); (1 << 20) / 128],
};

/// The most expensive last: 1 GiB of it takes 10 to 20 s of processor time, and is left out if the scenario's time is over.
const KINDS: [Kind; 4] = [
    LINES,
    Kind {
        name: "one line",
        full: 1024,
        quick: 64,
        seconds: 2,
        pieces: || vec![vec![b'y'; PIECE]; (1 << 20) / PIECE],
    },
    Kind { name: "binary", full: 1024, quick: 8, seconds: 15, pieces: random },
    Kind { name: "2-byte lines", full: 1024, quick: 4, seconds: 25, pieces: || vec![line(2); (1 << 20) / 2] },
];

/// What requests for a log contain.
const LOGS: &str = "/logs?";

/// The engine cuts longer lines into pieces of this many bytes.
const PIECE: usize = 16 << 10;

/// The cap that is larger than the default, and the output beside it, in MiB.
const CAP: u32 = 64;
const BEYOND_CAP: usize = 96;

pub fn measure(bench: &Bench) -> Vec<Figure> {
    let proxy = EngineProxy::start(bench.engine.host());
    let mut figures = large_cap(bench, &proxy);
    figures.extend(default_cap(bench, &proxy));
    figures
}

fn default_cap(bench: &Bench, proxy: &EngineProxy) -> Vec<Figure> {
    let all = bench.programs.iter().enumerate();
    let workers: Vec<Worker> =
        all.map(|(index, program)| Worker::start(bench, proxy, index, program)).collect();
    let mut figures = Vec::new();
    for Kind { name, full, quick, seconds, pieces } in KINDS {
        let mib = bench.pick(full, quick);
        let takes = bench.pick(Duration::from_secs(seconds), Duration::ZERO);
        proxy.answer(LOGS, chunks(&pieces()), mib);
        let mut time = bench.figure(format!("{mib} MiB, {name}"), "ms");
        let mut rate = bench.figure(format!("{name}, MiB per CPU second"), "");
        let mut peak = bench.figure(format!("{name}, peak"), "MiB");
        for worker in workers.iter().filter(|_| bench.has_time(takes)) {
            let before = proxy.count(LOGS);
            let usage = worker.session.run_measured(&bench.spec("true"), 1);
            if proxy.count(LOGS) == before {
                // The worker uses one connection for several requests, and the proxy has not seen this one.
                continue;
            }
            time.add(worker.index, usage.time);
            rate.add(worker.index, usage.per_cpu_second(mib as f64));
            peak.add_pair(worker.index, worker.idle, usage.peak);
        }
        figures.extend([time, rate, peak].into_iter().filter(|figure| figure.samples() > 0));
    }
    figures
}

/// Measures all workers but that of `BENCH_VS`, whose cap is another setting.
fn large_cap(bench: &Bench, proxy: &EngineProxy) -> Vec<Figure> {
    let cap = format!("cap of {CAP} MiB");
    let mut peak = bench.figure(format!("{cap}, peak"), "MiB");
    let mut after = bench.figure(format!("{cap}, {} s afterwards", AFTERWARDS.as_secs()), "MiB");
    let own = bench.programs.iter().enumerate().filter(|(_, program)| program.name != VERSUS);
    let start = |(index, program): (usize, &Program)| {
        let mut program = program.clone();
        program.args.extend(["--max-output".to_owned(), format!("{CAP}MiB")]);
        Worker::start(bench, proxy, index, &program)
    };
    let workers: Vec<Worker> = own.map(start).collect();
    proxy.answer(LOGS, chunks(&(LINES.pieces)()), BEYOND_CAP);
    for worker in &workers {
        let usage = worker.session.run_measured(&bench.spec("true"), 1);
        peak.add_pair(worker.index, worker.idle, usage.peak);
    }
    std::thread::sleep(AFTERWARDS);
    for worker in &workers {
        after.add_pair(worker.index, worker.idle, worker.session.gauge().rss_mib());
    }
    vec![peak, after]
}

/// A worker behind the proxy.
struct Worker {
    /// Its column.
    index: usize,
    session: Session,
    /// Its memory before all output.
    idle: f64,
}

impl Worker {
    /// Starts a worker and runs a task without output.
    fn start(bench: &Bench, proxy: &EngineProxy, index: usize, program: &Program) -> Self {
        proxy.answer(LOGS, Vec::new(), 0);
        let session = Session::start(&Engine::at(&proxy.host()), program, &[]);
        session.run(&bench.spec("true"));
        let idle = session.gauge().rss_mib();
        Self { index, session, idle }
    }
}

/// Returns a line of this many bytes.
fn line(length: usize) -> Vec<u8> {
    let mut line = vec![b'7'; length];
    line[length - 1] = b'\n';
    line
}

/// Returns 1 MiB of random bytes, cut after each line feed.
fn random() -> Vec<Vec<u8>> {
    let mut bytes = vec![0; 1 << 20];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).expect("random bytes");
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .flat_map(|line| line.chunks(PIECE))
        .map(<[u8]>::to_vec)
        .collect()
}

/// Returns one chunk of an HTTP body for each piece: the piece as a frame of standard output.
fn chunks(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        let length = u32::try_from(piece.len()).expect("a short piece");
        out.extend_from_slice(format!("{:x}\r\n", piece.len() + 8).as_bytes());
        out.extend_from_slice(&[1, 0, 0, 0]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out
}
