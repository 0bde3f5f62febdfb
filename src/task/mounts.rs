//! The host's paths that tasks mount, if the operator restricts them.

use std::io;
use std::path::{Path, PathBuf};

use crate::logging::SettingNames;
use crate::policy::VolumeBind;

const VOLUMES: &str = "--volumes";
const ALLOW_MOUNT_PATH: &str = "--allow-mount-path";

/// Why a path of the host is not mounted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MountError {
    /// It is not where the operator wants it.
    #[error("{setting} {path:?} leads to {target:?}, which is not below any {allowed}")]
    Outside {
        /// The name of `--volumes` as it was set.
        setting: String,
        /// That of `--allow-mount-path`.
        allowed: String,
        /// As the operator wrote it.
        path: String,
        /// Without symbolic links.
        target: PathBuf,
    },
    /// Where it leads is not known.
    #[error(
        "cannot resolve {setting} {path:?}: {error}; with {allowed} it must exist and the worker must see it"
    )]
    Unresolved {
        /// The setting, as it was set.
        setting: String,
        /// `--allow-mount-path`, as it was set.
        allowed: String,
        /// As the operator wrote it.
        path: String,
        /// The cause.
        error: String,
    },
    /// The engine would read it as another mount.
    #[error("{setting} {path:?} leads to {target:?}, which has a colon or is not UTF-8")]
    Unclear {
        /// The setting, as it was set.
        setting: String,
        /// As the operator wrote it.
        path: String,
        /// Without symbolic links.
        target: PathBuf,
    },
    /// It leads elsewhere than when the task was prepared.
    #[error("{setting} {path:?} has changed while the task was prepared")]
    Changed {
        /// The setting, as it was set.
        setting: String,
        /// As the operator wrote it.
        path: String,
    },
}

/// Returns the mounts with the paths of the host without symbolic links, so that the engine follows none. Each is one of `allowed` or
/// below it; named volumes are not changed. Without any `allowed`, returns the mounts as they are and reads nothing.
///
/// # Errors
/// A path is elsewhere, or cannot be resolved.
pub(crate) fn resolve(
    volumes: &[VolumeBind],
    allowed: &[PathBuf],
    names: &SettingNames,
) -> Result<Vec<VolumeBind>, MountError> {
    resolve_with(volumes, allowed, names, &|path| path.canonicalize())
}

/// Checks that the mounts lead where they did when [`resolve`] returned `resolved`.
///
/// # Errors
/// As [`resolve`]; or a path leads elsewhere.
pub(super) fn check_again(
    volumes: &[VolumeBind],
    allowed: &[PathBuf],
    names: &SettingNames,
    resolved: &[String],
) -> Result<(), MountError> {
    let now = resolve(volumes, allowed, names)?;
    let mut changed = volumes.iter().zip(now).zip(resolved);
    match changed.find(|((_, now), before)| now.to_string() != **before) {
        Some(((volume, _), _)) => {
            Err(MountError::Changed { setting: names.of(VOLUMES), path: volume.host.clone() })
        }
        None => Ok(()),
    }
}

