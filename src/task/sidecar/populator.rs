//! Populates a volume from an image without running anything.
//!
//! Two containers are created and never started: one of the image, which is exported, and one that mounts the volume, into which
//! the export is unpacked. So the image needs neither a shell nor tar.

use std::time::{Duration, Instant};

use log::warn;

use super::helper::{Helper, HelperSpec};
use super::{ENTRYPOINTS, Population, Script, marker};
use crate::docker::{Error, Mount, PathStat, VolumeOptions};
use crate::task::labels::{self, PROCESS_LABEL, WORKER_LABEL};
use crate::task::names::{self, ContainerRef};
use crate::task::output::file::{MAX_LINKS, first_file, target};
use crate::task::plan::AGENT_DIR;

/// Where the helper mounts the volume. Not at [`AGENT_DIR`]: an image may declare volumes below that, which would hide a part of it.
pub(in crate::task) const VOLUME_DIR: &str = "/oz-sidecar-volume";

/// How long to wait for another worker's populator. After that, it is treated as a leftover of a crashed worker.
const POPULATOR_TIMEOUT: Duration = Duration::from_secs(600);

/// The right of everybody to execute a file: the user of a task is that of its image.
const ALL_EXECUTE: u32 = 0o111;

/// How a file begins that Linux executes: with the name of its interpreter, or as a program.
const MAGIC: [&[u8]; 2] = [b"#!", b"\x7fELF"];

/// The bytes that tell whether a file begins with one of [`MAGIC`].
const MAGIC_BYTES: usize = 4;

/// How often to check whether another worker's populator is done.
const POPULATOR_PAUSE: Duration = Duration::from_millis(500);

/// A helper container that mounts a volume. Its name acts as a lock: two workers cannot populate the same volume at once.
pub(super) struct VolumePopulator<'a> {
    spec: HelperSpec<'a>,
    population: &'a Population<'a>,
    helper: Helper<'a>,
}

impl<'a> VolumePopulator<'a> {
    /// Waits until no other worker populates the volume, and creates the helper.
    ///
    /// # Errors
    /// An engine error, or [`Error::Cancelled`].
    pub(super) fn create(spec: HelperSpec<'a>, population: &'a Population<'a>) -> Result<Self, Error> {
        let name = names::populator(population.volume);
        let mount = Mount {
            source: population.volume.to_owned(),
            target: VOLUME_DIR.to_owned(),
            read_only: false,
            // Without `no_copy` the engine would copy files that the image has at this path into an empty volume.
            volume_options: Some(VolumeOptions { no_copy: true, labels: population.labels.clone() }),
        };
        let mut seen = None;
        while !spec.engine.cancel.is_cancelled() {
            match spec.create(&name, vec![mount.clone()]) {
                Ok(helper) => return Ok(Self { spec, population, helper }),
                Err(error) if error.is_conflict() => wait_for_other(spec, &name, &mut seen)?,
                Err(error) => return Err(error),
            }
        }
        Err(Error::Cancelled)
    }

    /// Returns whether the volume has the marker of its image.
    ///
    /// # Errors
    /// An engine error.
    pub(super) fn is_complete(&self) -> Result<bool, Error> {
        let engine = self.spec.engine;
        let marker =
            marker::send_get(engine.docker, &engine.cancel, self.helper.id(), VOLUME_DIR)?.finish()?;
        // Also tells a missing container from a missing marker.
        engine.docker.container_inspect(&engine.cancel, self.helper.id())?;
        Ok(marker.as_deref() == Some(self.population.image_id))
    }

    /// Unpacks the image into the volume and writes the marker. Files of an earlier, interrupted attempt are overwritten.
    ///
    /// # Errors
    /// An engine error.
    pub(super) fn populate(&self) -> Result<(), Error> {
        let engine = self.spec.engine;
        let source = self.spec.replace(&names::source(self.helper.name()))?;
        let mut export = engine.docker.container_export(&engine.cancel, source.id())?;
        engine.docker.archive_put(&engine.cancel, self.helper.id(), VOLUME_DIR, &mut export)?;
        self.mark()
    }

