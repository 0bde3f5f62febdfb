//! The engine is upgraded or rolled back under a running task, with real engines of several releases.
//!
//! `make test-engines` unpacks them and runs these tests.

use std::path::PathBuf;

use crate::support::control_plane::{ControlPlane, Options, State};
use crate::support::engine::Engine;
use crate::support::private_engine::PrivateEngine;
use crate::support::stage::{DEADLINE, StageBuilder};

/// Returns the `/usr` of a Debian release's engines.
fn usr(suite: &str) -> PathBuf {
    let engines = std::env::var_os("OZ_TEST_ENGINES").expect("run it with `make test-engines`");
    PathBuf::from(engines).join(suite).join("usr")
}

/// Runs a task on the engine of `old`, which is replaced by that of `new` meanwhile, and another one afterwards. `new` does not
/// know the API version that the worker has agreed on with `old`: both are refused until it is negotiated again.
fn change(old: &str, new: &str, environment: &[(&str, &str)]) {
    let mut private = PrivateEngine::in_usr(&usr(old));
    let builder = StageBuilder::new("test").engine(Engine::at(private.host()));
    let mut stage = builder.control_plane(ControlPlane::start(Options::default())).build();
    let worker = stage.start_worker();
    // An engine that is stopped ends its containers with TERM.
    let id = stage.plane.submit(stage.spec("echo begun; trap 'echo ended; exit 3' TERM; sleep 1000 & wait"));
    stage.wait_running(&id);
    private.change_to(&usr(new), environment);
    stage.engine = Engine::at(private.host());
    let run = stage.plane.wait_ended(&id);
    assert_eq!((run.exit_code, run.output.as_deref()), (Some(3), Some("begun\nended\n")), "{run:?}");
    stage.wait_clean();
    let next = stage.run(&stage.spec("echo next"));
    assert_eq!((next.state, next.output.as_deref()), (State::Succeeded, Some("next\n")), "{next:?}");
    worker.wait_log(DEADLINE, |line| line.contains("engine version changed"));
    stage.stop(worker);
}

#[test]
#[ignore = "make test-engines runs it: it needs engines of other releases"]
fn a_task_survives_an_upgrade_that_refuses_the_old_api() {
    change("bookworm", "forky", &[("DOCKER_MIN_API_VERSION", "1.44")]);
}

#[test]
#[ignore = "make test-engines runs it: it needs engines of other releases"]
fn a_task_survives_a_rollback_to_an_engine_without_the_new_api() {
    change("forky", "trixie", &[]);
}
