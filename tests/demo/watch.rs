//! Prints the progress of runs: a line for each new state, and the result at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::setup::Setup;
use crate::support::control_plane::Run;

/// How often to check for Ctrl-C; changes are printed at once.
const INTERVAL: Duration = Duration::from_millis(200);

/// Why [`until`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The condition holds.
    Done,
    /// Ctrl-C.
    Interrupted,
    /// The worker exited.
    WorkerExited,
    /// The deadline passed.
    TimedOut,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Interrupted => "interrupted",
            Self::WorkerExited => "the worker exited by itself",
            Self::TimedOut => "timed out",
        })
    }
}

/// Prints the progress of all runs until `done` holds for them, or for another reason of [`Outcome`].
pub fn until(
    setup: &Setup,
    interrupted: &AtomicBool,
    deadline: Option<Duration>,
    done: impl Fn(&[Run]) -> bool,
) -> Outcome {
    let (start, mut shown) = (Instant::now(), BTreeMap::new());
    loop {
        let runs = setup.stage.plane.runs();
        for run in &runs {
            show(run, shown.entry(run.id.clone()).or_insert(0));
        }
        if done(&runs) {
            return Outcome::Done;
        } else if interrupted.load(Ordering::SeqCst) {
            return Outcome::Interrupted;
        } else if !setup.worker.is_running() {
            return Outcome::WorkerExited;
        } else if deadline.is_some_and(|deadline| start.elapsed() > deadline) {
            return Outcome::TimedOut;
        }
        let unseen = |run: &Run| shown.get(&run.id).is_none_or(|count| *count < run.states.len());
        setup.stage.plane.holds_within(INTERVAL, |model| model.runs.iter().any(unseen));
    }
}

fn show(run: &Run, shown: &mut usize) {
    let short = run.id.get(..8).unwrap_or(&run.id);
    for state in &run.states[*shown..] {
        println!("run {short}   {state}");
    }
    if *shown < run.states.len() && run.state.ended() {
        show_result(run);
    }
    *shown = run.states.len();
}

fn show_result(run: &Run) {
    for line in run.output.iter().flat_map(|output| output.lines()) {
        println!("  output       | {line}");
    }
    if let Some(code) = run.exit_code {
        println!("  exit code    {code}");
    }
    if let Some(message) = &run.message {
        println!("  failed       {message} ({})", run.failure_reason.as_deref().unwrap_or("no reason"));
    }
    for url in run.pull_requests() {
        println!("  pull request {url}");
    }
    if let Some(link) = &run.session_link {
        println!("  session      {link}");
    }
}
