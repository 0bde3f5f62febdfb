//! The steps about the engine.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::geteuid;

use super::report::Step;
use crate::app::deadline::within;
use crate::app::disk::{DiskWatch, NotWatched, is_container, readable};
use crate::app::enforcement::{not_enforced, unreadable_log};
use crate::app::engine::{self, EngineError};
use crate::control_plane::Network;
use crate::docker::{Docker, EndpointEnv, EndpointSource, Error, Properties};
use crate::logging::{error_chain, value};
use crate::sys::files;
use crate::task::listing::{Listed, ListedTask, list};

/// How long the engine may take to answer the first calls, and each later one.
const CONNECT: Duration = Duration::from_secs(15);
const CALL: Duration = Duration::from_secs(10);
/// Files with the names of users and groups.
const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// The most bytes that are read of them.
const NAMES_LIMIT: usize = 4 << 20;

/// Connects. Returns the engine, if it can be used, and the steps so far.
pub(super) fn connect(environment: EndpointEnv, network: Network) -> (Option<Docker>, Vec<Step>) {
    let connected = within(CONNECT, move |cancel| {
        let mut warnings = Vec::new();
        let mut warn = |text| warnings.push(text);
        let docker = engine::connect_from(&environment, &network, cancel, &mut warn, || ());
        (docker, warnings)
    });
    let Some((docker, warnings)) = connected else {
        return (None, vec![Step::failed("engine", EngineError::Silent { within: CONNECT }.to_string())]);
    };
    let warnings = warnings.into_iter().map(|text| Step::warning("engine", text));
    let (docker, step) = match docker {
        Ok((docker, source)) => {
            let step = found(&docker, &source);
            (Some(docker), step)
        }
        Err(error) => (None, Step::failed("engine", failure(&error))),
    };
    (docker, warnings.chain([step]).collect())
}

fn found(docker: &Docker, source: &EndpointSource) -> Step {
    let engine = docker.engine();
    let (address, source) = (docker.address(), source.to_string());
    let (address, source, version) = (value(&address), value(&source), value(&engine.version));
    let (api, os, arch) = (docker.api_version(), &engine.os, &engine.arch);
    Step::ok("engine", format!("{address} from {source}, version {version}, API {api}, {os}/{arch}"))
}

