//! Values in the syntax of `docker run`. Each error says what would be valid, as `must ...`.
//!
//! The engine would reject most invalid values too, but only when the first task is created.

use std::net::IpAddr;

use super::volumes::container_path;
use crate::net::digits;
use crate::policy::{Gpus, NO_NEW_PRIVILEGES, Ulimit, check_folder};

/// The least memory that the engine accepts, in bytes.
const LEAST_MEMORY: i64 = 6 << 20;
/// The most memory that fits into the engine's number of bytes, in TiB.
const MOST_TIB: i64 = i64::MAX >> 40;
/// The largest file of a log, in GB.
const MOST_LOG_GB: i64 = i64::MAX / 1_000_000_000;
/// The least part of a processor that the engine accepts, in billionths.
const LEAST_CPUS: i64 = 10_000_000;
/// The highest limit of processes that Linux accepts, except for none.
const HIGHEST_PIDS: i64 = 4_194_304;
/// The highest part of the memory for a tmpfs. Linux accepts more.
const HIGHEST_PERCENT: i64 = 1000;
/// The highest number of a user or group that Linux takes for a tmpfs.
const HIGHEST_KERNEL_ID: u64 = 0xffff_fffe;
/// The most files of a tmpfs. Linux counts 1024 bytes for each.
const MOST_INODES: u64 = u64::MAX >> 11;
/// The highest number of a user or group that the engine takes.
const HIGHEST_ID: u64 = 0x7fff_ffff;

