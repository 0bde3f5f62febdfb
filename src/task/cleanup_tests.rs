//! Removals that fail, at a scripted engine with short limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};

use super::super::run::Options;
use super::super::scripted_engine::{ScriptedEngine, json};
use super::*;
use crate::docker::{RegistryEnv, Timeouts};
use crate::job::{JobEvent, JobId};
use crate::logging::SettingNames;
use crate::policy::PullPolicy;
use crate::protocol::ExecutionKey;
use crate::sys::cancel::CancelToken;
use crate::task::plan::TaskSettings;
use crate::task::processes::Processes;

/// An engine that does not get on with a removal until it is told to.
struct Stuck {
    engine: ScriptedEngine,
    gets_on: Arc<AtomicBool>,
    tasks: Tasks,
    events: Receiver<(JobId, JobEvent)>,
}

impl Stuck {
    fn new() -> Self {
        let gets_on = Arc::<AtomicBool>::default();
        let is_done = Arc::clone(&gets_on);
        let limits = Timeouts { remove: Duration::from_millis(300), ..Timeouts::default() };
        let engine = ScriptedEngine::start_with(limits, move |line, stream| {
            let is_container = line.starts_with("DELETE") && line.contains("/containers/");
            match (is_done.load(Ordering::SeqCst), is_container) {
                (true, _) => json(stream, 204, ""),
                (false, true) => {
                    json(stream, 409, r#"{"message":"removal of container c is already in progress"}"#);
                }
                (false, false) => json(stream, 409, r#"{"message":"volume is in use"}"#),
            }
        });
        let (sender, events) = unbounded();
        let options = Options {
            settings: TaskSettings::plain(),
            mount_paths: vec![],
            setting_names: SettingNames::default(),
            with_registry: false,
            pull: PullPolicy::Missing,
            registries: RegistryEnv::default(),
            max_output: 0,
            cleanup: true,
            keep_failed: Duration::ZERO,
            keep_sidecar_volumes: 1,
            engine_timeout: Duration::ZERO,
            stop_grace: Duration::ZERO,
            task_timeout: Duration::ZERO,
            log_output_lines: 0,
        };
        let processes = Arc::new(Processes::without_lock("p"));
        let stopping = CancelToken::new();
        let docker = engine.docker.clone();
        let tasks = Tasks::new(docker, processes, options, sender, stopping, Arc::default());
        Self { engine, gets_on, tasks, events }
    }

    fn events(&self) -> Vec<JobEvent> {
        self.events.try_iter().map(|(_, event)| event).collect()
    }
}

fn left() -> Leftover {
    let key = ExecutionKey::new("t", None);
    let (container, volumes) = (Some("c".to_owned()), vec!["v".to_owned()]);
    Leftover {
        key,
        container,
        id: Some("0123456789abcdef".to_owned()),
        started: true,
        failed: false,
        second_look: false,
        volumes,
    }
}

#[test]
fn a_removal_that_does_not_end_is_left_for_the_sweep_which_removes_it() {
    let stuck = Stuck::new();
    stuck.tasks.remove(JobId(1), &left());
    let events = stuck.events();
    let [JobEvent::NotRemoved { left: still_left }, JobEvent::CleanedUp(Removal::Left)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(**still_left, left());
    assert!(stuck.engine.count("DELETE") > 2, "the removal was asked for again");
    stuck.gets_on.store(true, Ordering::SeqCst);
    stuck.tasks.remove(JobId(1), still_left);
    let events = stuck.events();
    assert!(matches!(events[..], [JobEvent::CleanedUp(Removal::Gone)]), "{events:?}");
    assert_eq!(stuck.engine.count("DELETE /v1.41/volumes/v"), 2);
}

/// The answer to its creation was lost, and the engine may create it later. By then another execution may have its name: that one
/// must not be killed.
#[test]
fn a_container_without_an_id_is_looked_for_twice_and_never_killed() {
    for gets_on in [true, false] {
        let stuck = Stuck::new();
        stuck.gets_on.store(gets_on, Ordering::SeqCst);
        let uncertain = Leftover { id: None, started: false, volumes: vec![], ..left() };
        stuck.tasks.remove(JobId(1), &uncertain);
        let events = stuck.events();
        let [JobEvent::NotRemoved { left: may_come }, JobEvent::CleanedUp(Removal::Gone)] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(**may_come, Leftover { second_look: true, ..uncertain });
        stuck.tasks.remove(JobId(1), may_come);
        let events = stuck.events();
        assert!(matches!(events[..], [JobEvent::CleanedUp(Removal::Gone)]), "{events:?}");
        assert_eq!((stuck.engine.count("DELETE"), stuck.engine.count("force=1")), (2, 0));
    }
}

/// Otherwise a volume that an operator uses would be tried for ever.
#[test]
fn a_volume_that_somebody_else_uses_is_not_tried_again() {
    let stuck = Stuck::new();
    stuck.tasks.remove(JobId(1), &Leftover { container: None, id: None, ..left() });
    let events = stuck.events();
    assert!(matches!(events[..], [JobEvent::CleanedUp(Removal::Gone)]), "{events:?}");
}

/// The log says `removed` only after a removal.
#[test]
fn what_became_of_a_container_follows_from_all_answers() {
    const LOST: u16 = 0;
    let by_id = || ContainerRef { name: "c".to_owned(), id: Some("0123456789abcdef".to_owned()) };
    let by_name = || ContainerRef { name: "c".to_owned(), id: None };
    let cases = [
        (by_id(), &[204][..], Removed::Now),
        (by_id(), &[404], Removed::Absent),
        (by_name(), &[204], Removed::Now),
        (by_name(), &[404], Removed::Absent),
        (by_name(), &[409], Removed::Foreign),
        // A request without an answer, or somebody else, may have removed it. After 409 the engine does.
        (by_id(), &[LOST, 404], Removed::Absent),
        (by_name(), &[LOST, 404], Removed::Absent),
        (by_id(), &[409, 404], Removed::Now),
    ];
    for (container, answers, expected) in cases {
        let left = std::sync::Mutex::new(answers.iter().copied());
        let engine = ScriptedEngine::start(move |line, stream| {
            if !line.starts_with("DELETE") {
                return json(stream, 200, "{}");
            }
            match left.lock().unwrap().next().unwrap() {
                LOST => {}
                status => {
                    json(stream, status, r#"{"message":"removal of container c is already in progress"}"#);
                }
            }
        });
        let found = engine.with(&CancelToken::new(), |engine| try_remove(engine, &container));
        assert_eq!(found.unwrap(), expected, "{container} {answers:?}");
    }
}
