//! How many instructions and allocations a message and a task's output take, measured by valgrind and compared with recorded
//! numbers. Unlike times, they are the same on a busy machine.
//!
//! `instructions`. It fails if a number differs from the recorded one by more than [`TOLERANCE`]; then find out why, and record the
//! new number in [`RECORDED`]. With another compiler than the recorded one it only prints the numbers. Without valgrind it says so.
//!
//! `instructions NAME COUNT` does one kind of work this many times. Two runs with different counts tell the cost of one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a program for developers"
)]

use std::process::{Command, ExitCode};

#[path = "../support/messages.rs"]
mod messages;

use messages::assignment;
use oz_agent_worker::fuzz::collect_output;
use oz_agent_worker::protocol::{
    Dialect, EncodedReport, ExecutionKey, Outgoing, Report, RunResult, decode, encode,
};

/// The largest difference from a recorded number, as a share of it.
const TOLERANCE: f64 = 0.05;

/// The compiler of the recorded numbers. They also depend on the processor: memchr uses AVX2 if that is available.
const RUSTC: &str = "1.95.0 (59807616e 2026-04-14)";

/// How often work is done in the longer of two runs, besides once.
const TIMES: u32 = 20;

/// Recorded numbers of one kind of work.
struct Recorded {
    name: &'static str,
    what: &'static str,
    instructions: f64,
    allocations: f64,
}

const RECORDED: [Recorded; 6] = [
    Recorded { name: "decode", what: "decode an assignment", instructions: 72_090.0, allocations: 59.0 },
    Recorded { name: "claim", what: "encode a claim", instructions: 6_217.0, allocations: 13.0 },
    Recorded {
        name: "report",
        what: "encode a report of 64 KiB",
        instructions: 2_461_724.0,
        allocations: 18.0,
    },
    Recorded {
        name: "lines",
        what: "scan 1 MiB in 128-byte lines",
        instructions: 5_050_331.0,
        allocations: 8.0,
    },
    Recorded {
        name: "links",
        what: "scan 1 MiB with a link in each line",
        instructions: 63_637_690.0,
        allocations: 15_371.0,
    },
    Recorded { name: "binary", what: "scan 1 MiB of binary", instructions: 122_676_346.0, allocations: 39.0 },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [name, count] => {
            work(name, count.parse().expect("a count"));
            ExitCode::SUCCESS
        }
        _ => compare(),
    }
}

/// Does one kind of work `count` times.
fn work(name: &str, count: u32) {
    let line = format!("{:0127}\n", 7);
    let (small, large) = (line.repeat(512), line.repeat(8 << 10));
    let links = "see https://github.com/owner/repository/pull/7 of this session for it\n".repeat(15 << 10);
    let binary: Vec<u8> =
        (0..1_u32 << 20).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let assignment = assignment();
    for _ in 0..count {
        match name {
            "decode" => drop(decode(&assignment, None).expect("an assignment")),
            "claim" => drop(encode(&claim(), "worker")),
            "report" => drop(report(&small)),
            "lines" => assert!(collect_output(large.as_bytes()) > 0),
            "links" => assert!(collect_output(links.as_bytes()) > 0),
            "binary" => assert!(collect_output(&binary) > 0),
            _ => panic!("no work is called {name}"),
        }
    }
}

fn claim() -> Outgoing {
    Outgoing::Claimed { key: ExecutionKey::new("run-1", None), dialect: Dialect::Old }
}

fn report(output: &str) -> EncodedReport {
    let report = Report {
        key: ExecutionKey::new("0f5e9c1a-run", None),
        dialect: Dialect::Old,
        result: RunResult::Completed { exit_code: 0, out_of_memory: false, note: None },
        output: output.to_owned(),
        artifacts: Vec::new(),
        session_link: None,
    };
    EncodedReport::new(report, "worker")
}

/// Measures and prints all numbers. Fails if one is too far from its recorded number.
fn compare() -> ExitCode {
    println!();
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("instructions: not counted, because valgrind is not installed");
        return ExitCode::SUCCESS;
    }
    let same_compiler = is_built_by(RUSTC);
    if !same_compiler {
        println!("instructions: not compared, because the recorded numbers are those of rustc {RUSTC}");
    }
    println!("{:48}{:>14}{:>14}{:>8}", "one piece of work, under valgrind", "counted", "recorded", "ratio");
    let mut differs = false;
    for recorded in &RECORDED {
        let counts = [
            ("instructions", cost(recorded.name, instructions), recorded.instructions),
            ("allocations", cost(recorded.name, allocations), recorded.allocations),
        ];
        for (unit, counted, expected) in counts {
            let (ratio, what) = (counted / expected, format!("{}: {unit}", recorded.what));
            println!("{what:48}{counted:>14.1}{expected:>14.1}{ratio:>8.3}");
            differs |= (counted - expected).abs() > TOLERANCE * expected;
        }
    }
    if same_compiler && differs {
        println!("instructions: more than {:.0} % from a recorded number", TOLERANCE * 100.0);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Returns what one more piece of work takes.
fn cost(name: &str, count: fn(&str, u32) -> f64) -> f64 {
    (count(name, TIMES + 1) - count(name, 1)) / f64::from(TIMES)
}

fn instructions(name: &str, times: u32) -> f64 {
    // "==123== Collected : 456"
    let text = valgrind(&["--tool=callgrind", "--callgrind-out-file=/dev/null"], name, times);
    number_after(&text, "Collected : ")
}

fn allocations(name: &str, times: u32) -> f64 {
    // "==123== Total:     4,567 bytes in 89 blocks"
    let text = valgrind(&["--tool=dhat", "--dhat-out-file=/dev/null"], name, times);
    let total = text.split_once("Total:").expect("a total").1;
    number_after(total, "bytes in ")
}

/// Runs this program under valgrind. Returns valgrind's messages.
fn valgrind(options: &[&str], name: &str, times: u32) -> String {
    let own = std::env::current_exe().expect("its own path");
    let mut command = Command::new("valgrind");
    command.args(options).arg(own).args([name, &times.to_string()]);
    let output = command.output().expect("valgrind runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// Returns the number that follows `label`.
fn number_after(text: &str, label: &str) -> f64 {
    let rest = text.split_once(label).unwrap_or_else(|| panic!("no {label:?} in {text}")).1;
    let digits = rest.split_whitespace().next().expect("a number").replace(',', "");
    digits.parse().expect("a number")
}

/// Whether this version of the compiler has built this program, by the note that it leaves in the file.
fn is_built_by(version: &str) -> bool {
    let own = std::fs::read(std::env::current_exe().expect("its own path")).expect("its own file");
    let note = format!("rustc version {version}\0").into_bytes();
    own.windows(note.len()).any(|window| window == note)
}
