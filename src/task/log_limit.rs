//! The size limit of a container's log, so that one task cannot fill the engine's disk with it.

use std::sync::{Arc, OnceLock};

use log::debug;

use super::engine::TaskEngine;
use super::names;
use super::plan::{Plan, TaskSettings};
use super::sidecar::HelperSpec;
use super::single_flight::SingleFlight;
use crate::docker::{Error, LogConfig};
use crate::logging::{error_chain, value};
use crate::policy::ContainerOptions;

/// The log drivers that keep files on the engine's disk, and have a limit of their size.
const WITH_FILES: [&str; 2] = ["json-file", "local"];
const MAX_SIZE: &str = "max-size";
const MAX_FILE: &str = "max-file";
/// As much as is ever read of a log.
const SIZE: &str = "2g";
/// With one file only, a full file is emptied, and the end of a log would be lost with its beginning.
const FILES: &str = "2";

/// The key of the question in [`LogLimit::asking`]. It has no parameters.
const QUESTION: &str = "";

/// What the engine does with logs by default; learned once.
#[derive(Default)]
pub(super) struct LogLimit {
    known: OnceLock<LogConfig>,
    /// The answer is `None` if the engine gave none.
    asking: SingleFlight<Option<LogConfig>>,
}

impl LogLimit {
    /// Limits the log of a planned container, if the engine's defaults are known.
    pub(super) fn apply(&self, plan: &mut Plan) {
        if let Some(default) = self.known.get() {
            limit(plan, default);
        }
    }

    /// As [`LogLimit::apply`], after asking the engine if its defaults are not known: a container that is never started shows them.
    /// `image` is the id of an image. Tasks that come meanwhile wait for the same answer. A failure, or a cancel, leaves the log
    /// without a limit.
    // Not inlined: a task that waits keeps the stack of its creation.
    #[inline(never)]
    pub(super) fn learn(
        &self,
        engine: &TaskEngine<'_>,
        settings: &TaskSettings,
        image: &str,
        plan: &mut Plan,
    ) {
        if self.known.get().is_none() && !plan.container.log_opts.contains_key(MAX_SIZE) {
            let ask = || match ask(engine, settings, image) {
                Err(error) if error.is_cancelled() => None,
                answer => Some(answer.map_err(|error| log_failure(engine, &error)).ok()),
            };
            if let Ok(Some(default)) = self.asking.run(QUESTION, &engine.cancel, ask) {
                // Another thread may have set the same.
                let _ = self.known.set(default);
            }
        }
        self.apply(plan);
    }
}

fn log_failure(engine: &TaskEngine<'_>, error: &Error) {
    debug!("log driver not known {} error={}", engine.key, value(&error_chain(error)));
}

/// Returns the log configuration that the engine gives to a container without one.
fn ask(engine: &TaskEngine<'_>, settings: &TaskSettings, image: &str) -> Result<LogConfig, Error> {
    let TaskSettings { worker_id, process_id, .. } = settings;
    let helpers = HelperSpec { engine, worker_id, process_id, image_id: image };
    let helper = helpers.create(&names::populator(&format!("log-{process_id}")), Vec::new())?;
    engine.docker.container_log_config(&engine.cancel, helper.id())
}

