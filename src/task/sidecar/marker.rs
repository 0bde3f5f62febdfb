//! The file that marks a sidecar volume as complete. It is written last and holds the image's id. A volume without it is not used,
//! nor one with another id: an image that was made from such a volume contains the file of the other image.

use std::io;

use crate::docker::{Archive, Docker, Error, Pending};
use crate::sys::cancel::CancelToken;
use crate::task::output::file::first_file;

/// The file's name, at the root of the volume.
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
