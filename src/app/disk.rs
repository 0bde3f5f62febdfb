//! The free space of the disk that the engine keeps images, containers and volumes on, when that disk is this machine's.
//!
//! Owns whether there is a disk to look at, and what is said of one that is too full. It must not know what follows from it.

use std::path::PathBuf;

use log::info;
use rustix::fs::statvfs;
use rustix::system::uname;

use crate::docker::{Docker, Engine};
use crate::logging::value;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A disk, and how much of it must be free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskWatch {
    folder: PathBuf,
    /// In bytes.
    min_free: u64,
}

impl DiskWatch {
    /// For the data folder of this engine; `None` when there is nothing to look at: `min_free` (bytes) is 0, or the folder is
    /// not on this machine as far as this process can tell, which is logged.
    pub fn new(docker: &Docker, min_free: u64) -> Option<Self> {
        if min_free == 0 {
            return None;
        }
        let here = uname().nodename().to_string_lossy().into_owned();
        let watch = folder(docker.engine(), docker.is_local(), &here).map(|folder| Self { folder, min_free });
        match watch.and_then(|watch| watch.look().map(|free| (watch, free))) {
            Ok((watch, free)) => {
                let folder = watch.folder.display().to_string();
                info!("disk watched folder={} free={free} min_free={min_free}", value(&folder));
                Some(watch)
            }
            Err(reason) => {
                info!("disk not watched reason={}", value(&reason));
                None
            }
        }
    }

    /// Bytes that a program without privileges may still write; `None` when they cannot be had. The engine itself is root and
    /// may go on beyond, but tasks need not be, and what is kept for root is there for the machine and not for them.
    pub fn free(&self) -> Option<u64> {
        self.look().ok()
    }

    /// Why there is too little space for a new task, for people; `None` when there is enough, or nobody knows.
    pub fn low(&self) -> Option<String> {
        let free = self.free().filter(|free| *free < self.min_free)?;
        let (free, least) = (size(free), size(self.min_free));
        Some(format!("the engine's disk has {free} free, less than --min-free-disk {least}"))
    }

    fn look(&self) -> Result<u64, String> {
        let found = statvfs(&self.folder);
        let found =
            found.map_err(|error| format!("{} cannot be looked at: {error}", self.folder.display()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

/// The engine's data folder as a path on this machine, or why it is none. `here` is this machine's name: a forwarded socket, a
/// virtual machine and a worker in a container of its own show by another one.
fn folder(engine: &Engine, local: bool, here: &str) -> Result<PathBuf, String> {
    let root = PathBuf::from(&engine.root);
    if !local {
        Err("the engine is reached over a network".to_owned())
    } else if engine.host != here {
        Err(format!("the engine is on {:?} and the worker on {here:?}", engine.host))
    } else if !root.is_absolute() {
        Err("the engine does not name its data folder".to_owned())
    } else {
        Ok(root)
    }
}

/// Bytes for people, rounded down.
fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= GIB && !bytes.is_multiple_of(GIB) => {
            format!("{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB)
        }
        _ if bytes >= GIB => format!("{} GiB", bytes / GIB),
        _ if bytes >= MIB => format!("{} MiB", bytes / MIB),
        _ => format!("{} KiB", bytes / KIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::ApiVersion;

    #[test]
    fn sizes_are_for_people() {
        let cases = [
            (0, "0 KiB"),
            (MIB - 1, "1023 KiB"),
            (512 * MIB + 1, "512 MiB"),
            (GIB, "1 GiB"),
            (GIB + GIB / 2, "1.5 GiB"),
            (2 * GIB - 1, "1.9 GiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn only_a_folder_of_this_machine_is_looked_at() {
        let engine = |host: &str, root: &str| Engine {
            version: String::new(),
            api_version: ApiVersion::MIN,
            os: String::new(),
            arch: String::new(),
            cpus: 0,
            host: host.into(),
            root: root.into(),
        };
        assert_eq!(folder(&engine("h", "/d"), true, "h"), Ok("/d".into()));
        let none =
            [(engine("h", "/d"), false), (engine("docker-desktop", "/d"), true), (engine("h", ""), true)];
        for (engine, local) in none {
            assert!(folder(&engine, local, "h").is_err(), "{engine:?}");
        }
    }

    #[test]
    fn a_disk_is_low_below_what_must_be_free() {
        let watch = |folder: &str, min_free| DiskWatch { folder: folder.into(), min_free };
        assert!(watch("/", 0).free().is_some_and(|free| free > 0));
        assert_eq!(watch("/", 1).low(), None);
        let text = watch("/", u64::MAX).low().unwrap();
        let (start, end) = ("the engine's disk has ", " free, less than --min-free-disk 17179869183.9 GiB");
        assert!(text.starts_with(start) && text.ends_with(end), "{text}");
        assert_eq!(watch("/nonexistent", u64::MAX).low(), None, "what nobody knows is no reason to refuse");
    }
}
