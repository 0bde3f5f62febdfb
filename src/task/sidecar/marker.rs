//! The files that mark a sidecar volume as complete. They are written last. One holds the image's id. The other has the image's
//! digest in its name, because an engine answers a look at a name in 1 ms, and reads a file in 50 to 100 ms. A volume without
//! them is not used, nor one with those of another image: an image that was made from such a volume contains the files of the other
//! image.

use std::io;

use super::versions::PREFIX;
use crate::docker::{Archive, Docker, Error, Pending, PendingStat};
use crate::sys::cancel::CancelToken;
use crate::task::output::file::first_file;
use crate::task::sidecar::short_digest;

/// The name of the file with the image's id, at the root of the volume. Volumes of release 0.1 have only this one.
const NAME: &str = ".oz-sidecar-complete";

/// The most bytes that are read of it. An id has 71.
const MAX_ID: usize = 256;

/// A request for the marker.
#[must_use = "the answer is not read"]
pub(in crate::task) struct PendingMarker(Pending<Option<Archive>>);

impl PendingMarker {
    /// Returns the id in the marker; `None` if the marker or the container is missing.
    ///
    /// # Errors
    /// An engine error.
    pub(in crate::task) fn finish(self) -> Result<Option<String>, Error> {
        let Some(archive) = self.0.finish()? else { return Ok(None) };
        let mut id = Vec::new();
        let mut sink = |text: &[u8]| {
            id.extend_from_slice(text);
            id.len() <= MAX_ID
        };
        let Some(file) = first_file(archive.body, &mut sink).map_err(Error::from_read)? else {
            return Ok(None);
        };
        file.read.map_err(Error::from_read)?;
        Ok(String::from_utf8(id).ok())
    }
}

/// Asks for the marker of the volume that `container` has mounted at `mount_path`.
///
/// # Errors
/// An engine error.
pub(in crate::task) fn send_get(
    docker: &Docker,
    cancel: &CancelToken,
    container: &str,
    mount_path: &str,
) -> Result<PendingMarker, Error> {
    docker.send_archive_get(cancel, container, &format!("{mount_path}/{NAME}")).map(PendingMarker)
}

/// Asks whether `volume`, which `container` has mounted at `mount_path`, is marked. The name of a volume of one task does not tell
/// its image, so any marker counts there.
///
/// # Errors
/// An engine error.
pub(in crate::task) fn send_stat(
    docker: &Docker,
    cancel: &CancelToken,
    container: &str,
    mount_path: &str,
    volume: &str,
) -> Result<PendingStat, Error> {
    let name = volume.strip_prefix(PREFIX).map_or_else(|| NAME.to_owned(), named);
    docker.send_archive_stat(cancel, container, &format!("{mount_path}/{name}"))
}

/// Returns the name of the marker of the image with this digest, shortened as in the volume's name.
fn named(digest: &str) -> String {
    format!("{NAME}-{digest}")
}

/// Marks the volume as complete for the image.
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
    let mut builder = tar::Builder::new(Vec::new());
    for name in [NAME.to_owned(), named(short_digest(image_id))] {
        let mut header = tar::Header::new_gnu();
        header.set_size(image_id.len() as u64);
        header.set_mode(0o444);
        builder.append_data(&mut header, name, image_id.as_bytes())?;
    }
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn both_markers_have_the_image_id_and_one_its_digest_in_the_name() {
        let bytes = archive("sha256:abc").unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            names.push(entry.path().unwrap().to_str().unwrap().to_owned());
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert_eq!(text, "sha256:abc");
        }
        assert_eq!(names, [".oz-sidecar-complete", ".oz-sidecar-complete-abc"]);
    }
}
