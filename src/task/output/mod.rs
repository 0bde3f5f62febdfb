//! A task's output: the bytes of its streams to the text, artifacts and session link of a report.
//!
//! [`Collector`] is pure, and its memory does not grow with the output.

pub(in crate::task) mod budget;
pub(in crate::task) mod collect;
pub(in crate::task) mod file;
pub(in crate::task) mod scan;
pub(in crate::task) mod text;

use self::scan::{Found, Scanner};
use self::text::{Capped, Utf8Lossy};
use crate::protocol::searched_line;

/// The most bytes that are decoded at once, so that a large push is not copied as a whole.
const PIECE: usize = 16 * 1024;

/// The stream that bytes belong to. An output file is pushed as [`Stream::Stdout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a report says of a task's output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    /// Text without NUL characters. It has at most as many bytes as the cap, and up to two lines more: one says what was left out,
    /// one how much was searched.
    pub(crate) output: String,
    /// The URLs of the pull requests it mentions: distinct, in order of appearance, at most [`scan::MAX_ARTIFACTS`].
    pub(crate) artifacts: Vec<String>,
    /// The first URL on a line that mentions a session.
    pub(crate) session_link: Option<String>,
    /// Whether the engine's disk had no space when the output was read, so that the engine may have dropped a part of it.
    pub(crate) disk_was_full: bool,
}

/// Collects the output of both streams.
///
/// Each stream is decoded and scanned on its own, because a chunk of one can come in the middle of a character or a URL of the
/// other.
#[derive(Debug)]
pub(crate) struct Collector {
    stdout: Reader,
    stderr: Reader,
    cap: usize,
    capped: Capped,
    found: Found,
    /// The text of one piece; kept to allocate it once.
    text: String,
}

#[derive(Debug, Default)]
struct Reader {
    decoder: Utf8Lossy,
    scanner: Scanner,
}

impl Collector {
    /// Returns a collector that keeps `cap` bytes of text.
    pub(crate) fn new(cap: usize) -> Self {
        Self {
            stdout: Reader::default(),
            stderr: Reader::default(),
            cap,
            capped: Capped::new(cap),
            found: Found::default(),
            text: String::new(),
        }
    }