/// Returns the error, and the command that gives the right to use the socket.
fn failure(error: &EngineError) -> String {
    let text = error_chain(error);
    let EngineError::NoEngine { denied: Some(socket), .. } = error else { return text };
    let read = |path: &str| {
        let bytes = files::read(Path::new(path), NAMES_LIMIT).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let uid = geteuid().as_raw();
    let user = name_of(&read(PASSWD), uid).unwrap_or_else(|| uid.to_string());
    let group = socket.metadata().ok().map(|found| (found.gid(), found.mode()));
    let group = group.map(|(gid, mode)| Group {
        gid,
        name: name_of(&read(GROUP), gid),
        may_write: mode & 0o020 != 0,
    });
    format!("{text}; {}", permission(&user, group.as_ref(), is_container()))
}

/// The group of a socket.
struct Group {
    gid: u32,
    name: Option<String>,
    may_write: bool,
}

/// Returns the command that lets a user use a socket of this group.
fn permission(user: &str, group: Option<&Group>, is_container: bool) -> String {
    match group {
        Some(Group { gid, may_write: true, .. }) if is_container => {
            format!("start this container with --group-add {gid}")
        }
        Some(Group { gid, name, may_write: true }) if *gid != 0 => {
            let name = name.clone().unwrap_or_else(|| gid.to_string());
            format!("run: usermod -aG {name} {user}")
        }
        Some(_) => "only root may use the socket".to_owned(),
        None => "the folder of the socket is closed to this user".to_owned(),
    }
}

/// Returns the name with this number in a file such as `/etc/group`.
fn name_of(file: &str, number: u32) -> Option<String> {
    let number = number.to_string();
    let mut lines = file.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find_map(|fields| match fields.as_slice() {
        [name, _, id, ..] if *id == number => Some((*name).to_owned()),
        _ => None,
    })
}

/// Asks for properties, disk space and tasks.
pub(super) fn details(docker: &Docker, min_free: u64, worker_id: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let asked = docker.clone();
    match in_time(within(CALL, move |cancel| asked.properties(cancel))) {
        Ok(properties) => steps.extend(of_properties(&properties)),
        Err(text) => steps.push(Step::failed("engine", text)),
    }
    let asked = docker.clone();
    steps.push(match within(CALL, move |_| DiskWatch::find(&asked, min_free)) {
        Some(found) => disk(found, min_free),
        None => Step::failed(
            "disk",
            format!("the engine's disk does not answer within {CALL:?}; check its file system"),
        ),
    });
    let asked = docker.clone();
    match in_time(within(CALL, move |cancel| list(&asked, cancel, None, Listed::Tasks))) {
        Ok(tasks) => steps.push(others(&tasks, worker_id)),
        Err(text) => steps.push(Step::failed("tasks", text)),
    }
    steps
}

fn in_time<T>(result: Option<Result<T, Error>>) -> Result<T, String> {
    let result = result.ok_or_else(|| EngineError::Silent { within: CALL }.to_string())?;
    result.map_err(|error| error_chain(&error))
}

fn of_properties(properties: &Properties) -> Vec<Step> {
    let Properties { storage_driver, cgroup_version, log_driver, .. } = properties;
    let unknown = |text: &str| if text.is_empty() { "not reported".to_owned() } else { text.to_owned() };
    let storage = format!("driver {}, cgroup version {}", unknown(storage_driver), unknown(cgroup_version));
    let storage = match storage_driver.as_str() {
        "vfs" => Step::warning(
            "storage",
            format!(
                "{storage}; vfs copies every image for every container: use overlay2 (storage-driver in daemon.json)"
            ),
        ),
        _ => Step::ok("storage", storage),
    };
    let log = match unreadable_log(properties) {
        Some(reason) => Step::failed("log driver", reason),
        None => Step::ok("log driver", unknown(log_driver)),
    };
    let lost = not_enforced(properties).into_iter();
    let mut limits: Vec<_> = lost
        .map(|(limit, reason)| Step::warning("limits", format!("{limit} is not enforced: {reason}")))
        .collect();
    if limits.is_empty() {
        limits.push(Step::ok(
            "limits",
            "memory, swap, processors and processes are enforced as far as reported".to_owned(),
        ));
    }
    [storage, log].into_iter().chain(limits).collect()
}

fn disk(found: Result<(DiskWatch, u64), NotWatched>, min_free: u64) -> Step {
    match found {
        Ok((watch, free)) => {
            let (folder, shown) = (watch.folder().display().to_string(), readable(free));
            let text = format!("{} has {shown} free", value(&folder));
            if free < min_free {
                let least = readable(min_free);
                return Step::failed(
                    "disk",
                    format!(
                        "{text}, less than --min-free-disk {least}: remove images (docker image prune -a), or lower it"
                    ),
                );
            }
            Step::ok("disk", text)
        }
        Err(reason) if min_free == 0 => Step::ok("disk", format!("not checked: {reason}")),
        Err(reason) => Step::warning("disk", format!("not checked: {reason}")),
    }
}

fn others(tasks: &[ListedTask], worker_id: &str) -> Step {
    let of_others = tasks.iter().filter(|task| task.worker_id != worker_id && task.runs());
    let ids: BTreeSet<_> = of_others.clone().map(|task| value(&task.worker_id).to_string()).collect();
    let own = tasks.iter().filter(|task| task.worker_id == worker_id).count();
    let ids: Vec<_> = ids.into_iter().collect();
    let text = match of_others.count() {
        0 => format!("{own} of this worker, none of another one runs"),
        count => format!("{own} of this worker, {count} running of others: {}", ids.join(", ")),
    };
    Step::ok("tasks", text)
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;
    use crate::protocol::ExecutionKey;

    #[test]
    fn the_right_to_use_a_socket_is_given_by_its_group() {
        let group =
            |gid, name: Option<&str>, may_write| Group { gid, name: name.map(str::to_owned), may_write };
        let docker = group(998, Some("docker"), true);
        assert_eq!(permission("oz", Some(&docker), false), "run: usermod -aG docker oz");
        assert_eq!(permission("oz", Some(&docker), true), "start this container with --group-add 998");
        assert_eq!(permission("oz", Some(&group(7, None, true)), false), "run: usermod -aG 7 oz");
        for closed in [group(0, Some("root"), true), group(998, Some("docker"), false)] {
            assert_eq!(permission("oz", Some(&closed), false), "only root may use the socket");
        }
        assert!(permission("oz", None, false).contains("folder"));
    }

    #[test]
    fn names_are_found_by_their_number() {
        let file = "root:x:0:\nbroken\ndocker:x:998:a,b\n";
        assert_eq!(name_of(file, 998).as_deref(), Some("docker"));
        assert_eq!((name_of(file, 99), name_of(file, 0).as_deref()), (None, Some("root")));
    }

    #[test]
    fn drivers_that_cost_output_or_space_and_lost_limits_are_shown() {
        let states = |storage: &str, log: &str| {
            let properties = Properties {
                storage_driver: storage.into(),
                cgroup_version: "2".into(),
                log_driver: log.into(),
                swap_limit: Some(log != "none"),
                ..Properties::default()
            };
            of_properties(&properties).into_iter().map(|step| step.state).collect::<Vec<_>>()
        };
        assert_eq!(states("overlay2", "json-file"), [State::Ok, State::Ok, State::Ok]);
        assert_eq!(states("vfs", "none"), [State::Warning, State::Failed, State::Warning]);
        assert_eq!(states("", ""), [State::Ok, State::Ok, State::Ok]);
    }

    #[test]
    fn running_tasks_of_other_workers_are_named() {
        let task = |worker_id: &str, state: &str| ListedTask {
            key: ExecutionKey::new("t", None),
            worker_id: worker_id.into(),
            state: state.into(),
            age: Duration::ZERO,
            image: String::new(),
            container: String::new(),
            id: String::new(),
        };
        let all = [task("w", "running"), task("b", "running"), task("a", "running"), task("c", "exited")];
        assert_eq!(others(&all, "w").text, "1 of this worker, 2 running of others: a, b");
        assert_eq!(others(&[], "w").text, "0 of this worker, none of another one runs");
    }

    #[test]
    fn a_disk_that_is_not_checked_is_a_warning_unless_that_is_wanted() {
        assert_eq!(disk(Err(NotWatched::Network), 1).state, State::Warning);
        assert_eq!(disk(Err(NotWatched::Network), 0).state, State::Ok);
    }
}
