//! Locks that at most one process of this host holds, and that are free as soon as their holder has ended.
//!
//! A lock is a Unix socket that is bound to an abstract name. It needs no file, no folder and no rights, and the kernel frees it
//! however its holder ends. Processes in different network namespaces, such as those of two containers, do not see each other's
//! locks.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use sha2::{Digest, Sha256};

use super::files;

/// The names of all Unix sockets of this network namespace: one in a line, the last field. An abstract one begins with `@`.
const SOCKETS: &str = "/proc/self/net/unix";

/// The most bytes of [`SOCKETS`] that are read: some 100,000 sockets.
const SOCKETS_LIMIT: usize = 16 << 20;

/// A lock, held until it is dropped.
#[derive(Debug)]
pub struct HostLock {
    _socket: OwnedFd,
}

impl HostLock {
    /// Takes a lock; `None` if it is held.
    ///
    /// # Errors
    /// The system has no socket or does not allow one, or the name is longer than 100 bytes.
    pub fn take(name: &str) -> io::Result<Option<Self>> {
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        match bind(&socket, &address) {
            Ok(()) => Ok(Some(Self { _socket: socket })),
            Err(Errno::ADDRINUSE) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the name of a lock about a text of any length, of at most 70 bytes and `kind`.
pub fn name(kind: &str, text: &str) -> String {
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = Sha256::digest(text).into();
    let digest = data_encoding::HEXLOWER.encode(&[a, b, c, d, e, f, g, h]);
    format!("oz-agent-worker/{kind}/{digest}")
}

/// Returns what follows `prefix` in the names of the locks that are held; empty where the system does not show them.
pub fn held(prefix: &str) -> Vec<String> {
    let sockets = files::read(Path::new(SOCKETS), SOCKETS_LIMIT).unwrap_or_default();
    let sockets = String::from_utf8_lossy(&sockets);
    let rest = |line: &str| {
        let (_, name) = line.rsplit_once(" @")?;
        name.strip_prefix(prefix).map(str::to_owned)
    };
    sockets.lines().filter_map(rest).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::hash_map::RandomState;
    use std::hash::{BuildHasher, Hasher};

    use super::*;

    fn random_name() -> String {
        name("test", &RandomState::new().build_hasher().finish().to_string())
    }

    #[test]
    fn a_lock_has_one_holder_and_is_free_at_its_end() {
        let name = random_name();
        let lock = HostLock::take(&name).unwrap().unwrap();
        assert!(HostLock::take(&name).unwrap().is_none());
        assert!(HostLock::take(&random_name()).unwrap().is_some(), "another name");
        drop(lock);
        assert!(HostLock::take(&name).unwrap().is_some());
    }

    #[test]
    fn locks_are_found_by_their_beginning() {
        let name = random_name();
        assert_eq!(held(&name), Vec::<String>::new());
        let _locks =
            ["", "/7", "/x y"].map(|rest| HostLock::take(&format!("{name}{rest}")).unwrap().unwrap());
        let mut found = held(&format!("{name}/"));
        found.sort();
        assert_eq!(found, ["7", "x y"]);
    }

    #[test]
    fn a_name_is_short_and_differs_with_its_text_and_kind() {
        let long = name("process", &"x".repeat(1000));
        assert!(HostLock::take(&format!("{long}/4194304")).unwrap().is_some());
        assert!(name("a", "x") != name("a", "y") && name("a", "x") != name("b", "x"));
    }
}
