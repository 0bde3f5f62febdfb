//! Reads a task's output from its container after the exit: the output file if the task wrote one, else its two streams.

use std::time::{Duration, Instant};

use log::{info, warn};

use super::budget::{Budget, Limits};
use super::file::{FirstFile, FoundFile, MAX_LINKS, OUTPUT_FILE, first_file, target};
use super::{Collected, Collector, Stream};
use crate::docker::{Body, Docker, Error, Log, LogStream, PathStat, Pending};
use crate::logging::{error_chain, value};
use crate::protocol::searched_words;
use crate::sys::cancel::CancelToken;
use crate::task::engine::TaskEngine;
use crate::task::names::ContainerRef;

/// The fewest lines that are read from the end of a log.
const MIN_LINES: u64 = 16;

/// By how much that number is reduced if the lines are too long.
const FEWER: u64 = 8;

/// The most bytes that are read of the end of a log, besides four times the cap.
const END: u64 = 1024 * 1024;

/// What to read, and for how long.
pub(in crate::task) struct Reading<'a> {
    pub(in crate::task) engine: &'a TaskEngine<'a>,
    pub(in crate::task) container: &'a ContainerRef,
    /// Bytes of output that are kept.
    pub(in crate::task) cap: usize,
    pub(in crate::task) limits: Limits,
    /// Whether the task was ended, rather than ending by itself.
    pub(in crate::task) was_ended: bool,
    /// The output file before the start, which is not the task's. `None` if there was none or that is unknown.
    pub(in crate::task) before: Option<&'a FoundFile>,
    /// Ends the reading.
    pub(in crate::task) cancel: &'a CancelToken,
}

/// The text of an output file.
struct FileText {
    collector: Collector,
    size: u64,
    /// Whether all of it was searched.
    is_whole: bool,
}

/// The end of a log.
struct LogEnd {
    collector: Collector,
    /// How many lines were asked for.
    lines: u64,
    /// How many bytes were read.
    bytes: u64,
}

