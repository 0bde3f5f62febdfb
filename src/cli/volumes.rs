//! Mounts for every task container: `HOST:CONTAINER[:MODE]`.
//!
//! The engine would reject most invalid mounts too, but only when the first task is created.

use crate::policy::{VolumeBind, check_folder};

/// Where sidecars are mounted.
const AGENT: &str = "/agent";

/// The most bytes of one name in a path, and of a path, in Linux.
const MAX_NAME: usize = 255;
const MAX_PATH: usize = 4095;

/// Parses a mount. The error says what would be valid, as `must ...`.
pub(super) fn parse(value: &str) -> Result<VolumeBind, String> {
    let parts: Vec<_> = value.split(':').collect();
    let (host, container, mode) = match *parts.as_slice() {
        [host, container] => (host, container, None),
        [host, container, mode] => (host, container, Some(mode)),
        _ => return Err("must be HOST:CONTAINER or HOST:CONTAINER:MODE".into()),
    };
    if value.chars().any(char::is_control) {
        return Err("must not contain control characters".into());
    }
    if !(host.starts_with('/') || is_volume_name(host)) {
        return Err("must begin with an absolute path on the host or the name of a volume".into());
    }
    if let Some(mode) = mode {
        check_mode(mode)?;
    }
    let mode = mode.unwrap_or_default().into();
    let container = container_path(container)?;
    // A path of the host may be a file.
    if !host.starts_with('/') {
        check_folder(&container)?;
    }
    Ok(VolumeBind { host: host.into(), container, mode })
}

/// Whether the engine accepts this as the name of a volume.
fn is_volume_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// The path in a normal form: no empty parts, no `.`, no final slash.
pub(super) fn container_path(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err("must have an absolute path in the container after the colon".into());
    }
    let parts: Vec<_> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err("must not have .. in the path in the container".into());
    }
    if parts.iter().any(|part| part.len() > MAX_NAME) || path.len() > MAX_PATH {
        return Err(format!(
            "must have a path in the container with names of at most {MAX_NAME} bytes and {MAX_PATH} bytes in all"
        ));
    }
    let normal = format!("/{}", parts.join("/"));
    if normal == "/" {
        return Err("must not be mounted over the root of the container".into());
    }
    if normal.strip_prefix(AGENT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        return Err("must not be mounted at /agent, which is for the sidecar".into());
    }
    Ok(normal)
}

/// Groups of mode words; the engine accepts at most one word of each.
const MODES: [&[&str]; 5] = [
    &["ro", "rw"],
    &["z", "Z"],
    &["nocopy"],
    &["shared", "rshared", "slave", "rslave", "private", "rprivate"],
    &["consistent", "cached", "delegated"],
];

fn check_mode(mode: &str) -> Result<(), String> {
    let words: Vec<_> = mode.split(',').collect();
    if words.iter().any(|word| !MODES.iter().any(|group| group.contains(word))) {
        let known = MODES.concat().join(", ");
        return Err(format!("must have a comma-separated list of these words as its mode: {known}"));
    }
    for group in MODES {
        if words.iter().filter(|word| group.contains(word)).count() > 1 {
            return Err(format!("must have at most one of these words in its mode: {}", group.join(", ")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_mount_becomes_a_bind_of_the_engine() {
        let cases = [
            ("/a:/b", "/a:/b"),
            ("/:/host:ro", "/:/host:ro"),
            ("cache_1.x-y:/var/cache/", "cache_1.x-y:/var/cache"),
            ("1:/./b//c:rw,z,rslave,cached", "1:/b/c:rw,z,rslave,cached"),
            ("v:/agents:nocopy", "v:/agents:nocopy"),
            ("v:/x/agent:Z", "v:/x/agent:Z"),
            ("v:/dev/shm", "v:/dev/shm"),
            ("/a/hosts:/etc/hosts:ro", "/a/hosts:/etc/hosts:ro"),
            ("/dev:/dev", "/dev:/dev"),
            ("/a b:/ä..:delegated", "/a b:/ä..:delegated"),
        ];
        for (value, bind) in cases {
            assert_eq!(parse(value).unwrap().to_string(), bind);
        }
    }

    #[test]
    fn an_invalid_mount_is_an_error_that_says_what_is_valid() {
        let cases = [
            ("", "must be HOST:CONTAINER"),
            ("/a", "must be HOST:CONTAINER"),
            ("/a:/b:ro:x", "must be HOST:CONTAINER"),
            (":/b", "must begin with"),
            ("a/b:/b", "must begin with"),
            ("./a:/b", "must begin with"),
            ("_a:/b", "must begin with"),
            ("ä:/b", "must begin with"),
            ("/a:", "absolute path in the container"),
            ("/a:b", "absolute path in the container"),
            ("/a:/", "root"),
            ("/a:/.//", "root"),
            ("/a:/b/../agent", ".."),
            ("/a:/agent", "/agent"),
            ("/a:/./agent//x", "/agent"),
            ("v:/proc", "must not be mounted at /proc"),
            ("v:/etc//hosts:ro", "must not be mounted at /proc"),
            ("/a:/b:", "comma-separated"),
            ("/a:/b:RO", "comma-separated"),
            ("/a:/b:ro,", "comma-separated"),
            ("/a:/b:ro,rw", "ro, rw"),
            ("/a:/b:ro,ro", "ro, rw"),
            ("/a:/b:z,shared,rprivate", "rprivate"),
            ("/a\n:/b", "control"),
        ];
        for (value, right) in cases {
            let error = parse(value).unwrap_err();
            assert!(error.contains(right), "{value}: {error}");
        }
        for path in ["n".repeat(256), "abc/".repeat(1024)] {
            assert!(parse(&format!("/a:/{path}")).unwrap_err().contains("255 bytes and 4095"));
        }
        parse(&format!("/a:/{}", "n".repeat(255))).unwrap();
    }
}