fn resolve_with(
    volumes: &[VolumeBind],
    allowed: &[PathBuf],
    names: &SettingNames,
    target_of: &dyn Fn(&Path) -> io::Result<PathBuf>,
) -> Result<Vec<VolumeBind>, MountError> {
    let is_path = |volume: &VolumeBind| volume.host.starts_with('/');
    if allowed.is_empty() || !volumes.iter().any(is_path) {
        return Ok(volumes.to_vec());
    }
    let allowed_by = || names.of(ALLOW_MOUNT_PATH);
    let target = |flag, path: &Path| {
        let unresolved = |error: io::Error| {
            let path = path.display().to_string();
            MountError::Unresolved {
                setting: names.of(flag),
                allowed: allowed_by(),
                path,
                error: error.to_string(),
            }
        };
        target_of(path).map_err(unresolved)
    };
    let allowed: Vec<PathBuf> =
        allowed.iter().map(|path| target(ALLOW_MOUNT_PATH, path)).collect::<Result<_, _>>()?;
    let resolved = |volume: &VolumeBind| {
        if !is_path(volume) {
            return Ok(volume.clone());
        }
        let (path, target) = (volume.host.clone(), target(VOLUMES, Path::new(&volume.host))?);
        let setting = names.of(VOLUMES);
        if !allowed.iter().any(|prefix| target.starts_with(prefix)) {
            return Err(MountError::Outside { setting, allowed: allowed_by(), path, target });
        }
        match target.to_str().filter(|text| !text.contains(':')) {
            Some(host) => Ok(VolumeBind { host: host.to_owned(), ..volume.clone() }),
            None => Err(MountError::Unclear { setting, path, target }),
        }
    };
    volumes.iter().map(resolved).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, create_dir_all, remove_file, write};
    use std::os::unix::fs::symlink;

    use super::*;

    fn resolve(volumes: &[VolumeBind], allowed: &[PathBuf]) -> Result<Vec<VolumeBind>, MountError> {
        super::resolve(volumes, allowed, &SettingNames::default())
    }

    fn check_again(
        volumes: &[VolumeBind],
        allowed: &[PathBuf],
        resolved: &[String],
    ) -> Result<(), MountError> {
        super::check_again(volumes, allowed, &SettingNames::default(), resolved)
    }

    fn bind(host: &str) -> VolumeBind {
        VolumeBind { host: host.into(), container: "/c".into(), mode: "ro".into() }
    }

    /// A folder with `allowed/data`, and `outside`.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        create_dir_all(root.join("allowed/data")).unwrap();
        create_dir_all(root.join("outside")).unwrap();
        (temporary, root)
    }

    fn text(path: &Path) -> String {
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_path_counts_after_its_symbolic_links() {
        let (_folder, root) = folder();
        let allowed = root.join("allowed");
        symlink(root.join("outside"), allowed.join("out")).unwrap();
        symlink("../outside", allowed.join("relative")).unwrap();
        symlink("data", allowed.join("in")).unwrap();
        symlink(&allowed, root.join("link")).unwrap();
        create_dir(root.join("allowed-not")).unwrap();
        write(allowed.join("file"), "").unwrap();
        let resolve_in = |allowed: &Path, path: &Path| resolve(&[bind(&text(path))], &[allowed.to_owned()]);
        for (path, target) in [
            ("allowed", "allowed"),
            ("allowed/data", "allowed/data"),
            ("allowed/in", "allowed/data"),
            ("link/data", "allowed/data"),
            ("allowed/file", "allowed/file"),
            ("outside/../allowed/data/", "allowed/data"),
        ] {
            for prefix in [&allowed, &root.join("link")] {
                let found = resolve_in(prefix, &root.join(path)).unwrap();
                assert_eq!(found, [bind(&text(&root.join(target)))], "{path}");
            }
        }
        for path in [
            "outside",
            "allowed-not",
            "allowed/out",
            "allowed/relative",
            "allowed/out/..",
            "allowed/../outside",
        ] {
            let path = root.join(path);
            let error = resolve_in(&allowed, &path).unwrap_err();
            assert!(matches!(error, MountError::Outside { .. }), "{error}");
            assert!(error.to_string().starts_with(&format!("--volumes {path:?} leads to ")), "{error}");
        }
        assert_eq!(
            resolve_in(Path::new("/"), &allowed.join("out")).unwrap()[0].host,
            text(&root.join("outside"))
        );
    }

    #[test]
    fn what_cannot_be_resolved_is_refused() {
        let (_folder, root) = folder();
        let allowed = root.join("allowed");
        symlink(allowed.join("loop"), allowed.join("loop")).unwrap();
        symlink(root.join("gone"), allowed.join("dangling")).unwrap();
        create_dir(allowed.join("a:b")).unwrap();
        symlink("a:b", allowed.join("colon")).unwrap();
        for name in ["missing", "loop", "dangling"] {
            let error =
                resolve(&[bind(&text(&allowed.join(name)))], std::slice::from_ref(&allowed)).unwrap_err();
            assert!(error.to_string().starts_with("cannot resolve --volumes \""), "{error}");
        }
        let error =
            resolve(&[bind(&text(&allowed.join("colon")))], std::slice::from_ref(&allowed)).unwrap_err();
        assert!(matches!(error, MountError::Unclear { .. }), "{error}");
        let error = resolve(&[bind(&text(&allowed))], &[root.join("gone")]).unwrap_err();
        assert!(error.to_string().starts_with("cannot resolve --allow-mount-path \""), "{error}");
        assert!(error.to_string().contains("gone\": No such file"), "{error}");
    }

    #[test]
    fn named_volumes_are_not_paths_and_without_a_restriction_nothing_is_read() {
        let unread = |_: &Path| -> io::Result<PathBuf> { unreachable!("nothing is resolved") };
        let (named, names) = ([bind("cache")], SettingNames::default());
        assert_eq!(resolve_with(&named, &["/gone".into()], &names, &unread).unwrap(), named);
        let both = [bind("cache"), bind("/gone")];
        assert_eq!(resolve_with(&both, &[], &names, &unread).unwrap(), both);
    }

    #[test]
    fn a_path_that_leads_elsewhere_at_the_start_is_noticed() {
        let (_folder, root) = folder();
        let allowed = [root.join("allowed")];
        let (link, data) = (root.join("allowed/link"), root.join("allowed/data"));
        symlink(&data, &link).unwrap();
        let volumes = [bind("cache"), bind(&text(&link))];
        let resolved: Vec<_> = resolve(&volumes, &allowed).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(check_again(&volumes, &allowed, &resolved), Ok(()));
        // The directory that the link led to is now a link.
        std::fs::rename(&data, root.join("allowed/moved")).unwrap();
        symlink(root.join("outside"), &data).unwrap();
        let error = check_again(&volumes, &allowed, &resolved).unwrap_err();
        assert!(matches!(error, MountError::Outside { .. }), "{error}");
        remove_file(&data).unwrap();
        symlink("moved", &data).unwrap();
        let error = check_again(&volumes, &allowed, &resolved).unwrap_err();
        assert_eq!(error, MountError::Changed { setting: VOLUMES.into(), path: text(&link) });
    }
}