    /// Returns whether the volume has the marker that tasks look for. One that release 0.1 populated has only the other.
    ///
    /// # Errors
    /// An engine error.
    pub(super) fn is_marked_by_name(&self) -> Result<bool, Error> {
        let (engine, volume) = (self.spec.engine, self.population.volume);
        let stat = marker::send_stat(engine.docker, &engine.cancel, self.helper.id(), VOLUME_DIR, volume)?;
        Ok(stat.finish()?.is_some())
    }

    /// Marks the volume as complete.
    ///
    /// # Errors
    /// An engine error.
    pub(super) fn mark(&self) -> Result<(), Error> {
        let (engine, id) = (self.spec.engine, self.population.image_id);
        marker::write(engine.docker, &engine.cancel, self.helper.id(), VOLUME_DIR, id)
    }

    /// Returns the agent's script, or `None` if the volume has none.
    ///
    /// # Errors
    /// An engine error.
    pub(super) fn script(&self) -> Result<Option<Script>, Error> {
        let engine = self.spec.engine;
        let stat = |path: &str| {
            let path = path.replacen(AGENT_DIR, VOLUME_DIR, 1);
            engine.docker.archive_stat(&engine.cancel, self.helper.id(), &path)
        };
        let mut failure = None;
        for path in ENTRYPOINTS {
            match find_script(path, &stat) {
                Ok(Some((file, mode))) => {
                    let is_executable = mode & ALL_EXECUTE == ALL_EXECUTE && self.is_executable(&file)?;
                    return Ok(Some(Script { path, is_executable }));
                }
                Ok(None) => {}
                // The engine refuses a link that leads to itself.
                Err(error @ Error::Engine { .. }) if !error.is_not_found() => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// Whether the file at this path of a task's container begins as one that Linux executes.
    fn is_executable(&self, file: &str) -> Result<bool, Error> {
        let engine = self.spec.engine;
        let path = file.replacen(AGENT_DIR, VOLUME_DIR, 1);
        let Some(archive) =
            engine.docker.send_archive_get(&engine.cancel, self.helper.id(), &path)?.finish()?
        else {
            return Ok(false);
        };
        let mut beginning = Vec::new();
        let mut sink = |bytes: &[u8]| {
            beginning.extend(bytes.iter().take(MAGIC_BYTES));
            beginning.len() < MAGIC_BYTES
        };
        let file = first_file(archive.body, &mut sink).map_err(Error::from_read)?;
        Ok(file.is_some() && MAGIC.iter().any(|magic| beginning.starts_with(magic)))
    }
}

/// Returns the file in the volume to which `path` leads in a task's container, and its mode; `None` if there is none. Only there is
/// the volume mounted at [`AGENT_DIR`], and an absolute link of the image may lead to something else than in the image. `stat`
/// returns what is at a path in the volume.
fn find_script(
    path: &str,
    stat: &dyn Fn(&str) -> Result<Option<PathStat>, Error>,
) -> Result<Option<(String, u32)>, Error> {
    let mut path = path.to_owned();
    for _ in 0..=MAX_LINKS {
        let mut current = String::new();
        let mut names = path.split('/').skip(1);
        if names.next().map(|name| format!("/{name}")).as_deref() != Some(AGENT_DIR) {
            return Ok(None);
        }
        current.push_str(AGENT_DIR);
        let mut found = None;
        let mut link = None;
        for name in names.by_ref() {
            current.push('/');
            current.push_str(name);
            let Some(stat) = stat(&current)? else { return Ok(None) };
            if stat.is_link() {
                link = target(&current, &stat.link_target.replacen(VOLUME_DIR, AGENT_DIR, 1));
                found = None;
                break;
            }
            found = Some(stat);
        }
        if let Some(stat) = found {
            return Ok(stat.is_file().then_some((current, stat.mode)));
        }
        let Some(link) = link else { return Ok(None) };
        path = names.fold(link, |path, name| format!("{path}/{name}"));
    }
    Ok(None)
}

/// Sleeps for [`POPULATOR_PAUSE`] while another worker's container has this name. A leftover is removed instead: a container that
/// has existed for [`POPULATOR_TIMEOUT`], or one of this worker whose process is this one or has ended: two threads of one process
/// never populate the same volume. `seen` holds the container's id and when it was first seen.
fn wait_for_other(
    spec: HelperSpec<'_>,
    name: &str,
    seen: &mut Option<(String, Instant)>,
) -> Result<(), Error> {
    let engine = spec.engine;
    let other = match engine.docker.container_inspect(&engine.cancel, name) {
        Ok(other) => other,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    };
    let since = match seen {
        Some((id, since)) if *id == other.id => *since,
        _ => seen.insert((other.id.clone(), Instant::now())).1,
    };
    let own = labels::get(&other.labels, WORKER_LABEL) == Some(spec.worker_id)
        && engine.processes.owns(labels::get(&other.labels, PROCESS_LABEL));
    if own || since.elapsed() > POPULATOR_TIMEOUT {
        let container = ContainerRef { name: name.to_owned(), id: Some(other.id) };
        if engine.docker.container_remove(&engine.cancel, container.key())? {
            warn!("leftover helper removed {} {container}", engine.key);
        }
        return Ok(());
    }
    if engine.cancel.sleep(POPULATOR_PAUSE) { Ok(()) } else { Err(Error::Cancelled) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resolves a script in a volume with these paths, each a file or a link to the target as the engine gives it.
    fn resolve(path: &str, volume: &[(&str, &str)]) -> bool {
        let stat = |path: &str| {
            let folder = format!("{path}/");
            let of = |mode, link_target: &str| PathStat {
                size: 1,
                mode,
                mtime: String::new(),
                link_target: link_target.into(),
            };
            let found = volume.iter().find(|(name, _)| *name == path);
            Ok(match found {
                Some((_, "")) => Some(of(0o755, "")),
                Some((_, link)) => Some(of(1 << 27, link)),
                None if volume.iter().any(|(name, _)| name.starts_with(&folder)) => Some(of(1 << 31, "")),
                None => None,
            })
        };
        find_script(path, &stat).unwrap().is_some()
    }

    #[test]
    fn a_script_is_a_file_in_the_volume() {
        let [first, second] = ENTRYPOINTS;
        assert!(resolve(first, &[(first, "")]) && !resolve(second, &[(first, "")]));
        assert!(!resolve(first, &[("/agent/entrypoint.sh/x", "")]), "a folder");
    }

    #[test]
    fn links_are_followed_as_in_the_tasks_container() {
        let [first, second] = ENTRYPOINTS;
        // The image has `/entrypoint.sh -> /agent/entrypoint.sh`, which leads to itself in the task.
        let nested = [(first, "/agent/entrypoint.sh"), (second, "")];
        assert!(!resolve(first, &nested) && resolve(second, &nested));
        assert!(!resolve(first, &[(first, "/usr/local/bin/x")]), "a file of the image");
        let relative = format!("{VOLUME_DIR}/bin/run");
        assert!(resolve(first, &[(first, &relative), ("/agent/bin/run", "")]));
        assert!(resolve(first, &[(first, "bin/run"), ("/agent/bin/run", "")]));
        assert!(resolve(second, &[("/agent/agent", "/agent/opt"), ("/agent/opt/entrypoint.sh", "")]));
        assert!(!resolve(second, &[("/agent/agent", "/opt"), ("/agent/opt/entrypoint.sh", "")]));
        assert!(!resolve(first, &[(first, "../etc/passwd"), ("/agent/etc/passwd", "")]));
        assert!(!resolve(first, &[(first, "/agent/b"), ("/agent/b", first)]), "a loop");
    }
}
