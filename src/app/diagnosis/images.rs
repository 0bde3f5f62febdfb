//! The steps about the images of tasks: only if an operator names some.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;

use super::report::Step;
use crate::app::deadline::within;
use crate::app::instance::new_process;
use crate::app::settings;
use crate::cli::Config;
use crate::docker::{Docker, Reference, RegistryEnv};
use crate::sys::cancel::{CancelReason, CancelToken};
use crate::sys::pool::spawn_detached;
use crate::task::{Options, Tasks, Tried};

/// How long pulling, filling and running may take together.
const TRIAL: Duration = Duration::from_secs(10 * 60);
/// How long what they made may take to be removed.
const REMOVAL: Duration = Duration::from_secs(60);

/// Tries the images that are named. Returns no steps without any.
pub(super) fn try_out(
    config: &Config,
    docker: Docker,
    registries: RegistryEnv,
    image: Option<Reference>,
    sidecar: Option<Reference>,
) -> Vec<Step> {
    if image.is_none() && sidecar.is_none() {
        return Vec::new();
    }
    let processes = Arc::new(new_process());
    let name = processes.own().to_owned();
    let options = settings::options(config, registries, &name);
    // An engine that goes away is a result.
    let options = Options { engine_timeout: Duration::ZERO, ..options };
    // Nobody takes the events.
    let (events, _) = bounded(1);
    let tasks = Tasks::new(docker, processes, options, events, CancelToken::new(), Arc::default());
    let tried = within(TRIAL + REMOVAL, move |cancel| {
        let timer = cancel.clone();
        let end = move || {
            if timer.sleep(TRIAL) {
                timer.cancel(CancelReason::TimedOut);
            }
        };
        // Without a thread for it, the calls have limits of their own.
        let _ = spawn_detached("oz-step", end);
        tasks.try_images(cancel, &name, image.as_ref(), sidecar.as_ref())
    });
    match tried {
        Some(tried) => tried.into_iter().map(step).collect(),
        None => vec![Step::failed("image", format!("the engine does not end within {:?}", TRIAL + REMOVAL))],
    }
}

fn step((name, result): Tried) -> Step {
    match result {
        Ok(text) => Step::ok(name, text),
        Err(text) => Step::failed(name, text),
    }
}
