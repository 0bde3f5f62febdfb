//! Checks at start that the host's paths that tasks mount are where the operator wants them, and that this can be known here.

use std::path::Path;

use rustix::system::uname;

use super::disk::{Folder, is_container, look_at};
use crate::cli::Config;
use crate::docker::Docker;
use crate::task::mounts::{MountError, resolve};

/// Why the paths of the engine's host cannot be resolved by this process.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is set, but symbolic links of the engine's host cannot be resolved here: {why}; {REMEDY}")]
pub(super) struct OtherPaths {
    /// The name of `--allow-mount-path` as it was set.
    setting: String,
    why: Elsewhere,
}

/// Where the engine is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Elsewhere {
    #[error("the engine is reached over a network")]
    Network,
    #[error("the engine runs on {engine:?} and the worker on {worker:?}")]
    OtherHost { engine: String, worker: String },
    #[error("the worker runs in a container, and not the engine")]
    Container,
}

const REMEDY: &str = "run the worker on that host, or mount only named volumes with --volumes";

/// Returns whether there is a path to check.
pub(super) fn are_restricted(config: &Config) -> bool {
    !config.mount_paths.is_empty() && config.volumes.iter().any(|volume| volume.host.starts_with('/'))
}

/// Checks the paths.
///
/// # Errors
/// A path is elsewhere, or cannot be resolved.
pub(super) fn check(config: &Config) -> Result<(), MountError> {
    resolve(&config.volumes, &config.mount_paths, &config.names).map(drop)
}

/// Checks that the engine has the paths of this process, as far as that can be seen.
///
/// # Errors
/// It has others, or may have others.
pub(super) fn check_engine(config: &Config, docker: &Docker) -> Result<(), OtherPaths> {
    if !are_restricted(config) {
        return Ok(());
    }
    let system = uname();
    let place = Place {
        worker: &system.nodename().to_string_lossy(),
        engine: &docker.engine().host,
        data: Path::new(&docker.engine().root),
        socket: docker.socket(),
        is_container: is_container(),
    };
    place.check(&look_at).map_err(|why| OtherPaths { setting: config.names.of("--allow-mount-path"), why })
}

/// Where the worker and the engine run.
struct Place<'a> {
    /// The name of the worker's host.
    worker: &'a str,
    /// The name of the engine's host.
    engine: &'a str,
    /// The engine's data folder.
    data: &'a Path,
    /// The engine's socket.
    socket: Option<&'a Path>,
    /// The worker runs in a container.
    is_container: bool,
}

impl Place<'_> {
    fn check(&self, look_at: &dyn Fn(&Path) -> Folder) -> Result<(), Elsewhere> {
        let Some(socket) = self.socket else { return Err(Elsewhere::Network) };
        if self.engine != self.worker {
            let (engine, worker) = (self.engine.to_owned(), self.worker.to_owned());
            return Err(Elsewhere::OtherHost { engine, worker });
        }
        // A container may have the name of its host. An engine in the same container has its data and its socket there.
        let is_own = |path: &Path| matches!(look_at(path), Folder::Plain);
        if self.is_container && !(is_own(self.data) && is_own(socket)) {
            return Err(Elsewhere::Container);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_the_same_host_are_resolved() {
        let plain = |_: &Path| Folder::Plain;
        let (data, socket) = (Path::new("/data"), Path::new("/socket"));
        let host = Place { worker: "h", engine: "h", data, socket: Some(socket), is_container: false };
        assert_eq!(host.check(&|_| unreachable!("only a container asks")), Ok(()));
        assert_eq!(Place { socket: None, ..host }.check(&plain), Err(Elsewhere::Network));
        let why = Place { engine: "docker-desktop", ..host }.check(&plain).unwrap_err();
        let error = OtherPaths { setting: "OZ_ALLOW_MOUNT_PATH".into(), why };
        let expected = "OZ_ALLOW_MOUNT_PATH is set, but symbolic links of the engine's host cannot be resolved here: the engine runs on \
                        \"docker-desktop\" and the worker on \"h\"; run the worker on that host, or mount only named volumes with --volumes";
        assert_eq!(error.to_string(), expected);
        // A container with the name of its host, and without the engine.
        let container = Place { is_container: true, ..host };
        assert_eq!(container.check(&plain), Ok(()), "an engine in the same container");
        for other in [data, socket] {
            let mounted = |path: &Path| if path == other { Folder::Mounted } else { Folder::Plain };
            let missing = |path: &Path| if path == other { Folder::Missing } else { Folder::Plain };
            assert_eq!(container.check(&mounted), Err(Elsewhere::Container));
            assert_eq!(container.check(&missing), Err(Elsewhere::Container));
        }
    }
}
