//! The settings of task containers, and how one depends on another.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::container_table::{
    ADD_HOST, ALLOW_HOST_NETWORK, CAP_ADD, CAP_DROP, CPUS, DEFAULT_CPUS, DEFAULT_MEMORY, DNS, DNS_SEARCH,
    GPUS, HARDENED, INIT, LABEL, LOG_OPT, MEMORY, MEMORY_RESERVATION, NETWORK, PIDS_LIMIT, READ_ONLY,
    RUNTIME, SECURITY_OPT, SHM_SIZE, TMPFS, ULIMIT, USER,
};
use super::docker_values::SecurityOption;
use super::invocation::Invocation;
use super::read::Given;
use super::settings::{Reader, Setting};
use super::table::{KEY_FILE_LIMIT, VOLUMES};
use super::{ConfigError, volumes};
use crate::policy::{ContainerOptions, Ulimit};

/// Reads a file, at most one byte more than [`KEY_FILE_LIMIT`].
type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// Returns the options of task containers, and every error in these settings. `read_file` reads a seccomp profile.
pub(super) fn container_options(
    invocation: &Invocation<'_>,
    read_file: ReadFile<'_>,
) -> (ContainerOptions, Vec<ConfigError>) {
    let mut options = Options { invocation, errors: Vec::new() };
    let read = ContainerOptions {
        memory: options.one(&MEMORY),
        default_memory: options.one(&DEFAULT_MEMORY),
        memory_reservation: options.one(&MEMORY_RESERVATION),
        nano_cpus: options.one(&CPUS),
        default_nano_cpus: options.one(&DEFAULT_CPUS),
        pids_limit: options.one(&PIDS_LIMIT),
        shm_size: options.one(&SHM_SIZE),
        network: options.network(),
        dns: options.all(&DNS),
        dns_search: options.all(&DNS_SEARCH),
        extra_hosts: options.all(&ADD_HOST),
        cap_drop: options.all(&CAP_DROP).into_iter().collect(),
        cap_add: options.all(&CAP_ADD).into_iter().collect(),
        security_opt: options.security_opt(read_file),
        user: options.one(&USER),
        read_only: options.is_on(&READ_ONLY),
        tmpfs: options.tmpfs().into_iter().collect(),
        ulimits: options.ulimits(),
        labels: options.all(&LABEL).into_iter().collect(),
        init: options.is_on(&INIT),
        gpus: options.one(&GPUS),
        runtime: options.one(&RUNTIME),
        log_opts: options.all(&LOG_OPT).into_iter().collect(),
    };
    let hardened = options.is_on(&HARDENED);
    options.check(&read, hardened);
    (if hardened { read.hardened() } else { read }, options.errors)
}

/// Reads settings, and keeps the errors.
struct Options<'a> {
    invocation: &'a Invocation<'a>,
    errors: Vec<ConfigError>,
}

