//! Finds the engine and the tasks of an earlier process at start, and waits for an engine that is not there yet.
//!
//! At boot an engine may come after the worker, and it may be restarted just then. What only a person can correct ends the
//! worker at once.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::select;
use log::{info, warn};

use super::ended::Ended;
use super::enforcement::{not_enforced, unreadable_log};
use super::engine::{self, EngineError};
use super::instance::new_process;
use super::link::{LINK_END, StartedLink, start_link};
use super::monitor::Monitor;
use super::mounts;
use super::service_manager::Notifier;
use super::settings::network;
use super::signals::Signals;
use crate::cli::Config;
use crate::control_plane::tls::TrustEnv;
use crate::docker::{Docker, EndpointEnv};
use crate::exit::Exit;
use crate::logging::{error_chain, message};
use crate::sys::cancel::CancelToken;
use crate::sys::environment::Environment;
use crate::task::adopt;
use crate::task::processes::Processes;

/// The first pause between two attempts; each pause is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often the log says that the engine is not there.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// An engine that can be used, and what was found on it.
pub(super) struct Found {
    pub(super) docker: Docker,
    /// This process, and those of this worker that have ended.
    pub(super) processes: Arc<Processes>,
    /// What they left on it.
    pub(super) left: adopt::Found,
    /// The link, which may have appeared at the control plane.
    pub(super) started: StartedLink,
}

/// The search for the engine.
pub(super) struct Search<'a> {
    pub(super) config: &'a Config,
    pub(super) environment: &'a Environment,
    /// Cancelled by a signal that stops the worker.
    pub(super) starting: &'a CancelToken,
    pub(super) signals: &'a Signals,
    pub(super) monitor: &'a Monitor,
}

/// The warnings that were logged.
#[derive(Default)]
struct Warned {
    engine: BTreeSet<String>,
    certificates: bool,
}

/// The wait for an engine.
struct Wait {
    since: Instant,
    pause: Duration,
    warned_at: Option<Instant>,
}

impl Search<'_> {
    /// Searches until an engine is found, for at most `--engine-start-timeout`. The link does not appear at the control plane
    /// before that.
    ///
    /// # Errors
    /// How the worker ends, if there is no engine that can be used or the search is cancelled.
    pub(super) fn run(&self, mut started: StartedLink, notifier: &mut Notifier) -> Result<Found, Ended> {
        let mut wait = Wait { since: Instant::now(), pause: FIRST_PAUSE, warned_at: None };
        // Each attempt finds the same, so a warning is logged once.
        let mut warned = Warned::default();
        let processes = Arc::new(new_process());
        loop {
            let appeared = Cell::new(false);
            let found = self.attempt(&processes, &mut warned, || {
                appeared.set(true);
                started.link.allow_upgrade();
            });
            let left =
                self.config.engine_start_timeout.map(|limit| limit.saturating_sub(wait.since.elapsed()));
            let ended = match found {
                Ok((docker, left)) => match mounts::check_engine(self.config, &docker) {
                    Ok(()) => return Ok(Found { docker, processes, left, started }),
                    Err(error) => Ended::failed(Exit::Usage, &error),
                },
                Err(EngineError::Cancelled) => Ended { exit: Exit::Success, reason: None },
                Err(error) if !error.may_pass() || left.is_some_and(|left| left.is_zero()) => {
                    Ended::failed(error.exit(), &error)
                }
                Err(error) => {
                    if appeared.get() {
                        // Messages would wait for as long as the engine is away.
                        started = self.replace(started)?;
                    }
                    match wait.pause(self, notifier, &error_chain(&error), left) {
                        true => continue,
                        false => Ended { exit: Exit::Success, reason: None },
                    }
                }
            };
            started.link.end(LINK_END);
            return Err(ended);
        }
    }

    fn attempt(
        &self,
        processes: &Processes,
        warned: &mut Warned,
        usable: impl Fn(),
    ) -> Result<(Docker, adopt::Found), EngineError> {
        let mut once = |text: String| {
            if !warned.engine.contains(&text) {
                warn!("{text}");
                warned.engine.insert(text);
            }
        };
        let (environment, network) = (EndpointEnv::from(self.environment), network(self.config));
        let docker = engine::connect(&environment, &network, self.starting, &mut once, usable);
        // After the first calls: it parses the whole bundle, and the connection must not wait for that.
        if !std::mem::replace(&mut warned.certificates, true) {
            for problem in TrustEnv::from(self.environment).warnings() {
                warn!("certificates not usable {problem}");
            }
        }
        let docker = docker?;
        let properties = &docker.engine().properties;
        for (limit, reason) in not_enforced(properties) {
            once(format!("limit not enforced limit={limit} reason={}", message(&reason)));
        }
        if let Some(reason) = unreadable_log(properties) {
            return Err(EngineError::UnreadableLog(reason));
        }
        let left = adopt::find(&docker, self.starting, &self.config.worker_id, processes);
        let left = left.map_err(EngineError::from_search)?;
        Ok((docker, left))
    }

    /// Closes the link and starts another one, which does not appear at the control plane yet.
    fn replace(&self, mut started: StartedLink) -> Result<StartedLink, Ended> {
        started.link.end(LINK_END);
        let StartedLink { key, .. } = started;
        start_link(self.config, key).map_err(|error| Ended::failed(Exit::Failure, &error))
    }
}

impl Wait {
    /// Tells the operator why there is no engine, and waits before the next attempt, at most for `left`. Returns `false` if the
    /// search is cancelled.
    fn pause(
        &mut self,
        search: &Search<'_>,
        notifier: &mut Notifier,
        reason: &str,
        left: Option<Duration>,
    ) -> bool {
        let waited_s = self.since.elapsed().as_secs();
        if self.warned_at.is_none_or(|warned_at| warned_at.elapsed() >= WARN_EVERY) {
            self.warned_at = Some(Instant::now());
            warn!("waiting for the engine waited_s={waited_s} error={}", message(reason));
        }
        notifier.tell_no_engine(reason);
        search.monitor.waiting(reason);
        let until = Instant::now() + self.pause.min(left.unwrap_or(self.pause));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        loop {
            select! {
                recv(search.starting.done()) -> _ => return false,
                recv(search.signals.state) -> _ => {
                    info!("link state state=not_connected tasks=0 backlog=0");
                    warn!("engine state state=away waited_s={waited_s} error={}", message(reason));
                }
                default(until.saturating_duration_since(Instant::now())) => return true,
            }
        }
    }
}
