//! Reads whole files up to a limit. Only regular files are read, because a pipe could block for ever.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Returns the content of a file of at most `limit` bytes.
///
/// # Errors
/// `FileTooLarge` beyond the limit, `Other` if it is not a regular file, or an error of the system, such as `NotFound`.
pub(crate) fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    // One byte more than the limit tells a file that is too long.
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// Returns the names of all entries of a folder.
///
/// # Errors
/// An error of the system.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// Whether `path` is an executable file.
pub(crate) fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
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
