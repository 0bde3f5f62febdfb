//! The containers of failed tasks that are kept for some time.

use std::time::Duration;

use log::warn;

use super::adopt::{key_fields, log_left, log_removed};
use super::age::EngineTime;
use super::labels::{self, PROCESS_LABEL, WORKER_LABEL, execution_of};
use super::names::is_failed;
use super::processes::Processes;
use crate::docker::{Container, Docker, Error};
use crate::job::REMOVE_AGAIN_AFTER;
use crate::logging::{error_chain, value};
use crate::sys::cancel::CancelToken;

/// The most containers that are kept.
const MAX: usize = 20;

/// Why an older container is removed.
const TOO_MANY: &str = "20 younger ones are kept";

/// The shortest time to the next sweep. The engine's time is in whole seconds, so a container can be due slightly later than computed.
const TICK: Duration = Duration::from_secs(1);

/// Removes the kept containers, and their own volumes, that ended `keep` ago or earlier, and the oldest beyond 20. Returns when
/// the next is due, from now; `None` if none is left. A removal that fails is logged, and the next sweep tries it again.
/// Containers of another process that runs are left to that.
///
/// # Errors
/// When the engine cannot be asked, or cancelled.
pub fn sweep(
    docker: &Docker,
    cancel: &CancelToken,
    worker_id: &str,
    processes: &Processes,
    keep: Duration,
) -> Result<Option<Duration>, Error> {
    let mut kept = Vec::new();
    for summary in docker.container_list(cancel, &[(WORKER_LABEL, worker_id)])? {
        let is_failed = |name: &str| is_failed(worker_id, &summary.labels, name, &summary.id);
        if !summary.names().any(is_failed) || !processes.owns(labels::get(&summary.labels, PROCESS_LABEL)) {
            continue;
        }
        match docker.container_inspect(cancel, &summary.id) {
            Ok(container) => kept.push(container),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    if kept.is_empty() {
        return Ok(None);
    }
    let now = EngineTime::of(docker);
    let mut by_age: Vec<_> =
        kept.iter().map(|container| (now.since(&container.state.finished_at), container)).collect();
    by_age.sort_by_key(|(age, _)| *age);
    let ages: Vec<Duration> = by_age.iter().map(|(age, _)| *age).collect();
    let stay = staying(&ages, keep);
    let mut again = None;
    for (age, container) in by_age.iter().skip(stay) {
        if !remove(docker, cancel, worker_id, container, reason(*age, keep))? {
            again = Some(REMOVE_AGAIN_AFTER);
        }
    }
    let oldest = stay.checked_sub(1).and_then(|last| ages.get(last));
    let next = oldest.map(|age| keep.saturating_sub(*age).max(TICK));
    Ok(next.into_iter().chain(again).min())
}

/// Returns how many containers stay, of those with these ages, the youngest first.
fn staying(ages: &[Duration], keep: Duration) -> usize {
    ages.iter().take(MAX).take_while(|age| **age < keep).count()
}

/// Returns why a container of this age does not stay, for people.
fn reason(age: Duration, keep: Duration) -> &'static str {
    if age < keep { TOO_MANY } else { "kept long enough" }
}

/// Removes a container, and the volumes that only its task used. Returns whether the container is gone.
fn remove(
    docker: &Docker,
    cancel: &CancelToken,
    worker_id: &str,
    container: &Container,
    reason: &str,
) -> Result<bool, Error> {
    match docker.container_remove(cancel, &container.id) {
        Ok(existed) => log_removed(existed, container, reason),
        Err(error) if error.is_cancelled() => return Err(error),
        Err(error) => {
            log_left(container, &error);
            return Ok(false);
        }
    }
    for volume in docker.volume_list(cancel, &[(WORKER_LABEL, worker_id)])? {
        if container.volumes.contains(&volume.name)
            && execution_of(&volume.labels) == execution_of(&container.labels)
            && let Err(error) = docker.volume_remove(cancel, &volume.name)
        {
            let key = key_fields(&volume.labels);
            warn!("volume left {key}volume={} error={}", value(&volume.name), value(&error_chain(&error)));
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::super::scripted_engine::{ScriptedEngine, json};
    use super::*;
    use crate::protocol::ExecutionKey;
    use crate::task::labels::TASK_LABEL;

    /// As late as what else could not be removed.
    #[test]
    fn a_removal_that_fails_is_due_again_after_the_time_of_all_removals() {
        let id = "f".repeat(64);
        let created_as = names::task("w", &ExecutionKey::new("t", None), None);
        let name = names::failed(&created_as, &id);
        let labels = format!(r#"{{"{WORKER_LABEL}":"w","{TASK_LABEL}":"t","{PROCESS_LABEL}":"p"}}"#);
        let listed = format!(r#"[{{"Id":"{id}","Names":["/{name}"],"State":"exited","Labels":{labels}}}]"#);
        let state = r#"{"Status":"exited","FinishedAt":"2026-01-02T03:04:05Z"}"#;
        let inspected = format!(
            r#"{{"Id":"{id}","Name":"/{name}","Image":"i","Config":{{"Labels":{labels}}},"State":{state},"Mounts":[]}}"#
        );
        let engine = ScriptedEngine::start(move |line, stream| {
            if line.starts_with("DELETE") {
                json(stream, 500, r#"{"message":"busy"}"#);
            } else if line.contains("/json?") {
                json(stream, 200, &listed);
            } else {
                json(stream, 200, &inspected);
            }
        });
        let processes = Processes::without_lock("p");
        let due = sweep(&engine.docker, &CancelToken::new(), "w", &processes, Duration::from_secs(1));
        assert_eq!(due.unwrap(), Some(REMOVE_AGAIN_AFTER));
        assert!(engine.count("DELETE") > 0);
    }

    #[test]
    fn the_youngest_20_stay_until_they_are_too_old() {
        let seconds = |ages: &[u64]| ages.iter().map(|age| Duration::from_secs(*age)).collect::<Vec<_>>();
        let keep = Duration::from_secs(60);
        assert_eq!(staying(&seconds(&[]), keep), 0);
        assert_eq!(staying(&seconds(&[0, 59, 60, 61]), keep), 2);
        assert_eq!(staying(&seconds(&[0]), Duration::ZERO), 0);
        let many: Vec<u64> = (0..30).collect();
        assert_eq!(staying(&seconds(&many), keep), 20);
        let reasons = [20, 59, 60].map(|age| reason(Duration::from_secs(age), keep));
        assert!(TOO_MANY.starts_with(&format!("{MAX} ")));
        assert_eq!(reasons, [TOO_MANY, TOO_MANY, "kept long enough"]);
    }
}
