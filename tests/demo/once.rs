//! `demo run`: one task from the control plane into a container and back, every step checked.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::stage::Stage;
use crate::support::control_plane::{Run, State};
use crate::watch::{self, Ended};

const DEADLINE: Duration = Duration::from_secs(120);
const PULL_REQUEST: &str = "https://github.com/example/project/pull/42";

/// Plays it; the error says what went wrong.
pub fn run(worker: &Path, interrupted: &AtomicBool) -> Result<(), String> {
    let stage = Stage::set(worker, [0])?;
    println!();
    let id = stage.plane.submit(stage.spec("say hello and open a pull request"));
    let ended = |runs: &[Run]| runs.iter().all(|run| run.state.ended());
    let watched = watch::until(&stage, interrupted, Some(DEADLINE), ended);
    println!();
    let (run, violations) = (stage.plane.run(&id), stage.plane.violations());
    // Even when it went wrong: nothing may be left on the engine.
    let struck = stage.strike();
    match watched {
        Ended::Done => check(&run, &violations)?,
        other => return Err(format!("the run was {} when it ended: {other:?}", run.state)),
    }
    struck?;
    println!(
        "\nAll as it should be: one task went from the control plane through the worker into a container and back."
    );
    Ok(())
}

fn check(run: &Run, violations: &[String]) -> Result<(), String> {
    let output = run.output.clone().unwrap_or_default();
    let session = format!("https://agents.example/session/{}", run.id);
    let started = format!("agent started for task {}", run.id);
    let checks = [
        ("the state is SUCCEEDED", run.state == State::Succeeded),
        ("the exit code is 0", run.exit_code == Some(0)),
        ("the output is the agent's", output.starts_with(&started)),
        ("the prompt has come through", output.contains("prompt: say hello and open a pull request")),
        ("it worked in /workspace", output.contains("working in /workspace as root")),
        ("the pull request is an artifact", run.pull_requests() == [PULL_REQUEST]),
        ("the session link was found", run.session_link.as_deref() == Some(session.as_str())),
        (
            "it was sent, claimed and reported once",
            (run.deliveries, run.claims, run.terminal_reports) == (1, 1, 1),
        ),
        ("the worker kept to the protocol", violations.is_empty()),
    ];
    for (what, holds) in checks {
        println!("{} {what}", if holds { "ok " } else { "NOT" });
    }
    let broken: Vec<&str> = checks.iter().filter(|(_, holds)| !holds).map(|(what, _)| *what).collect();
    if broken.is_empty() { Ok(()) } else { Err(format!("not so: {}; {violations:?}", broken.join(", "))) }
}
