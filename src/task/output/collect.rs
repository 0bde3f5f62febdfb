//! What a task has said, read from its container after the exit.
//!
//! Owns the choice between the file that a task may write and its two streams. It must not know what is kept of it.

use std::cell::Cell;
use std::io::{self, Read};

use log::warn;

use super::{Collected, Collector, Stream};
use crate::docker::{Docker, Error, LogStream};
use crate::logging::error_chain;
use crate::logging::value;
use crate::sys::cancel::CancelToken;
use crate::task::retry::{Retry, never};

/// What a task writes when its output is not what it prints.
const OUTPUT_FILE: &str = "/workspace/.oz/agent_output.txt";

/// The most bytes of the archive before the file's text: what extends its header is held whole.
const MAX_HEADERS: u64 = 1024 * 1024;

/// How much is read at once.
const READ: usize = 32 * 1024;

/// Reads the task's output: the file's text when there is any, else what it printed. What cannot be read is left out with a
/// warning, since the exit code matters more than the text.
pub(in crate::task) fn collect(
    docker: &Docker,
    cancel: &CancelToken,
    container: &str,
    retry: &Retry<'_>,
    cap: usize,
) -> Collected {
    let task_id = retry.task_id;
    match retry.cleanup(never, || from_file(docker, cancel, container, cap)) {
        Ok(Some(collected)) => return collected,
        Ok(None) => {}
        Err(error) => {
            warn!("output file unreadable task={} error={}", value(task_id), value(&error_chain(&error)));
        }
    }
    let mut collector = Collector::new(cap);
    let read = retry.cleanup(never, || {
        // What was read before a cut comes again.
        collector = Collector::new(cap);
        from_logs(docker, cancel, container, &mut collector)
    });
    if let Err(error) = read {
        warn!("output incomplete task={} error={}", value(task_id), value(&error_chain(&error)));
    }
    collector.finish()
}

fn from_logs(
    docker: &Docker,
    cancel: &CancelToken,
    container: &str,
    collector: &mut Collector,
) -> Result<(), Error> {
    docker.container_logs(cancel, container, &mut |stream, bytes| match stream {
        LogStream::Stdout => collector.push(Stream::Stdout, bytes),
        // The engine's own word that it cannot read its log stands where the text would be.
        LogStream::Stderr | LogStream::Engine => collector.push(Stream::Stderr, bytes),
    })
}

fn from_file(
    docker: &Docker,
    cancel: &CancelToken,
    container: &str,
    cap: usize,
) -> Result<Option<Collected>, Error> {
    let Some(body) = docker.archive_get(cancel, container, OUTPUT_FILE)? else { return Ok(None) };
    first_file(body, cap).map_err(Error::from_read)
}

/// The text of the archive's only entry, when that is a file with something in it.
pub(in crate::task) fn first_file(body: impl Read, cap: usize) -> io::Result<Option<Collected>> {
    let left = Cell::new(MAX_HEADERS);
    let mut archive = tar::Archive::new(Bounded { source: body, left: &left });
    let Some(entry) = archive.entries()?.next() else { return Ok(None) };
    let mut entry = entry?;
    left.set(u64::MAX);
    if !entry.header().entry_type().is_file() || entry.size() == 0 {
        return Ok(None);
    }
    let mut collector = Collector::new(cap);
    let mut buffer = vec![0; READ];
    loop {
        match entry.read(&mut buffer)? {
            0 => return Ok(Some(collector.finish())),
            count => collector.push(Stream::Stdout, buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// Reads no more than what is left.
struct Bounded<'a, R> {
    source: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        match self.left.get().checked_sub(count as u64) {
            Some(left) => self.left.set(left),
            None => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the archive's headers are too long"));
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tar entry of that many bytes, whose header says what it is.
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
    fn what_extends_a_header_is_bounded_and_the_file_is_not() {
        let file = || entry(tar::EntryType::Regular, 3 * MAX_HEADERS);
        let collected =
            first_file(entry(tar::EntryType::GNULongName, 5000).chain(file()), 1024).unwrap().unwrap();
        assert!(collected.output.contains("bytes left out"));
        let endless = entry(tar::EntryType::GNULongName, 1 << 30).chain(file());
        assert_eq!(first_file(endless, 1024).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