    /// Takes the next bytes of a stream, which may be cut anywhere.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let reader = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        for piece in bytes.chunks(PIECE) {
            self.text.clear();
            reader.decoder.push(piece, &mut self.text);
            reader.scanner.push(&self.text, &mut self.found);
            self.capped.push(&self.text);
        }
    }

    /// Ends both streams and returns what was collected.
    pub(crate) fn finish(mut self) -> Collected {
        self.end_streams();
        let Found { artifacts, session_link } = self.found;
        Collected { output: self.capped.finish(), artifacts, session_link, disk_was_full: false }
    }

    /// As [`Collector::finish`] for streams of which only `searched` bytes were read, of `total` if that is known. A line at the
    /// end says so. A URL at the end is left out, because it may be incomplete.
    pub(crate) fn finish_cut(self, searched: u64, total: Option<u64>) -> Collected {
        let Found { artifacts, session_link } = self.found;
        let mut output = self.capped.finish();
        let line = searched_line(searched, total);
        output.reserve_exact(line.len());
        output.push_str(&line);
        Collected { output, artifacts, session_link, disk_was_full: false }
    }

    /// Returns a collector for the end of the same streams, after a part that is not read. It keeps three quarters of the cap.
    pub(crate) fn after_gap(&self) -> Self {
        let capped = Capped::after_gap(self.cap - self.cap / 4);
        Self { capped, found: self.found.clone(), ..Self::new(self.cap) }
    }

    /// Returns how many lines of text are kept.
    pub(crate) fn lines(&self) -> u64 {
        self.capped.lines()
    }

    /// Joins the beginning of the streams with their end from [`Collector::after_gap`], which is the last `lines` lines;
    /// `searched` bytes were read of both. If there are fewer lines, the end has all of it, and there is no gap.
    pub(crate) fn join(self, mut end: Self, lines: u64, searched: u64) -> Collected {
        end.end_streams();
        let is_whole = end.capped.is_whole() && end.lines() < lines;
        let (mut output, text) = (self.capped.into_beginning(), end.capped.into_end());
        if is_whole && !output.is_empty() && text.starts_with(&output) {
            output = text;
        } else {
            output.push_str(&searched_line(searched, None));
            output.push_str(&text);
        }
        let Found { artifacts, session_link } = end.found;
        Collected { output, artifacts, session_link, disk_was_full: false }
    }

    fn end_streams(&mut self) {
        for reader in [&mut self.stdout, &mut self.stderr] {
            let mut text = String::new();
            reader.decoder.finish(&mut text);
            self.capped.push(&text);
            reader.scanner.finish(&mut self.found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_of_one_stream_does_not_cut_a_url_of_the_other() {
        let mut collector = Collector::new(1000);
        collector.push(Stream::Stdout, b"session https://x.example/\xc3");
        collector.push(Stream::Stderr, b"https://github.com/o/r/pull/\xff");
        collector.push(Stream::Stderr, b" https://github.com/o/r/pu");
        collector.push(Stream::Stdout, b"\xbc\n\0");
        collector.push(Stream::Stderr, b"ll/7\xe2\x82");
        let collected = collector.finish();
        let expected = "session https://x.example/https://github.com/o/r/pull/\u{fffd} \
                        https://github.com/o/r/puü\n\u{fffd}ll/7\u{fffd}";
        assert_eq!(collected.output, expected);
        assert_eq!(collected.artifacts, ["https://github.com/o/r/pull/7"]);
        assert_eq!(collected.session_link.as_deref(), Some("https://x.example/"));
    }

    #[test]
    fn text_beyond_the_cap_is_scanned() {
        let mut collector = Collector::new(40);
        let padding = vec![b'.'; 5 * PIECE];
        collector.push(Stream::Stdout, &padding);
        collector.push(Stream::Stdout, b"\nSession: https://s.example/1, https://github.com/o/r/pull/1\n");
        collector.push(Stream::Stdout, &padding);
        let collected = collector.finish();
        assert!(collected.output.len() < 100 && !collected.output.contains("pull"), "{}", collected.output);
        assert_eq!(collected.artifacts.len(), 1);
        assert_eq!(collected.session_link.as_deref(), Some("https://s.example/1"));
    }

    #[test]
    fn a_cut_output_says_how_much_was_searched_and_has_no_cut_url() {
        let mut collector = Collector::new(1000);
        collector.push(Stream::Stdout, b"https://github.com/o/r/pull/1 https://github.com/o/r/pull/2");
        let collected = collector.finish_cut(59, Some(100));
        assert_eq!(collected.artifacts, ["https://github.com/o/r/pull/1"]);
        assert!(collected.output.ends_with("/pull/2\n[... 59 of 100 bytes searched ...]\n"), "{collected:?}");
    }

    #[test]
    fn the_end_of_a_log_follows_its_beginning() {
        let mut collector = Collector::new(16);
        collector
            .push(Stream::Stdout, b"abcdefgh https://github.com/o/r/pull/1 https://github.com/o/r/pull/2");
        let mut end = collector.after_gap();
        end.push(Stream::Stderr, b"see https://github.com/o/r/pull/3");
        let collected = collector.join(end, 1, 99);
        assert_eq!(collected.output, "abcd\n[... 99 of more than 99 bytes searched ...]\nm/o/r/pull/3");
        assert_eq!(collected.artifacts, ["https://github.com/o/r/pull/1", "https://github.com/o/r/pull/3"]);
    }

    #[test]
    fn an_end_with_the_whole_log_is_not_joined() {
        let mut collector = Collector::new(100);
        collector.push(Stream::Stdout, b"one\ntw");
        let mut end = collector.after_gap();
        end.push(Stream::Stdout, b"one\ntwo\n");
        assert_eq!(collector.lines(), 1);
        assert_eq!(collector.join(end, 16, 14).output, "one\ntwo\n");
    }

    /// Such as the output of `yes`.
    #[test]
    fn a_log_of_equal_lines_is_joined() {
        let mut collector = Collector::new(1000);
        collector.push(Stream::Stdout, b"y\ny\n");
        let mut end = collector.after_gap();
        end.push(Stream::Stdout, b"y\ny\ny\n");
        assert_eq!(
            collector.join(end, 3, 10).output,
            "y\ny\n\n[... 10 of more than 10 bytes searched ...]\ny\ny\ny\n"
        );
    }

    #[test]
    fn the_result_does_not_depend_on_the_split() {
        let text =
            "ä\0 session=<https://s.example/é> \x1b[1mhttps://github.com/a/b/pull/12\x1b[0m€\n".as_bytes();
        let collect = |chunks: &mut dyn Iterator<Item = &[u8]>| {
            let mut collector = Collector::new(60);
            chunks.for_each(|chunk| collector.push(Stream::Stderr, chunk));
            collector.finish()
        };
        let whole = collect(&mut std::iter::once(text));
        assert_eq!(whole.artifacts, ["https://github.com/a/b/pull/12"]);
        assert_eq!(whole.session_link.as_deref(), Some("https://s.example/"));
        for size in 1..text.len() {
            assert_eq!(collect(&mut text.chunks(size)), whole, "{size}");
        }
        for at in 0..=text.len() {
            let (left, right) = text.split_at(at);
            assert_eq!(collect(&mut [left, right].into_iter()), whole, "{at}");
        }
    }

    #[test]
    fn no_output_gives_an_empty_result() {
        assert_eq!(Collector::new(1024).finish(), Collected::default());
    }
}
