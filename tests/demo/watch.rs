//! Shows what becomes of runs: a line for each new state, and the result at the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::stage::Stage;
use crate::support::control_plane::Run;

/// How often a Ctrl-C is looked for; changes themselves are shown at once.
const LOOK: Duration = Duration::from_millis(200);

/// Why watching ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// What was waited for has come.
    Done,
    /// Ctrl-C.
    Interrupted,
    /// The worker has ended by itself.
    WorkerGone,
    /// It took too long.
    TooLate,
}

/// Shows all runs until `done` says that it is enough, or something else ends it.
pub fn until(
    stage: &Stage,
    interrupted: &AtomicBool,
    deadline: Option<Duration>,
    done: impl Fn(&[Run]) -> bool,
) -> Ended {
    let (start, mut shown) = (Instant::now(), BTreeMap::new());
    loop {
        let runs = stage.plane.runs();
        for run in &runs {
            show(run, shown.entry(run.id.clone()).or_insert(0));
        }
        if done(&runs) {
            return Ended::Done;
        } else if interrupted.load(Ordering::SeqCst) {
            return Ended::Interrupted;
        } else if !stage.worker_runs() {
            return Ended::WorkerGone;
        } else if deadline.is_some_and(|deadline| start.elapsed() > deadline) {
            return Ended::TooLate;
        }
        let unseen = |run: &Run| shown.get(&run.id).is_none_or(|count| *count < run.states.len());
        stage.plane.holds_within(LOOK, |world| world.runs.iter().any(unseen));
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
