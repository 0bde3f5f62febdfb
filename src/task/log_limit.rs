//! The size limit of a container's log, so that one task cannot fill the engine's disk with it.

use std::sync::{Arc, Mutex, PoisonError};

use log::debug;

use super::engine::TaskEngine;
use super::names;
use super::plan::{Plan, TaskSettings};
use super::sidecar::HelperSpec;
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

/// What the engine does with logs by default; learned once.
#[derive(Default)]
pub(super) struct LogLimit(Mutex<Option<LogConfig>>);

impl LogLimit {
    /// Limits the log of a planned container, if the engine's defaults are known.
    pub(super) fn apply(&self, plan: &mut Plan) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(default) = known.as_ref() {
            limit(plan, default);
        }
    }

    /// As [`LogLimit::apply`], after asking the engine if its defaults are not known: a container that is never started shows them.
    /// `image` is the id of an image. A failure leaves the log without a limit.
    pub(super) fn learn(
        &self,
        engine: &TaskEngine<'_>,
        settings: &TaskSettings,
        image: &str,
        plan: &mut Plan,
    ) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() && !plan.container.log_opts.contains_key(MAX_SIZE) {
            match ask(engine, settings, image) {
                Ok(default) => *known = Some(default),
                Err(error) => {
                    debug!("log driver not known {} error={}", engine.key, value(&error_chain(&error)));
                }
            }
        }
        drop(known);
        self.apply(plan);
    }
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

    use super::*;
    use crate::docker::Reference;
    use crate::protocol::Assignment;
    use crate::task::plan::plan;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Returns the log options of a task, with these of the operator and this default of the engine.
    fn limited(operator: &[(&str, &str)], driver: &str, engine: &[(&str, &str)]) -> BTreeMap<String, String> {
        let options = ContainerOptions { log_opts: map(operator), ..ContainerOptions::default() };
        let settings = TaskSettings {
            worker_id: "w".into(),
            process_id: "p".into(),
            shared_id: false,
            server_root_url: "http://h".into(),
            volumes: vec![],
            container: Arc::new(options),
            env: vec![],
            default_image: Reference::parse("a").unwrap(),
            sidecar_image: None,
            idle_on_complete: None,
            session_sharing_server_url: None,
        };
        let mut plan = plan(&Assignment::default(), &settings, 1).unwrap();
        let default = LogConfig { driver: driver.to_owned(), options: map(engine) };
        LogLimit(Mutex::new(Some(default))).apply(&mut plan);
        plan.container.log_opts.clone()
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