fn limit(plan: &mut Plan, default: &LogConfig) {
    let operator = &plan.container.log_opts;
    let is_set = |name: &str| operator.contains_key(name) || default.options.contains_key(name);
    if !WITH_FILES.contains(&default.driver.as_str()) || is_set(MAX_SIZE) {
        return;
    }
    let mut log_opts = operator.clone();
    log_opts.insert(MAX_SIZE.to_owned(), SIZE.to_owned());
    if !is_set(MAX_FILE) {
        log_opts.insert(MAX_FILE.to_owned(), FILES.to_owned());
    }
    plan.container = Arc::new(ContainerOptions { log_opts, ..ContainerOptions::clone(&plan.container) });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use crossbeam_channel::{Receiver, bounded};

    use super::*;
    use crate::protocol::Assignment;
    use crate::sys::cancel::{CancelReason, CancelToken};
    use crate::task::plan::plan;
    use crate::task::scripted_engine::{ScriptedEngine, json};

    const DEADLINE: Duration = Duration::from_secs(30);

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Returns the log options of a task, with these of the operator and this default of the engine.
    fn limited(operator: &[(&str, &str)], driver: &str, engine: &[(&str, &str)]) -> BTreeMap<String, String> {
        let options = ContainerOptions { log_opts: map(operator), ..ContainerOptions::default() };
        let settings = TaskSettings { container: Arc::new(options), ..TaskSettings::plain() };
        let mut plan = plan(&Assignment::default(), &settings, 1).unwrap();
        let default = LogConfig { driver: driver.to_owned(), options: map(engine) };
        let known = LogLimit::default();
        known.known.set(default).unwrap();
        known.apply(&mut plan);
        plan.container.log_opts.clone()
    }

    /// An engine that does not answer the creation of the container before `gate` is closed.
    fn slow_engine(gate: Receiver<()>) -> ScriptedEngine {
        ScriptedEngine::start(move |line, stream| match line {
            _ if line.contains("/containers/create") => {
                let _ = gate.recv();
                json(stream, 201, r#"{"Id":"c"}"#);
            }
            _ if line.contains("/json") => {
                json(stream, 200, r#"{"HostConfig":{"LogConfig":{"Type":"json-file","Config":{}}}}"#);
            }
            _ => json(stream, 204, ""),
        })
    }

    /// Returns whether a task has a limit after it has asked the engine.
    fn learns(limit: &LogLimit, engine: &ScriptedEngine, cancel: &CancelToken) -> bool {
        let mut plan = plan(&Assignment::default(), &TaskSettings::plain(), 1).unwrap();
        engine.with(cancel, |engine| limit.learn(engine, &TaskSettings::plain(), "sha256:1", &mut plan));
        plan.container.log_opts.contains_key(MAX_SIZE)
    }

    #[test]
    fn tasks_wait_for_one_answer_and_can_be_cancelled_meanwhile() {
        let (open, gate) = bounded(0);
        let engine = slow_engine(gate);
        let limit = LogLimit::default();
        let (token, cancelled) = (CancelToken::new(), CancelToken::new());
        std::thread::scope(|scope| {
            let first = scope.spawn(|| learns(&limit, &engine, &token));
            let end = Instant::now() + DEADLINE;
            while engine.count("/containers/create") == 0 {
                assert!(Instant::now() < end, "the engine is not asked");
                std::thread::yield_now();
            }
            let second = scope.spawn(|| learns(&limit, &engine, &token));
            let (sender, result) = bounded(1);
            let (limit, engine, third) = (&limit, &engine, &cancelled);
            scope.spawn(move || sender.send(learns(limit, engine, third)));
            cancelled.cancel(CancelReason::Requested);
            let third = result.recv_timeout(DEADLINE);
            drop(open);
            assert_eq!(third, Ok(false), "the cancelled task goes on waiting");
            assert!(first.join().unwrap() && second.join().unwrap());
        });
        assert!(learns(&limit, &engine, &token), "it is known");
        assert_eq!(engine.count("/containers/create"), 1);
    }

    #[test]
    fn a_log_without_a_limit_gets_one() {
        let both = map(&[("max-size", "2g"), ("max-file", "2")]);
        assert_eq!(limited(&[], "json-file", &[]), both);
        assert_eq!(limited(&[], "local", &[("compress", "true")]), both);
        assert_eq!(
            limited(&[("max-file", "5")], "json-file", &[]),
            map(&[("max-size", "2g"), ("max-file", "5")])
        );
        assert_eq!(limited(&[], "json-file", &[("max-file", "3")]), map(&[("max-size", "2g")]));
        assert_eq!(limited(&[("tag", "x")], "journald", &[]), map(&[("tag", "x")]));
        assert_eq!(limited(&[], "", &[]), map(&[]));
    }

    #[test]
    fn a_limit_of_the_operator_or_of_the_engine_stays() {
        assert_eq!(limited(&[("max-size", "1m")], "json-file", &[]), map(&[("max-size", "1m")]));
        assert_eq!(limited(&[], "json-file", &[("max-size", "10m")]), map(&[]));
    }
}
