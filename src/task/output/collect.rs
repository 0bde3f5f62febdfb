//! Reads a task's output from its container after the exit: the output file if the task wrote one, else its two streams.

use std::cell::Cell;
use std::io::{self, Read};

use log::warn;

use super::{Collected, Collector, Stream};
use crate::docker::{Error, Log, LogStream};
use crate::logging::{error_chain, value};
use crate::sys::cancel::CancelToken;
use crate::task::engine::TaskEngine;
use crate::task::names::ContainerRef;

/// A task may write its output here instead of printing it.
const OUTPUT_FILE: &str = "/workspace/.oz/agent_output.txt";

/// The most bytes of the archive before the file's text. The tar reader holds extended headers in memory.
const MAX_HEADERS: u64 = 1024 * 1024;

/// Bytes that are read at once.
const READ: usize = 32 * 1024;

/// Reads the output, of which `cap` bytes are kept. Output that cannot be read is left out with a warning, because the exit
/// code must be reported in any case. `cancel` interrupts the reading.
pub(in crate::task) fn collect(
    engine: &TaskEngine<'_>,
    cancel: &CancelToken,
    container: &ContainerRef,
    cap: usize,
) -> Collected {
    let key = engine.key;
    let id = container.key();
    let mut sent = None;
    let file = engine.cleanup(|docker, _| {
        let file = docker.send_archive_get(cancel, id, OUTPUT_FILE)?;
        // Most tasks write no file: the engine prepares the log meanwhile.
        sent = docker.send_logs(cancel, id).ok();
        match file.finish()? {
            Some(body) => {
                sent = None;
                first_file(body, cap).map_err(Error::from_read)
            }
            None => Ok(None),
        }
    });
    match file {
        Ok(Some(collected)) => return collected,
        Ok(None) => {}
        Err(error) => {
            let error = error_chain(&error);
            warn!("output file unreadable {key} {container} error={}", value(&error));
        }
    }
    let mut collector = Collector::new(cap);
    let read = engine.cleanup(|docker, _| {
        // A repeated attempt reads everything again.
        collector = Collector::new(cap);
        let log = match sent.take() {
            Some(sent) => sent,
            None => docker.send_logs(cancel, id)?,
        };
        from_log(log.finish()?, cancel, &mut collector)
    });
    if let Err(error) = read {
        warn!("output incomplete {key} {container} error={}", value(&error_chain(&error)));
    }
    collector.finish()
}

fn from_log(log: Log, cancel: &CancelToken, collector: &mut Collector) -> Result<(), Error> {
    log.read(cancel, &mut |stream, bytes| match stream {
        LogStream::Stdout => collector.push(Stream::Stdout, bytes),
        // The engine's message that it cannot read the log takes the place of the missing text.
        LogStream::Stderr | LogStream::Engine => collector.push(Stream::Stderr, bytes),
    })
}

/// Returns the output in the archive's first entry; `None` if that is not a regular file or is empty.
///
/// # Errors
/// An error of `body`, or `InvalidData` if it is not an archive or its headers are too long.
pub(in crate::task) fn first_file(body: impl Read, cap: usize) -> io::Result<Option<Collected>> {
    let remaining = Cell::new(MAX_HEADERS);
    let mut archive = tar::Archive::new(Bounded { source: body, remaining: &remaining });
    let Some(entry) = archive.entries()?.next() else { return Ok(None) };
    let mut entry = entry?;
    remaining.set(u64::MAX);
    if !entry.header().entry_type().is_file() || entry.size() == 0 {
        return Ok(None);
    }
    let mut collector = Collector::new(cap);
    let mut buffer = vec![0; READ];
    loop {
        let count = entry.read(&mut buffer)?;
        if count == 0 {
            return Ok(Some(collector.finish()));
        }
        let Some(text) = buffer.get(..count) else {
            return Err(io::Error::other("a read returned more bytes than its buffer has"));
        };
        collector.push(Stream::Stdout, text);
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
        let collected =
            first_file(entry(tar::EntryType::GNULongName, 5000).chain(file()), 1024).unwrap().unwrap();
        assert!(collected.output.contains("bytes left out"));
        let endless = entry(tar::EntryType::GNULongName, 1 << 30).chain(file());
        assert_eq!(first_file(endless, 1024).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
