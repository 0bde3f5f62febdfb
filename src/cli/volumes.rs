//! What the operator mounts into every task container: `HOST:CONTAINER[:MODE]`.
//!
//! Owns the syntax and which places are taken. It must not know the engine or the sidecars. The engine would refuse
//! most of these mistakes too, but only when the first task is created.

use crate::policy::VolumeBind;

/// Where the sidecars are mounted.
const AGENT: &str = "/agent";

/// Parses all of them; the error is the value that is wrong and what would be right.
pub(super) fn parse_all(values: &[String]) -> Result<Vec<VolumeBind>, (String, String)> {
    let mut binds: Vec<VolumeBind> = Vec::with_capacity(values.len());
    for value in values {
        let bind = parse(value).map_err(|right| (value.clone(), right))?;
        if binds.iter().any(|other| other.container == bind.container) {
            let right = format!("must be the only one on {}", bind.container);
            return Err((value.clone(), right));
        }
        binds.push(bind);
    }
    Ok(binds)
}

fn parse(value: &str) -> Result<VolumeBind, String> {
    let parts: Vec<_> = value.split(':').collect();
    let (host, container, mode) = match *parts.as_slice() {
        [host, container] => (host, container, None),
        [host, container, mode] => (host, container, Some(mode)),
        _ => return Err("must be HOST:CONTAINER or HOST:CONTAINER:MODE".into()),
    };
    if value.chars().any(char::is_control) {
        return Err("must not have control characters".into());
    }
    if !(host.starts_with('/') || is_volume_name(host)) {
        return Err("must begin with an absolute path of the host, or the name of a volume".into());
    }
    if let Some(mode) = mode {
        check_mode(mode)?;
    }
    let mode = mode.unwrap_or_default().into();
    Ok(VolumeBind { host: host.into(), container: container_path(container)?, mode })
}

/// What the engine takes as the name of a volume.
fn is_volume_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn container_path(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err("must have an absolute path of the container after the colon".into());
    }
    let parts: Vec<_> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err("must not have .. in the path of the container".into());
    }
    let normal = format!("/{}", parts.join("/"));
    if normal == "/" {
        return Err("must not be mounted over the root of the container".into());
    }
    if normal.strip_prefix(AGENT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        return Err("must not be mounted at /agent, where the sidecar is".into());
    }
    Ok(normal)
}

/// Of each group the engine takes one word at most.
const MODES: [&[&str]; 5] = [
    &["ro", "rw"],
    &["z", "Z"],
    &["nocopy"],
    &["shared", "rshared", "slave", "rslave", "private", "rprivate"],
    &["consistent", "cached", "delegated"],
];

fn check_mode(mode: &str) -> Result<(), String> {
    let mut seen = [false; MODES.len()];
    for word in mode.split(',') {
        let Some(group) = MODES.iter().position(|words| words.contains(&word)) else {
            let known = MODES.concat().join(", ");
            return Err(format!("must have a comma-separated list of these as its mode: {known}"));
        };
        if seen.get(group) == Some(&true) {
            let words = MODES.get(group).copied().unwrap_or_default().join(", ");
            return Err(format!("must have one of these at most in its mode: {words}"));
        }
        seen.iter_mut().skip(group).take(1).for_each(|seen| *seen = true);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones_become_what_the_engine_takes() {
        let cases = [
            ("/a:/b", "/a:/b"),
            ("/:/host:ro", "/:/host:ro"),
            ("cache_1.x-y:/var/cache/", "cache_1.x-y:/var/cache"),
            ("1:/./b//c:rw,z,rslave,cached", "1:/b/c:rw,z,rslave,cached"),
            ("v:/agents:nocopy", "v:/agents:nocopy"),
            ("v:/x/agent:Z", "v:/x/agent:Z"),
            ("/a b:/ä..:delegated", "/a b:/ä..:delegated"),
        ];
        for (value, bind) in cases {
            assert_eq!(parse(value).unwrap().to_string(), bind);
        }
    }

    #[test]
    fn bad_ones_say_what_would_be_right() {
        let cases = [
            ("", "must be HOST:CONTAINER"),
            ("/a", "must be HOST:CONTAINER"),
            ("/a:/b:ro:x", "must be HOST:CONTAINER"),
            (":/b", "must begin with"),
            ("a/b:/b", "must begin with"),
            ("./a:/b", "must begin with"),
            ("_a:/b", "must begin with"),
            ("ä:/b", "must begin with"),
            ("/a:", "absolute path of the container"),
            ("/a:b", "absolute path of the container"),
            ("/a:/", "root"),
            ("/a:/.//", "root"),
            ("/a:/b/../agent", ".."),
            ("/a:/agent", "/agent"),
            ("/a:/./agent//x", "/agent"),
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
    }

    #[test]
    fn two_on_one_path_are_refused() {
        let values = ["/a:/x".to_string(), "/a:/xy".to_string(), "/b:/x/".to_string()];
        assert_eq!(parse_all(&values[..2]).unwrap().len(), 2);
        let (value, right) = parse_all(&values).unwrap_err();
        assert_eq!((value.as_str(), right.as_str()), ("/b:/x/", "must be the only one on /x"));
    }
}
