//! The output file: where it is, whether the task wrote it, and its text in the engine's archive.

use std::cell::Cell;
use std::io::{self, Read};

use crate::docker::PathStat;

/// A task may write its output here instead of printing it.
pub(in crate::task) const OUTPUT_FILE: &str = "/workspace/.oz/agent_output.txt";

/// The most symbolic links that are followed.
pub(in crate::task) const MAX_LINKS: usize = 8;

/// The most bytes of the archive before the file's text. The tar reader holds extended headers in memory.
const MAX_HEADERS: u64 = 1024 * 1024;

/// Bytes that are read at once.
const READ: usize = 32 * 1024;

/// A file in a container: its path after all links, and what the engine tells about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::task) struct FoundFile {
    pub(in crate::task) path: String,
    pub(in crate::task) stat: PathStat,
}

impl FoundFile {
    /// Whether the file is now the same as when it was found: path, type, size and time of the last change. Times are compared
    /// as text and only with each other, so that no clock matters.
    pub(in crate::task) fn is_unchanged(&self, path: &str, stat: &PathStat) -> bool {
        let knows_time = !stat.mtime.is_empty();
        let same =
            self.stat.is_same_type(stat) && self.stat.size == stat.size && self.stat.mtime == stat.mtime;
        knows_time && self.path == path && same
    }
}

/// Returns the path that a link at `path` leads to, in the container; `None` if the engine does not tell.
pub(in crate::task) fn target(path: &str, link: &str) -> Option<String> {
    if link.is_empty() {
        return None;
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let joined = if link.starts_with('/') { link.to_owned() } else { format!("{folder}/{link}") };
    let mut parts = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            // As in the container itself, the parent of the root is the root.
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

/// The archive's first entry: a regular file with text.
#[derive(Debug)]
pub(in crate::task) struct FirstFile {
    /// Bytes.
    pub(in crate::task) size: u64,
    /// Whether the text was read, to its end or until `sink` returned false.
    pub(in crate::task) read: io::Result<()>,
}

/// Passes the text of the archive's first entry to `sink` in pieces, until that returns false. Returns `None` if the entry is not a
/// regular file or is empty.
///
/// # Errors
/// An error of `body`, or `InvalidData` if it is not an archive or its headers are too long.
pub(in crate::task) fn first_file(
    body: impl Read,
    sink: &mut dyn FnMut(&[u8]) -> bool,
) -> io::Result<Option<FirstFile>> {
    let remaining = Cell::new(MAX_HEADERS);
    let mut archive = tar::Archive::new(Bounded { source: body, remaining: &remaining });
    let Some(entry) = archive.entries()?.next() else { return Ok(None) };
    let mut entry = entry?;
    remaining.set(u64::MAX);
    let size = entry.size();
    if !entry.header().entry_type().is_file() || size == 0 {
        return Ok(None);
    }
    Ok(Some(FirstFile { size, read: pass_on(&mut entry, sink) }))
}

fn pass_on(source: &mut dyn Read, sink: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; READ];
    loop {
        let count = source.read(&mut buffer)?;
        let Some(text) = buffer.get(..count) else {
            return Err(io::Error::other("a read returned more bytes than its buffer has"));
        };
        if text.is_empty() || !sink(text) {
            return Ok(());
        }
    }
}

/// Fails once more than `remaining` bytes have been read.
struct Bounded<'a, R> {
    source: R,
    remaining: &'a Cell<u64>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        let Some(remaining) = self.remaining.get().checked_sub(count as u64) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the archive's headers are too long"));
        };
        self.remaining.set(remaining);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tar entry of this kind with `size` bytes of content.
    fn entry(kind: tar::EntryType, size: u64) -> impl Read {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        let padding = size.next_multiple_of(512) - size;
        io::Cursor::new(header.as_bytes().to_vec())
            .chain(io::repeat(b'x').take(size))
            .chain(io::repeat(0).take(padding))
    }

    #[test]
    fn extended_headers_are_bounded_and_the_file_is_not() {
        let file = || entry(tar::EntryType::Regular, 3 * MAX_HEADERS);
        let mut count = 0;
        let mut sink = |text: &[u8]| {
            count += text.len() as u64;
            true
        };
        let found = first_file(entry(tar::EntryType::GNULongName, 5000).chain(file()), &mut sink);
        let found = found.unwrap().unwrap();
        assert!(found.read.is_ok() && found.size == 3 * MAX_HEADERS);
        assert_eq!(count, found.size);
        let endless = entry(tar::EntryType::GNULongName, 1 << 30).chain(file());
        assert_eq!(first_file(endless, &mut |_| true).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn only_a_regular_file_with_text_counts() {
        for (kind, size) in
            [(tar::EntryType::Regular, 0), (tar::EntryType::Symlink, 0), (tar::EntryType::Directory, 0)]
        {
            assert!(first_file(entry(kind, size), &mut |_| unreachable!()).unwrap().is_none(), "{kind:?}");
        }
    }

    #[test]
    fn the_reader_stops_when_the_sink_does() {
        let mut pieces = 0;
        let mut sink = |_: &[u8]| {
            pieces += 1;
            pieces < 2
        };
        let found = first_file(entry(tar::EntryType::Regular, 1 << 40), &mut sink).unwrap().unwrap();
        assert!(found.size == 1 << 40 && found.read.is_ok() && pieces == 2);
    }

    #[test]
    fn a_link_leads_to_a_path_in_the_container() {
        for (path, link, expected) in [
            ("/workspace/.oz/o", "/data/real", "/data/real"),
            ("/workspace/.oz/o", "real", "/workspace/.oz/real"),
            ("/workspace/.oz/o", "../../../../etc/x", "/etc/x"),
            ("/o", "./a/./b", "/a/b"),
        ] {
            assert_eq!(target(path, link).as_deref(), Some(expected));
        }
        assert_eq!(target("/o", ""), None);
    }

    #[test]
    fn a_file_is_unchanged_if_path_time_size_and_type_are() {
        let found = |path: &str, size, mode, mtime: &str| FoundFile {
            path: path.into(),
            stat: PathStat { size, mode, mtime: mtime.into(), link_target: String::new() },
        };
        let before = found("/o", 5, 0o644, "2026-01-02T03:04:05.000000006Z");
        assert!(before.is_unchanged(&before.path, &before.stat));
        assert!(before.is_unchanged("/o", &PathStat { mode: 0o600, ..before.stat.clone() }), "chmod");
        for after in [
            found("/p", 5, 0o644, "2026-01-02T03:04:05.000000006Z"),
            found("/o", 6, 0o644, "2026-01-02T03:04:05.000000006Z"),
            found("/o", 5, 1 << 31, "2026-01-02T03:04:05.000000006Z"),
            found("/o", 5, 0o644, "2026-01-02T03:04:05.000000007Z"),
        ] {
            assert!(!before.is_unchanged(&after.path, &after.stat), "{after:?}");
        }
        let unknown = found("/o", 5, 0o644, "");
        assert!(!unknown.is_unchanged("/o", &unknown.stat), "an engine that tells no time");
    }
}
