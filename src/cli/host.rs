//! Worker ids that are made of what this host is called.

use std::io;
use std::path::Path;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// The host's name, as the kernel knows it.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
/// The id that systemd gives to a machine.
const MACHINE_ID: &str = "/etc/machine-id";
/// Makes the hash of a machine's id one of this program only.
const PURPOSE: &[u8] = b"oz-agent-worker worker id\0";
/// How many hexadecimal digits of the hash are used.
const DIGITS: usize = 12;

/// Reads a file.
pub(super) type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// Returns the host's name, unless it is empty.
fn name(read_file: ReadFile<'_>) -> Option<String> {
    let text = read_file(Path::new(HOST_NAME)).ok()?;
    Some(text.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Returns the worker's id if none is set: the host's name, unless it is `localhost` or looks like the id of a container, which is
/// another one after each start.
pub(super) fn default_id(read_file: ReadFile<'_>) -> Option<String> {
    let is_hex = |name: &str| name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_container = |name: &str| matches!(name.len(), 12 | 64) && is_hex(name);
    let is_local =
        |name: &str| name.split('.').next().is_some_and(|first| first.eq_ignore_ascii_case("localhost"));
    name(read_file).filter(|name| !is_local(name) && !is_container(name))
}

/// Returns an id with `{hostname}` and `{machine-id}` replaced. The latter becomes 12 hexadecimal digits of a hash, which do not tell the
/// machine's id. The error says what is missing, or that a placeholder is not known: all workers with it would have one id.
pub(super) fn replace(id: &str, read_file: ReadFile<'_>) -> Result<String, String> {
    if let Some(unknown) = placeholders(id).find(|name| !matches!(*name, "hostname" | "machine-id")) {
        return Err(format!(
            "must not have {{{unknown}}}: the placeholders are {{hostname}} and {{machine-id}}"
        ));
    }
    let mut replaced = id.to_owned();
    if id.contains("{hostname}") {
        let name = name(read_file).ok_or("must not have {hostname}: this host has no name")?;
        replaced = replaced.replace("{hostname}", &name);
    }
    if id.contains("{machine-id}") {
        let machine = read_file(Path::new(MACHINE_ID)).unwrap_or_default();
        let machine = machine.trim();
        if machine.is_empty() {
            return Err("must not have {machine-id}: /etc/machine-id cannot be read or is empty".to_owned());
        }
        let hash = Sha256::new().chain_update(PURPOSE).chain_update(machine).finalize();
        let digits: String = HEXLOWER.encode(&hash).chars().take(DIGITS).collect();
        replaced = replaced.replace("{machine-id}", &digits);
    }
    Ok(replaced)
}

/// Returns what is between braces.
fn placeholders(id: &str) -> impl Iterator<Item = &str> {
    id.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(name: &'static str, machine: &'static str) -> impl Fn(&Path) -> io::Result<String> {
        move |path| match path.to_str().unwrap() {
            HOST_NAME => Ok(format!("{name}\n")),
            MACHINE_ID => Ok(format!("{machine}\n")),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_name_that_others_may_have_is_no_default() {
        for name in ["build-1", "deadbeef", "0123456789ab.example", "localhosts", "abcdefabcdeg"] {
            assert_eq!(default_id(&on(name, "")).as_deref(), Some(name));
        }
        let container = "0123456789abcdef".repeat(4).leak();
        for name in ["", " ", "localhost", "LocalHost.localdomain", "0123456789ab", container] {
            assert_eq!(default_id(&on(name, "")), None, "{name}");
        }
    }

    #[test]
    fn placeholders_are_replaced() {
        let read = on("h", "0123456789abcdef0123456789abcdef");
        assert_eq!(replace("a-{hostname}-{hostname}", &read).unwrap(), "a-h-h");
        for plain in ["{", "}", "}{", "a{b", "h}"] {
            assert_eq!(replace(plain, &read).unwrap(), plain);
        }
        for name in ["host", "HOSTNAME", "pid", ""] {
            let error = replace(&format!("{{hostname}}-{{{name}}}"), &read).unwrap_err();
            let right = "the placeholders are {hostname} and {machine-id}";
            assert_eq!(error, format!("must not have {{{name}}}: {right}"));
        }
        let id = replace("{machine-id}", &read).unwrap();
        assert!(id.len() == 12 && !"0123456789abcdef0123456789abcdef".contains(&id), "{id}");
        assert_eq!(replace("{machine-id}", &read).unwrap(), id);
        assert_ne!(replace("{machine-id}", &on("h", "1")).unwrap(), id);
        assert!(
            replace("{hostname}", &on("", "1")).is_err() && replace("{machine-id}", &on("h", "")).is_err()
        );
    }
}
