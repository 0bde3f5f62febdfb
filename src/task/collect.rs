//! What a task has said, read from its container after the exit.
//!
//! Owns the choice between the file that a task may write and its two streams. It must not know what is kept of it.

use std::io::{self, Read};

use log::warn;

use super::output::{Collected, Collector, Stream};
use crate::cancel::CancelToken;
use crate::docker::{Docker, Error, LogStream};
use crate::error_chain;
use crate::logging::value;

/// What a task writes when its output is not what it prints.
const OUTPUT_FILE: &str = "/workspace/.oz/agent_output.txt";

/// How much is read at once.
const READ: usize = 32 * 1024;

/// Reads the task's output: the file's text when there is any, else what it printed. What cannot be read is left out with a
/// warning, since the exit code matters more than the text.
pub(super) fn collect(
    docker: &Docker,
    cancel: &CancelToken,
    container: &str,
    task_id: &str,
    cap: usize,
) -> Collected {
    match from_file(docker, cancel, container, cap) {
        Ok(Some(collected)) => return collected,
        Ok(None) => {}
        Err(error) => {
            warn!("output file unreadable task={} error={}", value(task_id), value(&error_chain(&error)));
        }
    }
    let mut collector = Collector::new(cap);
    let read = docker.container_logs(cancel, container, &mut |stream, bytes| match stream {
        LogStream::Stdout => collector.push(Stream::Stdout, bytes),
        // The engine's own word that it cannot read its log stands where the text would be.
        LogStream::Stderr | LogStream::Engine => collector.push(Stream::Stderr, bytes),
    });
    if let Err(error) = read {
        warn!("output incomplete task={} error={}", value(task_id), value(&error_chain(&error)));
    }
    collector.finish()
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
pub(super) fn first_file(body: impl Read, cap: usize) -> io::Result<Option<Collected>> {
    let mut archive = tar::Archive::new(body);
    let Some(entry) = archive.entries()?.next() else { return Ok(None) };
    let mut entry = entry?;
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
