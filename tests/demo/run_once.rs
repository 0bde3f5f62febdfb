//! `demo run`: runs one task from the control plane in a container, and checks every result.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::setup::Setup;
use crate::support::control_plane::{Dialect, Run, State};
use crate::watch::{self, Outcome};

const DEADLINE: Duration = Duration::from_secs(120);
const PULL_REQUEST: &str = "https://github.com/example/project/pull/42";

/// Runs the demo. Returns an error that says what went wrong.
pub fn run(worker: &Path, dialect: Dialect, interrupted: &AtomicBool) -> Result<(), String> {
    let setup = Setup::start(worker, dialect, [0])?;
    println!();
    let id = setup.stage.plane.submit(setup.spec("say hello and open a pull request"));
    let ended = |runs: &[Run]| runs.iter().all(|run| run.state.ended());
    let outcome = watch::until(&setup, interrupted, Some(DEADLINE), ended);
    println!();
    let (run, violations) = (setup.stage.plane.run(&id), setup.stage.plane.violations());
    // Also after a failure, so that nothing stays on the engine.
    let stopped = setup.stop();
    match outcome {
        Outcome::Done => check(&run, dialect, &violations)?,
        other => return Err(format!("the run was {}: {other}", run.state)),
    }
    stopped?;
    println!(
        "\nSuccess: one task went from the control plane through the worker into a container, and its result back."
    );
    Ok(())
}

fn check(run: &Run, dialect: Dialect, violations: &[String]) -> Result<(), String> {
    let mut checks = vec![
        ("the state is SUCCEEDED", run.state == State::Succeeded),
        (
            "the task was sent, claimed and reported once",
            (run.deliveries, run.claims, run.terminal_reports) == (1, 1, 1),
        ),
        ("the worker followed the protocol", violations.is_empty()),
    ];
    // The public control plane gets the rest from the agent.
    if dialect == Dialect::Old {
        checks.extend(check_output(run));
    }
    for (what, holds) in &checks {
        println!("{} {what}", if *holds { "ok    " } else { "FAILED" });
    }
    let failed: Vec<&str> = checks.iter().filter(|(_, holds)| !holds).map(|(what, _)| *what).collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("failed checks: {}; protocol violations: {violations:?}", failed.join(", ")))
    }
}

/// Checks what is in the report only at the old control plane.
fn check_output(run: &Run) -> [(&'static str, bool); 6] {
    let output = run.output.clone().unwrap_or_default();
    let session = format!("https://agents.example/session/{}", run.id);
    let started = format!("agent started for task {}", run.id);
    [
        ("the exit code is 0", run.exit_code == Some(0)),
        ("the output is the agent's", output.starts_with(&started)),
        ("the agent received the prompt", output.contains("prompt: say hello and open a pull request")),
        ("the agent worked in /workspace", output.contains("working in /workspace as root")),
        ("the pull request was reported", run.pull_requests() == [PULL_REQUEST]),
        ("the session link was reported", run.session_link.as_deref() == Some(session.as_str())),
    ]
}
