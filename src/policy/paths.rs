//! The paths of a container that belong to the engine.

/// A path at which the engine itself mounts something.
struct EnginePath {
    path: &'static str,
    /// Whether a container starts with a folder of others at this path, and with one below it.
    at: bool,
    below: bool,
}

/// Every such path. The last three are files.
const ENGINE_PATHS: [EnginePath; 6] = [
    EnginePath { path: "/proc", at: false, below: false },
    EnginePath { path: "/dev", at: false, below: true },
    EnginePath { path: "/sys", at: true, below: true },
    EnginePath { path: "/etc/hosts", at: false, below: false },
    EnginePath { path: "/etc/hostname", at: false, below: false },
    EnginePath { path: "/etc/resolv.conf", at: false, below: false },
];

/// Whether a path in its normal form is one at which the engine itself mounts something, or below it.
pub(crate) fn is_of_engine(path: &str) -> bool {
    ENGINE_PATHS.iter().any(|own| path == own.path || is_below(path, own.path))
}

/// Checks that a container starts with a folder mounted at a path in its normal form. The operator may cover what the engine mounts,
/// such as `/dev/shm`.
///
/// # Errors
/// What would be valid, as `must ...`.
pub(crate) fn check_folder(path: &str) -> Result<(), String> {
    let is_in_the_way =
        |own: &EnginePath| path == own.path && !own.at || is_below(path, own.path) && !own.below;
    if !ENGINE_PATHS.iter().any(is_in_the_way) {
        return Ok(());
    }
    let paths = |filter: fn(&&EnginePath) -> bool| {
        let paths: Vec<_> = ENGINE_PATHS.iter().filter(filter).map(|own| own.path).collect();
        paths.join(", ")
    };
    let (at, below) = (paths(|own| !own.at), paths(|own| !own.below));
    Err(format!("must not be mounted at {at}, nor below {below}, where no container can start with it"))
}

/// Whether a path is below another. Both are in their normal form.
pub(crate) fn is_below(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Docker 28 and runc behave.
    #[test]
    fn a_folder_can_be_where_the_engine_mounts_a_folder_but_not_in_place_of_a_file() {
        for path in
            ["/proc", "/proc/x", "/dev", "/etc/hosts", "/etc/hosts/x", "/etc/hostname", "/etc/resolv.conf"]
        {
            let expected = "must not be mounted at /proc, /dev, /etc/hosts, /etc/hostname, /etc/resolv.conf, nor below /proc, \
                            /etc/hosts, /etc/hostname, /etc/resolv.conf, where no container can start with it";
            assert_eq!(check_folder(path), Err(expected.to_owned()), "{path}");
            assert!(is_of_engine(path), "{path}");
        }
        for path in ["/dev/shm", "/dev/x", "/sys", "/sys/fs/cgroup"] {
            assert!(check_folder(path).is_ok() && is_of_engine(path), "{path}");
        }
        for path in ["/tmp", "/process", "/etc", "/etc/hosts.d", "/x/proc", "/device"] {
            assert!(check_folder(path).is_ok() && !is_of_engine(path), "{path}");
        }
    }
}
