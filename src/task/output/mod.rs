//! What a task has said: bytes of its streams to a report's text, artifacts and session link.
//!
//! Owns decoding, the cap and the scan. It is pure, and its memory does not grow with what is pushed. It must not know
//! where the bytes come from or how the report is sent.

pub(in crate::task) mod collect;
mod scan;
mod text;

pub use scan::{Found, MAX_ARTIFACTS, Scanner};
pub use text::{Capped, Utf8Lossy};

/// The most bytes that are decoded at once, so that one large push needs no second copy of itself.
const PIECE: usize = 16 * 1024;

/// Which stream bytes belong to. The text of a file is pushed as if it were [`Stream::Stdout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What is reported of a task's output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Valid UTF-8 without NUL, at most the cap and one line.
    pub output: String,
    /// The pull requests it mentions: distinct URLs in order of appearance, at most [`MAX_ARTIFACTS`].
    pub artifacts: Vec<String>,
    /// The first URL on a line that mentions a session.
    pub session_link: Option<String>,
}

/// Takes both streams in the order in which they came.
///
/// The streams are decoded and scanned each for itself, since a chunk of one may come in the middle of a character or a
/// URL of the other.
#[derive(Debug)]
pub struct Collector {
    stdout: Reader,
    stderr: Reader,
    capped: Capped,
    found: Found,
}

#[derive(Debug, Default)]
struct Reader {
    decoder: Utf8Lossy,
    scanner: Scanner,
}

impl Collector {
    /// Keeps `cap` bytes of text.
    pub fn new(cap: usize) -> Self {
        Self {
            stdout: Reader::default(),
            stderr: Reader::default(),
            capped: Capped::new(cap),
            found: Found::default(),
        }
    }

    /// Takes the next bytes of a stream, cut anywhere.
    pub fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let reader = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let mut text = String::new();
        for piece in bytes.chunks(PIECE) {
            text.clear();
            reader.decoder.push(piece, &mut text);
            reader.scanner.push(&text, &mut self.found);
            self.capped.push(&text);
        }
    }

    /// Ends both streams.
    pub fn finish(mut self) -> Collected {
        for mut reader in [self.stdout, self.stderr] {
            let mut text = String::new();
            reader.decoder.finish(&mut text);
            self.capped.push(&text);
            reader.scanner.finish(&mut self.found);
        }
        let Found { artifacts, session_link } = self.found;
        Collected { output: self.capped.finish(), artifacts, session_link }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small deterministic generator (xorshift).
    pub(super) struct Numbers(pub(super) u64);

    impl Numbers {
        pub(super) fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % limit as u64).unwrap()
        }
    }

    #[test]
    fn the_streams_do_not_cut_each_other() {
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
    fn what_the_cap_leaves_out_is_scanned_all_the_same() {
        let mut collector = Collector::new(40);
        let filling = vec![b'.'; 5 * PIECE];
        collector.push(Stream::Stdout, &filling);
        collector.push(Stream::Stdout, b"\nSession: https://s.example/1, https://github.com/o/r/pull/1\n");
        collector.push(Stream::Stdout, &filling);
        let collected = collector.finish();
        assert!(collected.output.len() < 100 && !collected.output.contains("pull"), "{}", collected.output);
        assert_eq!(collected.artifacts.len(), 1);
        assert_eq!(collected.session_link.as_deref(), Some("https://s.example/1"));
    }

    #[test]
    fn every_split_of_both_streams_gives_the_same() {
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
    fn nothing_said_is_nothing_reported() {
        assert_eq!(Collector::new(1024).finish(), Collected::default());
    }
}
