//! Reads what operators configure other programs with: whole, bounded, and regular files only.
//!
//! Owns the bound and the refusal of what is not a file, since a pipe could keep a thread waiting for ever. It must not
//! know what is in a file.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// The bytes of a file of at most `limit` bytes.
///
/// # Errors
/// `NotFound` and the like from the system; `Other` for what is not a regular file; `FileTooLarge` beyond the limit.
pub fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// The names of all that is in a folder.
///
/// # Errors
/// Those of the system.
pub fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// Whether there is a file that may be run.
pub fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(folder.path(), 5).unwrap_err().to_string(), "it is not a regular file");
        assert_eq!(read(&folder.path().join("g"), 5).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(names(folder.path()).unwrap(), ["f"]);
        assert_eq!(names(&path).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert!(!is_program(&path) && !is_program(folder.path()));
    }
}
