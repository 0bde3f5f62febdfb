//! The free space of the engine's disk, if that disk is on this machine.

use std::path::PathBuf;

use log::info;
use rustix::fs::statvfs;
use rustix::io::Errno;
use rustix::system::uname;

use crate::docker::{Docker, Engine};
use crate::logging::value;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A folder on the engine's disk, and how much of the disk must be free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskWatch {
    folder: PathBuf,
    /// In bytes.
    min_free: u64,
}

/// Why the engine's disk cannot be watched.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NotWatched {
    #[error("the engine is reached over a network")]
    Network,
    #[error("the engine runs on {engine:?} and the worker on {worker:?}")]
    OtherHost { engine: String, worker: String },
    #[error("the engine does not name its data folder")]
    NoFolder,
    #[error("cannot read the free space of {folder:?}: {error}")]
    Unreadable { folder: PathBuf, error: Errno },
}

impl DiskWatch {
    /// Returns a watch on the disk with the engine's data folder, and logs it. Returns `None` if `min_free` (bytes) is 0 or the
    /// folder is not on this machine.
    pub fn new(docker: &Docker, min_free: u64) -> Option<Self> {
        if min_free == 0 {
            return None;
        }
        let host = uname().nodename().to_string_lossy().into_owned();
        let watch = data_folder(docker.engine(), docker.is_local(), &host)
            .map(|folder| Self { folder, min_free })
            .and_then(|watch| watch.free().map(|free| (watch, free)));
        match watch {
            Ok((watch, free)) => {
                let folder = watch.folder.display().to_string();
                info!("disk watched folder={} free={free} min_free={min_free}", value(&folder));
                Some(watch)
            }
            Err(reason) => {
                info!("disk not watched reason={}", value(&reason.to_string()));
                None
            }
        }
    }

    /// Returns why there is too little space for a new task, for people; `None` if there is enough or the space is unknown.
    pub fn low(&self) -> Option<String> {
        let free = self.free().ok().filter(|free| *free < self.min_free)?;
        let free = readable(free);
        let least = readable(self.min_free);
        Some(format!("the engine's disk has {free} free, less than --min-free-disk {least}"))
    }

    /// Returns the free bytes, without the space reserved for root. The engine could use that space, but tasks should not.
    fn free(&self) -> Result<u64, NotWatched> {
        let found = statvfs(&self.folder)
            .map_err(|error| NotWatched::Unreadable { folder: self.folder.clone(), error })?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

/// Returns the engine's data folder. `host` is this machine's name. The engine's machine has another name behind a forwarded
/// socket, in a virtual machine, and for a worker in a container.
fn data_folder(engine: &Engine, is_local: bool, host: &str) -> Result<PathBuf, NotWatched> {
    let root = PathBuf::from(&engine.root);
    if !is_local {
        Err(NotWatched::Network)
    } else if engine.host != host {
        Err(NotWatched::OtherHost { engine: engine.host.clone(), worker: host.to_owned() })
    } else if !root.is_absolute() {
        Err(NotWatched::NoFolder)
    } else {
        Ok(root)
    }
}

/// Returns a number of bytes in a readable unit, rounded down.
fn readable(bytes: u64) -> String {
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
    fn a_size_is_rounded_down_to_a_readable_unit() {
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
            assert_eq!(readable(bytes), text);
        }
    }

    #[test]
    fn only_a_folder_on_this_machine_is_watched() {
        let engine = |host: &str, root: &str| Engine {
            has_containerd: true,
            version: String::new(),
            api_version: ApiVersion::MIN,
            os: String::new(),
            arch: String::new(),
            cpus: 0,
            host: host.into(),
            root: root.into(),
        };
        assert_eq!(data_folder(&engine("h", "/d"), true, "h"), Ok("/d".into()));
        let elsewhere =
            [(engine("h", "/d"), false), (engine("docker-desktop", "/d"), true), (engine("h", ""), true)];
        for (engine, local) in elsewhere {
            assert!(data_folder(&engine, local, "h").is_err(), "{engine:?}");
        }
    }

    #[test]
    fn a_disk_is_low_below_its_minimum() {
        let watch = |folder: &str, min_free| DiskWatch { folder: folder.into(), min_free };
        assert!(watch("/", 0).free().is_ok_and(|free| free > 0));
        assert_eq!(watch("/", 1).low(), None);
        let text = watch("/", u64::MAX).low().unwrap();
        let (start, end) = ("the engine's disk has ", " free, less than --min-free-disk 17179869183.9 GiB");
        assert!(text.starts_with(start) && text.ends_with(end), "{text}");
        assert_eq!(watch("/nonexistent", u64::MAX).low(), None, "an unknown size does not refuse a task");
    }
}
