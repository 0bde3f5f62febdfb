//! What an engine cannot enforce or do for tasks, as its properties show it.

use crate::docker::Properties;

/// Log drivers that the engine cannot read back.
const UNREADABLE: [&str; 2] = ["none", "passthrough"];

/// Returns why reports would have no output, with the remedy.
pub(super) fn unreadable_log(properties: &Properties) -> Option<String> {
    let driver = properties.log_driver.as_str();
    UNREADABLE.contains(&driver).then(|| {
        format!(
            "the engine's log driver {driver} cannot be read, so reports would have no output; use json-file or local (log-driver in \
             daemon.json)"
        )
    })
}

/// Returns the limits that the engine does not enforce, each with the consequence.
pub(super) fn not_enforced(properties: &Properties) -> Vec<(&'static str, String)> {
    let Properties { memory_limit, swap_limit, cpu_limit, pids_limit, .. } = properties;
    let cases = [
        (memory_limit, "memory", "tasks may use all memory"),
        (swap_limit, "swap", "a task may use swap beyond its memory limit"),
        (cpu_limit, "cpus", "tasks may use all processors"),
        (pids_limit, "pids", "tasks may start any number of processes"),
    ];
    let found = cases.into_iter().filter(|(is_enforced, ..)| **is_enforced == Some(false));
    let version = match properties.cgroup_version.as_str() {
        "" => "cgroup version not reported".to_owned(),
        version => format!("cgroup version {version}"),
    };
    let rootless = if is_rootless(properties) { ", rootless" } else { "" };
    found.map(|(_, limit, consequence)| (limit, format!("{consequence} ({version}{rootless})"))).collect()
}

fn is_rootless(properties: &Properties) -> bool {
    properties.security_options.iter().any(|option| option.split(',').any(|part| part == "name=rootless"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_that_is_not_enforced_is_named() {
        let all = Properties {
            memory_limit: Some(false),
            swap_limit: Some(false),
            cpu_limit: Some(false),
            pids_limit: Some(false),
            cgroup_version: "1".into(),
            security_options: vec!["name=seccomp,profile=default".into(), "name=rootless".into()],
            ..Properties::default()
        };
        let found = not_enforced(&all);
        assert_eq!(
            found.iter().map(|(limit, _)| *limit).collect::<Vec<_>>(),
            ["memory", "swap", "cpus", "pids"]
        );
        assert_eq!(found[0].1, "tasks may use all memory (cgroup version 1, rootless)");
        let swap = Properties { memory_limit: Some(true), swap_limit: Some(false), ..Properties::default() };
        let text = "a task may use swap beyond its memory limit (cgroup version not reported)";
        assert_eq!(not_enforced(&swap), [("swap", text.to_owned())]);
        assert_eq!(not_enforced(&Properties::default()), []);
    }

    #[test]
    fn a_log_that_cannot_be_read_has_a_reason() {
        let of =
            |driver: &str| unreadable_log(&Properties { log_driver: driver.into(), ..Properties::default() });
        assert!(of("none").is_some_and(|text| text.contains("json-file or local")));
        assert!(of("passthrough").is_some());
        assert_eq!(["json-file", "local", "journald", "splunk", ""].map(of), [None, None, None, None, None]);
    }
}