impl Reading<'_> {
    /// Reads the output. Output that cannot be read is left out with a warning, because the exit code must be reported in any case.
    pub(in crate::task) fn collect(&self) -> Collected {
        let mut budget = Budget::new(self.limits, self.was_ended, Instant::now());
        let mut sent = None;
        match self.read(&mut budget, |docker, budget| self.file(docker, budget, &mut sent)) {
            Ok(Some(FileText { collector, is_whole: true, .. })) => return collector.finish(),
            Ok(Some(FileText { collector, size, .. })) => {
                self.warn_cut(budget.searched(), Some(size));
                return collector.finish_cut(budget.searched(), Some(size));
            }
            Ok(None) => {}
            Err(error) => self.warn("output file unreadable", &error),
        }
        let mut collector = Collector::new(self.cap);
        let whole = self.read(&mut budget, |docker, budget| {
            // A repeated attempt reads everything again.
            collector = Collector::new(self.cap);
            self.log(docker, budget, sent.take(), &mut collector)
        });
        match whole {
            Ok(true) => collector.finish(),
            Ok(false) => self.cut_log(collector, budget.searched()),
            Err(error) => {
                let error = error_chain(&error);
                warn!("output incomplete {} {} error={}", self.engine.key, self.container, value(&error));
                match budget.searched() {
                    // Such as with a log driver that cannot be read.
                    0 => Collected::default(),
                    searched => collector.finish_cut(searched, None),
                }
            }
        }
    }

    /// Runs one step, and repeats it after an outage of the engine, which does not count as time.
    fn read<T>(
        &self,
        budget: &mut Budget,
        mut step: impl FnMut(&Docker, &mut Budget) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.engine.read(self.cancel, |docker| {
            budget.begin(Instant::now());
            let result = step(docker, budget);
            budget.pause(Instant::now());
            result
        })
    }

    /// Returns the text of the output file; `None` if the task wrote none. Also asks for the log, because most tasks write no
    /// file: the engine prepares it meanwhile.
    fn file(
        &self,
        docker: &Docker,
        budget: &mut Budget,
        sent: &mut Option<Pending<Log>>,
    ) -> Result<Option<FileText>, Error> {
        let mut path = OUTPUT_FILE.to_owned();
        for link in 0..=MAX_LINKS {
            let left = budget.time_left(Instant::now());
            let file = docker.send_archive_within(self.cancel, self.container.key(), &path, left)?;
            if link == 0 {
                *sent = docker.send_logs(self.cancel, self.container.key(), left).ok();
            }
            let Some(archive) = file.finish()? else { return Ok(None) };
            match archive.stat {
                Some(stat) if stat.is_link() => match target(&path, &stat.link_target) {
                    Some(target) => path = target,
                    None => break,
                },
                Some(stat) if self.was_there(&path, &stat) => return Ok(None),
                _ => {
                    *sent = None;
                    return self.text(archive.body, budget);
                }
            }
        }
        warn!("output file ignored {} {} reason=\"too many links\"", self.engine.key, self.container);
        Ok(None)
    }

    /// Whether the file was in the container before the start. The task did not write it then.
    fn was_there(&self, path: &str, stat: &PathStat) -> bool {
        let unchanged = self.before.is_some_and(|before| before.is_unchanged(path, stat));
        if unchanged {
            let reason = "unchanged since before the start";
            info!("output file ignored {} {} reason={}", self.engine.key, self.container, value(reason));
        }
        unchanged
    }

    fn text(&self, body: Body, budget: &mut Budget) -> Result<Option<FileText>, Error> {
        let mut collector = Collector::new(self.cap);
        let mut sink = |text: &[u8]| {
            collector.push(Stream::Stdout, text);
            budget.count(text.len());
            !budget.is_over(Instant::now())
        };
        let found = first_file(body, &mut sink).map_err(Error::from_read)?;
        let Some(FirstFile { size, read }) = found else { return Ok(None) };
        match read.map_err(Error::from_read) {
            Err(error) if !self.is_over(budget) => Err(error),
            _ => Ok(Some(FileText { collector, size, is_whole: budget.searched() >= size })),
        }
    }

    /// Reads the log. Returns `false` if it was not read to its end because the budget was over.
    fn log(
        &self,
        docker: &Docker,
        budget: &mut Budget,
        sent: Option<Pending<Log>>,
        collector: &mut Collector,
    ) -> Result<bool, Error> {
        let left = budget.time_left(Instant::now());
        let read = || {
            let sent = sent.map_or_else(|| docker.send_logs(self.cancel, self.container.key(), left), Ok)?;
            let mut log = sent.finish()?;
            while log.read_some(self.cancel, &mut |stream, bytes| {
                budget.count(bytes.len());
                collector.push(stream_of(stream), bytes);
            })? {
                if budget.is_over(Instant::now()) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        match read() {
            Err(_) if self.is_over(budget) => Ok(false),
            result => result,
        }
    }

    /// Whether the budget, rather than the engine, ended a read.
    fn is_over(&self, budget: &Budget) -> bool {
        self.cancel.is_cancelled() || budget.is_over(Instant::now())
    }

    /// Reads the end of a log of which `searched` bytes were read from the beginning, unless reading was ended.
    fn cut_log(&self, collector: Collector, searched: u64) -> Collected {
        let end = if self.cancel.is_cancelled() { None } else { self.end_of_log(&collector) };
        let Some(LogEnd { collector: end, lines, bytes }) = end else {
            self.warn_cut(searched, None);
            return collector.finish_cut(searched, None);
        };
        self.warn_cut(searched + bytes, None);
        collector.join(end, lines, searched + bytes)
    }

    /// Returns the end of the log. It has one line more than were kept of the beginning, or fewer if they are much longer or
    /// would take too long.
    fn end_of_log(&self, beginning: &Collector) -> Option<LogEnd> {
        let mut lines = beginning.lines().saturating_add(1).max(MIN_LINES);
        let ends_at = Instant::now() + self.limits.tail;
        loop {
            let left = ends_at.saturating_duration_since(Instant::now());
            // Leaves time for fewer lines: many short ones take the engine long.
            let limit = if lines == 1 { left } else { left / 2 };
            match self.last_lines(lines, limit, beginning.after_gap()) {
                Ok(Some(end)) => return Some(end),
                Ok(None) if lines == 1 => return None,
                Ok(None) => lines = (lines / FEWER).max(1),
                Err(Error::Timeout { .. }) if lines > 1 => lines = (lines / FEWER).max(1),
                Err(error) => {
                    self.warn("end of the output unreadable", &error);
                    return None;
                }
            }
        }
    }

    /// Reads the last lines of the log into `end`. Returns `None` if they are too long.
    fn last_lines(&self, lines: u64, limit: Duration, mut end: Collector) -> Result<Option<LogEnd>, Error> {
        let most = 4 * self.cap as u64 + END;
        let docker = self.engine.docker;
        let mut log = docker.send_last_logs(self.cancel, self.container.key(), lines, limit)?.finish()?;
        let mut bytes = 0;
        while log.read_some(self.cancel, &mut |stream, text| {
            bytes += text.len() as u64;
            end.push(stream_of(stream), text);
        })? {
            if bytes > most {
                return Ok(None);
            }
        }
        Ok(Some(LogEnd { collector: end, lines, bytes }))
    }

    fn warn_cut(&self, searched: u64, total: Option<u64>) {
        let reason = searched_words(searched, total);
        warn!("output cut {} {} reason={}", self.engine.key, self.container, value(&reason));
    }

    fn warn(&self, event: &str, error: &Error) {
        warn!("{event} {} {} error={}", self.engine.key, self.container, value(&error_chain(error)));
    }
}

/// Returns the file at [`OUTPUT_FILE`] in a container that was not started, after all links. `first` is the answer for that path.
/// A file that cannot be found out about is none: whatever is there after the exit then counts as the task's.
pub(in crate::task) fn find_before_start(
    engine: &TaskEngine<'_>,
    container: &str,
    first: Result<Option<PathStat>, Error>,
) -> Option<FoundFile> {
    let mut path = OUTPUT_FILE.to_owned();
    let mut stat = first.ok()??;
    for _ in 0..MAX_LINKS {
        if !stat.is_link() {
            return Some(FoundFile { path, stat });
        }
        path = target(&path, &stat.link_target)?;
        stat = engine.docker.archive_stat(&engine.cancel, container, &path).ok()??;
    }
    Some(FoundFile { path, stat }).filter(|found| !found.stat.is_link())
}

fn stream_of(stream: LogStream) -> Stream {
    match stream {
        LogStream::Stdout => Stream::Stdout,
        // The engine's message that it cannot read the log takes the place of the missing text.
        LogStream::Stderr | LogStream::Engine => Stream::Stderr,
    }
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
