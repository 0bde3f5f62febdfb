//! The file that marks a sidecar volume as complete. It is written last, and a volume without it is not used.

use std::io;

use crate::docker::{Docker, Error, PendingStat};
use crate::sys::cancel::CancelToken;

/// The file's name, at the root of the volume.
const NAME: &str = ".oz-sidecar-complete";

/// Whether the volume that `container` has mounted at `mount_path` is complete.
///
/// # Errors
/// An engine error.
pub(in crate::task) fn present(
    docker: &Docker,
    cancel: &CancelToken,
    container: &str,
    mount_path: &str,
) -> Result<bool, Error> {
    let stat = docker.archive_stat(cancel, container, &format!("{mount_path}/{NAME}"))?;
    Ok(stat.is_some_and(|stat| stat.is_file()))
}

/// Sends [`present`], but its answer for a missing container is that the file is missing, too.
///
/// # Errors
/// An engine error.
pub(in crate::task) fn send_stat(
    docker: &Docker,
    cancel: &CancelToken,
    container: &str,
    mount_path: &str,
) -> Result<PendingStat, Error> {
    docker.send_archive_stat(cancel, container, &format!("{mount_path}/{NAME}"))
}

/// Marks the volume as complete. The file holds the image's id.
///
/// # Errors
/// An engine error.
pub(super) fn write(
    docker: &Docker,
    cancel: &CancelToken,
    container: &str,
    mount_path: &str,
    image_id: &str,
) -> Result<(), Error> {
    let archive = archive(image_id).map_err(|source| Error::Upload { source })?;
    docker.archive_put(cancel, container, mount_path, &mut archive.as_slice())
}

fn archive(image_id: &str) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(image_id.len() as u64);
    header.set_mode(0o444);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, NAME, image_id.as_bytes())?;
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_marker_archive_has_one_file_with_the_image_id() {
        let bytes = archive("sha256:abc").unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some(NAME));
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!(text, "sha256:abc");
    }
}