impl Options<'_> {
    fn keep<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|error| self.errors.push(error)).ok()
    }

    fn one<T>(&mut self, reader: &Reader<T>) -> Option<T> {
        let value = self.invocation.read_if_given(reader);
        self.keep(value).flatten()
    }

    fn is_on(&mut self, setting: &Setting) -> bool {
        let is_on = self.invocation.is_on(setting);
        self.keep(is_on).unwrap_or_default()
    }

    fn all<T>(&mut self, reader: &Reader<T>) -> Vec<T> {
        self.each(reader, |_, value| Ok(value))
    }

    /// Returns what `take` makes of each value of a setting.
    fn each<T, U>(
        &mut self,
        reader: &Reader<T>,
        mut take: impl FnMut(&Given<'_>, T) -> Result<U, ConfigError>,
    ) -> Vec<U> {
        let mut values = Vec::new();
        let result = self.invocation.for_each(&reader.setting, |given| {
            values.push(take(given, (reader.read)(given)?)?);
            Ok(())
        });
        self.keep(result);
        values
    }

    fn network(&mut self) -> Option<String> {
        let allowed = self.is_on(&ALLOW_HOST_NETWORK);
        let given = self.invocation.given(&NETWORK.setting);
        let given = self.keep(given).flatten()?;
        let network = (NETWORK.read)(&given);
        let network = self.keep(network)?;
        if !allowed && (network == "host" || network.starts_with("container:")) {
            let right = "must not be host or container:NAME without --allow-host-network, because tasks would reach every \
                         service of that network";
            self.errors.push(given.invalid(right));
        }
        Some(network)
    }

    fn security_opt(&mut self, read_file: ReadFile<'_>) -> Vec<String> {
        self.each(&SECURITY_OPT, |given, option| match option {
            SecurityOption::Text(text) => Ok(text),
            SecurityOption::SeccompProfile(path) => seccomp_profile(&path, read_file)
                .map(|profile| format!("seccomp={profile}"))
                .map_err(|right| given.invalid(right)),
        })
    }

    /// Returns the paths and options of the mounts, each on its own path.
    fn tmpfs(&mut self) -> Vec<(String, String)> {
        let mut taken = BTreeSet::new();
        // An invalid mount of the host is an error of its own.
        let _ = self.invocation.for_each(&VOLUMES.setting, |given| {
            taken.extend(volumes::parse(given.value).ok().map(|bind| bind.container));
            Ok(())
        });
        self.each(&TMPFS, |given, (path, options)| {
            if taken.insert(path.clone()) {
                return Ok((path, options));
            }
            Err(given.invalid(format!("must be the only mount at {path}")))
        })
    }

    /// Returns the limits. The last one of a name counts, as with labels and options of the log.
    fn ulimits(&mut self) -> Vec<Ulimit> {
        let mut limits: Vec<Ulimit> = Vec::new();
        for limit in self.all(&ULIMIT) {
            limits.retain(|other| other.name != limit.name);
            limits.push(limit);
        }
        limits
    }

    /// Checks settings that depend on each other.
    fn check(&mut self, read: &ContainerOptions, hardened: bool) {
        let above = |value: Option<i64>, limit: Option<i64>| {
            value.zip(limit).is_some_and(|(value, limit)| value > limit)
        };
        let memory = self.name(&MEMORY);
        self.refuse_if(
            above(read.default_memory, read.memory),
            &DEFAULT_MEMORY.setting,
            &format!("must not be above {memory}"),
        );
        self.refuse_if(
            above(read.default_nano_cpus, read.nano_cpus),
            &DEFAULT_CPUS.setting,
            &format!("must not be above {}", self.name(&CPUS)),
        );
        let reserved = read.memory_reservation;
        let is_above = above(reserved, read.memory) || above(reserved, read.default_memory);
        self.refuse_if(
            is_above,
            &MEMORY_RESERVATION.setting,
            &format!("must not be above {memory} or {}", self.name(&DEFAULT_MEMORY)),
        );
        let shares = read.network.as_deref().is_some_and(|network| network.starts_with("container:"));
        for (setting, list) in [
            (&DNS.setting, &read.dns),
            (&DNS_SEARCH.setting, &read.dns_search),
            (&ADD_HOST.setting, &read.extra_hosts),
        ] {
            let right = format!(
                "must not be set with {} container:NAME, whose container has settings of its own",
                self.name(&NETWORK)
            );
            self.refuse_if(shares && !list.is_empty(), setting, &right);
        }
        let gains = read.security_opt.iter().any(|option| option == "no-new-privileges=false");
        let with = self.invocation.name_of_setting(&HARDENED);
        let right = format!("must not be no-new-privileges=false with {with}");
        self.refuse_if(hardened && gains, &SECURITY_OPT.setting, &right);
        let right = format!("must not be ALL with {with}; name each capability that tasks need");
        self.refuse_if(hardened && read.cap_add.contains("ALL"), &CAP_ADD.setting, &right);
    }

    fn name<T>(&self, reader: &Reader<T>) -> String {
        self.invocation.name_of_setting(&reader.setting)
    }

    fn refuse_if(&mut self, is_wrong: bool, setting: &Setting, right: &str) {
        let given = if is_wrong { self.invocation.given(setting).ok().flatten() } else { None };
        self.errors.extend(given.map(|given| given.invalid(right)));
    }
}

/// Returns the profile as one line of JSON.
fn seccomp_profile(path: &str, read_file: ReadFile<'_>) -> Result<String, String> {
    let text = read_file(Path::new(path)).map_err(|error| format!("must name a readable file: {error}"))?;
    if text.len() > KEY_FILE_LIMIT {
        return Err("must name a profile of at most 64 KiB".into());
    }
    let profile: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text)
        .map_err(|_| "must name a seccomp profile: a file with a JSON object".to_owned())?;
    Ok(serde_json::Value::Object(profile).to_string())
}

#[cfg(test)]
#[path = "containers_tests.rs"]
pub(super) mod tests;