/// The capabilities of Linux, without `CAP_`.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// The names of `--ulimit`.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// The options of a tmpfs without a value.
const TMPFS_FLAGS: [&str; 12] =
    ["ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "atime", "noatime", "sync", "async"];

/// Returns a size in bytes: a number, which may have a fraction, with b, k, m, g or t.
fn size(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let long = text.strip_suffix("ib").filter(|rest| rest.ends_with(['k', 'm', 'g', 't']));
    let text = long.or_else(|| text.strip_suffix('b')).unwrap_or(&text);
    let units = [('k', 10), ('m', 20), ('g', 30), ('t', 40)];
    let unit = units.into_iter().find_map(|(letter, shift)| Some((text.strip_suffix(letter)?, shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let billionths = decimal(number)?;
    i64::try_from((billionths << shift) / 1_000_000_000).ok()
}

/// Whether Linux takes this as the size of a tmpfs: it knows neither fractions nor b.
fn is_kernel_size(text: &str) -> bool {
    let number = text.strip_suffix(['k', 'm', 'g', 't', 'K', 'M', 'G', 'T']).unwrap_or(text);
    digits::number(number).is_some() && size(text).is_some_and(|size| size > 0)
}

/// Returns a number with at most nine digits after the point, in billionths.
fn decimal(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.len() > 9 {
        return None;
    }
    let (whole, fraction) = (digits::number(whole)?, digits::number(&format!("{fraction:0<9}"))?);
    Some(i128::from(whole) * 1_000_000_000 + i128::from(fraction))
}

/// A limit of memory, in bytes.
pub(super) fn memory(text: &str) -> Result<i64, String> {
    size(text)
        .filter(|bytes| *bytes >= LEAST_MEMORY)
        .ok_or_else(|| format!("must be a size with a unit such as 512m, 2g or 1.5g, from 6m to {MOST_TIB}t"))
}

/// The size of `/dev/shm`, in bytes.
pub(super) fn shm_size(text: &str) -> Result<i64, String> {
    size(text)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("must be a size with a unit such as 64m or 1g, from 1 byte to {MOST_TIB}t"))
}

/// A number of processors, in billionths.
pub(super) fn cpus(text: &str) -> Result<i64, String> {
    let nano = decimal(text.trim()).and_then(|nano| i64::try_from(nano).ok());
    nano.filter(|nano| *nano >= LEAST_CPUS).ok_or_else(|| {
        let most = i64::MAX / 1_000_000_000;
        format!("must be a number of processors such as 0.5, 1.5 or 4, from 0.01 to {most}")
    })
}

/// A number of processes; -1 for no limit.
pub(super) fn pids_limit(text: &str) -> Result<i64, String> {
    let text = text.trim();
    let count =
        if text == "-1" { Some(-1) } else { digits::number(text).and_then(|n| i64::try_from(n).ok()) };
    count.filter(|count| *count != 0 && *count <= HIGHEST_PIDS).ok_or_else(|| {
        format!("must be a number of processes such as 512, from 1 to {HIGHEST_PIDS}, or -1 for no limit")
    })
}

/// A network: `bridge`, `none`, `host`, `container:NAME`, or a name or an id.
pub(super) fn network(text: &str) -> Result<String, String> {
    let text = text.trim();
    let name = text.strip_prefix("container:").unwrap_or(text);
    is_name(name).then(|| text.to_owned()).ok_or_else(|| {
        "must be the name of a network, bridge, none, host or container:NAME, without options".into()
    })
}

/// The address of a DNS server.
pub(super) fn dns(text: &str) -> Result<String, String> {
    let address: Result<IpAddr, _> = text.trim().parse();
    address.map(|address| address.to_string()).map_err(|_| "must be an IP address such as 10.0.0.53".into())
}

/// A domain in which names are looked up; `.` for none.
pub(super) fn dns_search(text: &str) -> Result<String, String> {
    let text = text.trim();
    (text == "." || is_host(text))
        .then(|| text.to_owned())
        .ok_or_else(|| "must be a domain such as corp.example.com, or . for none".into())
}

/// A name and its address, as `HOST:IP`.
pub(super) fn add_host(text: &str) -> Result<String, String> {
    const RIGHT: &str = "must be HOST:IP such as git.example.com:10.0.0.7, or HOST:host-gateway";
    let (host, address) = text.trim().split_once([':', '=']).ok_or(RIGHT)?;
    let inner = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let is_valid = is_host(host) && (inner == "host-gateway" || inner.parse::<IpAddr>().is_ok());
    is_valid.then(|| format!("{host}:{inner}")).ok_or_else(|| RIGHT.into())
}

/// The name of a capability, in capitals and without `CAP_`, or `ALL`.
pub(super) fn capability(text: &str) -> Result<String, String> {
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    (name == "ALL" || CAPABILITIES.contains(&name))
        .then(|| name.to_owned())
        .ok_or_else(|| "must be a capability of Linux such as NET_RAW or SYS_PTRACE, or ALL".into())
}

/// An option of the security system.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SecurityOption {
    /// As the engine takes it.
    Text(String),
    /// The path of a seccomp profile.
    SeccompProfile(String),
}

/// A security option.
pub(super) fn security_opt(text: &str) -> Result<SecurityOption, String> {
    const RIGHT: &str = "must be no-new-privileges, apparmor=PROFILE, label=OPTION, seccomp=unconfined, or seccomp=PATH \
                         with the absolute path of a profile";
    let text = text.trim();
    let (name, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
    let is_plain = !value.is_empty() && !value.chars().any(|c| c.is_control() || c.is_whitespace());
    match (name, value) {
        ("no-new-privileges", "" | "true") if !text.ends_with(['=', ':']) => {
            Ok(SecurityOption::Text(NO_NEW_PRIVILEGES.to_owned()))
        }
        ("no-new-privileges", "false") => Ok(SecurityOption::Text("no-new-privileges=false".to_owned())),
        ("seccomp", "unconfined" | "builtin") => Ok(SecurityOption::Text(format!("seccomp={value}"))),
        ("seccomp", path) if path.starts_with('/') && !path.chars().any(char::is_control) => {
            Ok(SecurityOption::SeccompProfile(path.to_owned()))
        }
        ("apparmor" | "label", _) if is_plain => Ok(SecurityOption::Text(format!("{name}={value}"))),
        _ => Err(RIGHT.into()),
    }
}

/// A user: `USER[:GROUP]`, each a name or a number.
pub(super) fn user(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_valid = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
        let is_name = !part.starts_with('-') && part.chars().all(plain);
        !part.is_empty() && is_name && (!is_number || digits::number(part).is_some_and(|id| id <= HIGHEST_ID))
    };
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    (is_valid(user) && group.is_none_or(is_valid)).then(|| text.to_owned()).ok_or_else(|| {
        format!("must be USER or USER:GROUP, names or numbers from 0 to {HIGHEST_ID}, such as 1000:1000")
    })
}

/// A file system in memory: its path and its options.
pub(super) fn tmpfs(text: &str) -> Result<(String, String), String> {
    let (path, options) = text.trim().split_once(':').unwrap_or((text.trim(), ""));
    if path.chars().any(char::is_control) || !path.starts_with('/') {
        return Err(
            "must be PATH or PATH:OPTIONS such as /tmp:size=512m,mode=1777, with an absolute path".into()
        );
    }
    let is_valid = |option: &str| match option.split_once('=') {
        Some(("size", value)) => match value.strip_suffix('%') {
            Some(percent) => positive(percent).is_some_and(|percent| percent <= HIGHEST_PERCENT),
            None => is_kernel_size(value),
        },
        Some(("mode", value)) => {
            value.bytes().all(|byte| byte.is_ascii_digit()) && u32::from_str_radix(value, 8).is_ok()
        }
        Some(("uid" | "gid", value)) => digits::number(value).is_some_and(|id| id <= HIGHEST_KERNEL_ID),
        Some(("nr_inodes", value)) => digits::number(value).is_some_and(|count| count <= MOST_INODES),
        Some(_) => false,
        None => TMPFS_FLAGS.contains(&option),
    };
    if text.trim().contains(':') && !options.split(',').all(is_valid) {
        let flags = TMPFS_FLAGS.join(", ");
        return Err(format!(
            "must have a comma-separated list of these options after the path: {flags}; size= a whole number of bytes, or with k, m, g or t, \
             from 1 to {MOST_TIB}t, or 1% to {HIGHEST_PERCENT}%; mode= from 0 to {:o}; uid= and gid= from 0 to {HIGHEST_KERNEL_ID}; \
             nr_inodes= from 0 to {MOST_INODES}, with 0 for no limit",
            u32::MAX
        ));
    }
    let path = container_path(path)?;
    check_folder(&path)?;
    Ok((path, options.to_owned()))
}

/// A resource limit: `NAME=SOFT[:HARD]`.
pub(super) fn ulimit(text: &str) -> Result<Ulimit, String> {
    let right = || {
        let most = i64::MAX;
        format!(
            "must be NAME=SOFT or NAME=SOFT:HARD such as nofile=1024:2048, from 0 to {most}, or -1 for no limit"
        )
    };
    let (name, limits) = text.trim().split_once('=').ok_or_else(right)?;
    if !ULIMITS.contains(&name) {
        return Err(format!("must begin with one of these names and =: {}", ULIMITS.join(", ")));
    }
    let limit = |text: &str| {
        if text == "-1" { Some(-1) } else { digits::number(text).and_then(|n| i64::try_from(n).ok()) }
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (limit(soft).ok_or_else(right)?, limit(hard).ok_or_else(right)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err("must have a soft limit that is not above the hard one, such as nofile=1024:2048".into());
    }
    if name == "nofile" && hard == -1 {
        return Err("must have a number for nofile, which Linux does not leave without a limit".into());
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// A label: its name and its value, which may be empty.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.trim().is_empty() || text.chars().any(char::is_control) {
        return Err("must be NAME=VALUE or NAME, without control characters".into());
    }
    if name.starts_with("oz-") {
        return Err("must not begin with oz-, as the labels of the worker do".into());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// GPUs: `all`, a number, or `device=` and indexes or ids.
pub(super) fn gpus(text: &str) -> Result<Gpus, String> {
    let right = || {
        format!(
            "must be all, a number of GPUs from 1 to {}, or device=ID[,ID...] such as device=0,2",
            i64::MAX
        )
    };
    let text = text.trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if let Some(list) = text.strip_prefix("device=") {
        let list = list.strip_prefix('"').and_then(|list| list.strip_suffix('"')).unwrap_or(list);
        let ids: Vec<_> = list.split(',').map(str::to_owned).collect();
        return ids.iter().all(|id| is_name(id)).then_some(Gpus::Devices(ids)).ok_or_else(right);
    }
    if text == "all" {
        return Ok(Gpus::All);
    }
    positive(text).map(Gpus::Count).ok_or_else(right)
}

/// The name of a runtime.
pub(super) fn runtime(text: &str) -> Result<String, String> {
    let text = text.trim();
    is_name(text)
        .then(|| text.to_owned())
        .ok_or_else(|| "must be the name of a runtime that the engine knows, such as runc or runsc".into())
}

/// An option of the log driver: its name and its value.
pub(super) fn log_opt(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if !is_name(name) || value.is_empty() || value.chars().any(char::is_control) {
        return Err("must be NAME=VALUE such as max-size=100m, without control characters".into());
    }
    let right = match name {
        "max-size" if value != "-1" && !is_log_size(value) => {
            return Err(format!(
                "must have a size such as 100m or 2g as max-size, from 1 byte to {MOST_LOG_GB}g, or -1 for no limit"
            ));
        }
        "max-file" if positive(value).is_none() => {
            return Err(format!("must have a number of files from 1 to {} as max-file", i64::MAX));
        }
        "mode" if !matches!(value, "blocking" | "non-blocking") => {
            "must have blocking or non-blocking as mode"
        }
        "cache-disabled" if value != "false" => {
            "must not disable the cache: without it the engine cannot read the log, and reports have no output"
        }
        _ => return Ok((name.to_owned(), value.to_owned())),
    };
    Err(right.into())
}

/// Whether this is a whole number with k, m or g, which is all that log drivers take. Their units are powers of 1000.
fn is_log_size(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let units = [('k', 1_000), ('m', 1_000_000), ('g', 1_000_000_000)];
    let unit = units.into_iter().find_map(|(letter, unit)| Some((lower.strip_suffix(letter)?, unit)));
    let (number, unit) = unit.unwrap_or((&lower, 1));
    let bytes = positive(number).and_then(|number| number.checked_mul(unit));
    bytes.is_some_and(|bytes| bytes <= MOST_LOG_GB * 1_000_000_000)
}

/// A whole number above 0 that fits into the engine's.
fn positive(text: &str) -> Option<i64> {
    digits::number(text).and_then(|number| i64::try_from(number).ok()).filter(|number| *number > 0)
}

/// Whether the engine accepts this as the name of a network, a container or a runtime.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain)
}

/// Whether this can be the name of a host.
fn is_host(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.len() <= 253
        && text.trim_end_matches('.').split('.').all(|label| !label.is_empty() && label.chars().all(plain))
}

#[cfg(test)]
#[path = "docker_values_tests.rs"]
mod tests;
