//! The free space of the engine's disk, if that disk is on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::{info, warn};
use rustix::fs::{StatVfs, stat, statvfs};
use rustix::io::Errno;
use rustix::system::uname;

use super::monitor::DiskFree;
use crate::docker::{Docker, Engine};
use crate::logging::{message, value};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A disk with less free space counts as full: file systems refuse to write before the last block is used.
const FULL: u64 = MIB;

/// A folder on the engine's disk, and how much of the disk must be free.
#[derive(Debug, Clone)]
pub struct DiskWatch {
    folder: PathBuf,
    /// In bytes.
    min_free: u64,
    /// Takes the result of each check.
    last: Arc<DiskFree>,
}

/// Why the engine's disk cannot be watched.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotWatched {
    #[error("the engine is reached over a network")]
    Network,
    #[error("the engine runs on {engine:?} and the worker on {worker:?}")]
    OtherHost { engine: String, worker: String },
    #[error("the engine does not name its data folder")]
    NoFolder,
    #[error(
        "the worker's container does not see the engine's data folder; mount it read-only: -v {0}:{0}:ro, or set --min-free-disk 0"
    )]
    NotMounted(String),
    #[error("cannot read the free space of {folder:?}: {error}")]
    Unreadable { folder: PathBuf, error: Errno },
}

impl DiskWatch {
    /// Returns a watch on the disk with the engine's data folder. Returns `None` if the folder is not on this machine. Logs either,
    /// unless `min_free` (bytes) is 0: no task is refused then.
    pub fn new(docker: &Docker, min_free: u64) -> Option<Self> {
        match Self::find(docker, min_free) {
            watch if min_free == 0 => watch.ok().map(|(watch, _)| watch),
            Ok((watch, free)) => {
                let folder = watch.folder.display().to_string();
                info!("disk watched folder={} free={free} min_free={min_free}", value(&folder));
                Some(watch)
            }
            Err(reason @ NotWatched::NotMounted(_)) => {
                warn!("disk not watched reason={}", message(&reason.to_string()));
                None
            }
            Err(reason) => {
                info!("disk not watched reason={}", value(&reason.to_string()));
                None
            }
        }
    }

    /// As [`DiskWatch::new`], without a log. Also returns the free bytes.
    pub(super) fn find(docker: &Docker, min_free: u64) -> Result<(Self, u64), NotWatched> {
        let host = uname().nodename().to_string_lossy().into_owned();
        let place = Place { is_local: docker.is_local(), host: &host, is_container: is_container() };
        let folder = data_folder(docker.engine(), &place, &look_at)?;
        let watch = Self { folder, min_free, last: Arc::default() };
        let free = watch.free()?;
        Ok((watch, free))
    }

    /// The watched folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the same watch, of which `last` takes the result of each check, also of the one at its start.
    pub(super) fn recording(self, last: &Arc<DiskFree>) -> Self {
        if let Some(free) = self.last.get() {
            last.record(free);
        }
        Self { last: Arc::clone(last), ..self }
    }

    /// Returns why there is too little space for a new task, for people; `None` if there is enough or the space is unknown.
    pub fn low(&self) -> Option<String> {
        self.too_little(self.free().ok()?)
    }

    /// As [`DiskWatch::low`], by the last check.
    pub(super) fn was_low(&self) -> Option<String> {
        self.too_little(self.last.get()?)
    }

    fn too_little(&self, free: u64) -> Option<String> {
        let (free, least) = (free < self.min_free).then(|| (readable(free), readable(self.min_free)))?;
        Some(format!("the engine's disk has {free} free, less than --min-free-disk {least}"))
    }

    /// Returns a function that returns whether even the engine has no space left, as far as that is known.
    pub fn full_check(watch: Option<&Self>) -> Box<dyn Fn() -> bool + Send + Sync> {
        let watch = watch.cloned();
        Box::new(move || watch.as_ref().is_some_and(Self::is_full))
    }

    /// Whether tasks are refused while there is too little space.
    pub fn refuses_tasks(&self) -> bool {
        self.min_free > 0
    }

    /// Returns whether even the engine has no space left. `false` if the space is unknown.
    pub fn is_full(&self) -> bool {
        // The engine can use the space that is reserved for root.
        self.space().is_ok_and(|space| space.f_bfree.saturating_mul(space.f_frsize) < FULL)
    }

    /// Returns the free bytes, without the space reserved for root. The engine could use that space, but tasks should not.
    fn free(&self) -> Result<u64, NotWatched> {
        let space = self.space()?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        self.last.record(free);
        Ok(free)
    }

