//! What the operator sets for every task container: limits, network and rights, and what `--hardened` makes of them.

use std::collections::{BTreeMap, BTreeSet};

/// The processes of a hardened task.
pub(crate) const HARDENED_PIDS: i64 = 4096;

/// The capabilities that a hardened task keeps: those with which package managers unpack files and run scripts as other users.
pub(crate) const HARDENED_CAPABILITIES: [&str; 8] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETPCAP", "SETUID"];

/// The security option that forbids a process to get more rights than its parent.
pub(crate) const NO_NEW_PRIVILEGES: &str = "no-new-privileges";

/// Settings for every task container. `None` and empty are the engine's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContainerOptions {
    /// The most memory of a task, in bytes.
    pub(crate) memory: Option<i64>,
    /// The memory of tasks whose assignment names none, in bytes.
    pub(crate) default_memory: Option<i64>,
    /// The memory that the kernel leaves to the task when memory is short, in bytes.
    pub(crate) memory_reservation: Option<i64>,
    /// The most processors of a task, in billionths.
    pub(crate) nano_cpus: Option<i64>,
    /// The processors of tasks whose assignment names none, in billionths.
    pub(crate) default_nano_cpus: Option<i64>,
    /// The most processes and threads; -1 for no limit.
    pub(crate) pids_limit: Option<i64>,
    /// The size of `/dev/shm` in bytes.
    pub(crate) shm_size: Option<i64>,
    /// A network by name or id, `bridge`, `none`, `host`, or `container:` and a container.
    pub(crate) network: Option<String>,
    /// Addresses of DNS servers.
    pub(crate) dns: Vec<String>,
    /// Domains in which names are looked up.
    pub(crate) dns_search: Vec<String>,
    /// Each is `HOST:IP`.
    pub(crate) extra_hosts: Vec<String>,
    /// Names without `CAP_`, or `ALL`.
    pub(crate) cap_drop: BTreeSet<String>,
    /// Names without `CAP_`, or `ALL`.
    pub(crate) cap_add: BTreeSet<String>,
    /// As the engine takes them; a seccomp profile is its JSON.
    pub(crate) security_opt: Vec<String>,
    /// `USER[:GROUP]`, names or numbers.
    pub(crate) user: Option<String>,
    /// Whether the root file system is read-only.
    pub(crate) read_only: bool,
    /// Options by path.
    pub(crate) tmpfs: BTreeMap<String, String>,
    /// Resource limits of each process, each name once.
    pub(crate) ulimits: Vec<Ulimit>,
    /// Labels by name; none is one of this worker's.
    pub(crate) labels: BTreeMap<String, String>,
    /// Whether an init process reaps the container's zombies.
    pub(crate) init: bool,
    /// Which GPUs a task gets.
    pub(crate) gpus: Option<Gpus>,
    /// The OCI runtime, by its name at the engine.
    pub(crate) runtime: Option<String>,
    /// Options of the engine's log driver.
    pub(crate) log_opts: BTreeMap<String, String>,
}

/// A resource limit of each process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ulimit {
    /// Such as `nofile`.
    pub(crate) name: String,
    /// -1 for no limit.
    pub(crate) soft: i64,
    /// -1 for no limit.
    pub(crate) hard: i64,
}

/// Which GPUs a container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gpus {
    /// Every one.
    All,
    /// This many.
    Count(i64),
    /// Those with these indexes or ids.
    Devices(Vec<String>),
}

impl ContainerOptions {
    /// Returns these options for a hardened container. The operator's own limit of processes and added capabilities stay.
    pub(crate) fn hardened(mut self) -> Self {
        self.cap_add.extend(HARDENED_CAPABILITIES.map(str::to_owned));
        self.cap_add.retain(|name| !self.cap_drop.contains(name));
        self.cap_drop = BTreeSet::from(["ALL".to_owned()]);
        if !self.security_opt.iter().any(|option| option == NO_NEW_PRIVILEGES) {
            self.security_opt.push(NO_NEW_PRIVILEGES.to_owned());
        }
        self.pids_limit = self.pids_limit.or(Some(HARDENED_PIDS));
        self.init = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_hardened_container_keeps_what_package_managers_need() {
        let hardened = ContainerOptions::default().hardened();
        assert_eq!((hardened.pids_limit, hardened.init), (Some(4096), true));
        assert_eq!((hardened.cap_drop, hardened.cap_add), (set(&["ALL"]), set(&HARDENED_CAPABILITIES)));
        assert_eq!(hardened.security_opt, [NO_NEW_PRIVILEGES]);
    }

    #[test]
    fn the_operators_own_settings_stay_in_a_hardened_container() {
        let own = ContainerOptions {
            pids_limit: Some(100),
            cap_add: set(&["NET_BIND_SERVICE"]),
            cap_drop: set(&["KILL", "NET_RAW"]),
            security_opt: vec!["apparmor=x".into(), NO_NEW_PRIVILEGES.into()],
            memory: Some(7),
            ..ContainerOptions::default()
        };
        let hardened = own.hardened();
        assert_eq!((hardened.pids_limit, hardened.memory), (Some(100), Some(7)));
        let mut kept = set(&HARDENED_CAPABILITIES);
        kept.remove("KILL");
        kept.insert("NET_BIND_SERVICE".into());
        assert_eq!((hardened.cap_drop, hardened.cap_add), (set(&["ALL"]), kept));
        assert_eq!(hardened.security_opt, ["apparmor=x", NO_NEW_PRIVILEGES]);
    }
}