    fn space(&self) -> Result<StatVfs, NotWatched> {
        let unreadable = |error| NotWatched::Unreadable { folder: self.folder.clone(), error };
        statvfs(&self.folder).map_err(unreadable)
    }
}

/// What is at a path.
pub(super) enum Folder {
    Missing,
    Plain,
    /// It is on another file system than the folder that it is in.
    Mounted,
}

/// Where the worker runs.
struct Place<'a> {
    /// The engine is reached by a Unix socket.
    is_local: bool,
    /// The machine's name.
    host: &'a str,
    is_container: bool,
}

/// Returns the engine's data folder. The engine's machine has another name behind a forwarded socket and in a virtual machine.
/// A container has its own name and files, so there the folder must be mounted or the name be the engine's.
fn data_folder(
    engine: &Engine,
    place: &Place<'_>,
    look_at: &dyn Fn(&Path) -> Folder,
) -> Result<PathBuf, NotWatched> {
    let root = PathBuf::from(&engine.root);
    if !place.is_local {
        Err(NotWatched::Network)
    } else if !root.is_absolute() {
        Err(NotWatched::NoFolder)
    } else if place.is_container {
        match look_at(&root) {
            Folder::Mounted => Ok(root),
            // An engine in the same container.
            Folder::Plain if engine.host == place.host => Ok(root),
            Folder::Plain | Folder::Missing => Err(NotWatched::NotMounted(engine.root.clone())),
        }
    } else if engine.host != place.host {
        Err(NotWatched::OtherHost { engine: engine.host.clone(), worker: place.host.to_owned() })
    } else {
        Ok(root)
    }
}

/// Whether this process runs in a container of Docker or Podman, which create these files.
pub(super) fn is_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|file| Path::new(file).exists())
}

pub(super) fn look_at(path: &Path) -> Folder {
    let device = |path: &Path| stat(path).map(|found| found.st_dev).ok();
    let Some(inner) = device(path) else { return Folder::Missing };
    let outer = path.parent().and_then(device);
    if outer.is_some_and(|outer| outer != inner) { Folder::Mounted } else { Folder::Plain }
}

/// Returns a number of bytes in a readable unit, rounded down.
pub(super) fn readable(bytes: u64) -> String {
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
            properties: crate::docker::Properties::default(),
        };
        let here = |is_local| Place { is_local, host: "h", is_container: false };
        let unasked = |_: &Path| -> Folder { unreachable!("only a container asks") };
        assert_eq!(data_folder(&engine("h", "/d"), &here(true), &unasked), Ok("/d".into()));
        let elsewhere =
            [(engine("h", "/d"), false), (engine("docker-desktop", "/d"), true), (engine("h", ""), true)];
        for (engine, local) in elsewhere {
            assert!(data_folder(&engine, &here(local), &unasked).is_err(), "{engine:?}");
        }
        let container = Place { is_container: true, ..here(true) };
        for (host, in_same) in [("other", false), ("h", true)] {
            let engine = engine(host, "/d");
            assert_eq!(data_folder(&engine, &container, &|_| Folder::Mounted), Ok("/d".into()));
            assert_eq!(data_folder(&engine, &container, &|_| Folder::Plain).is_ok(), in_same);
            let error = data_folder(&engine, &container, &|_| Folder::Missing).unwrap_err().to_string();
            assert!(error.contains("-v /d:/d:ro"), "{error}");
        }
    }

    #[test]
    fn a_mount_is_told_from_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        assert!(matches!(look_at(Path::new("/proc")), Folder::Mounted));
        assert!(matches!(look_at(&inner), Folder::Plain));
        assert!(matches!(look_at(&folder.path().join("none")), Folder::Missing));
    }

    #[test]
    fn a_disk_is_low_below_its_minimum() {
        let watch =
            |folder: &str, min_free| DiskWatch { folder: folder.into(), min_free, last: Arc::default() };
        assert!(watch("/", 0).free().is_ok_and(|free| free > 0));
        assert_eq!(watch("/", 1).low(), None);
        let text = watch("/", u64::MAX).low().unwrap();
        let (start, end) = ("the engine's disk has ", " free, less than --min-free-disk 17179869183.9 GiB");
        assert!(text.starts_with(start) && text.ends_with(end), "{text}");
        assert_eq!(watch("/nonexistent", u64::MAX).low(), None, "an unknown size does not refuse a task");
        assert!(!watch("/", 0).is_full() && !watch("/nonexistent", 0).is_full());
        assert!(watch("/proc", 0).is_full(), "a file system without any space");
        assert!(watch("/", 1).refuses_tasks() && !watch("/", 0).refuses_tasks());
    }
}
