//! Fuzz entry points for a task's output: its two streams, and the archive with its output file. The bench also counts the
//! instructions of collecting output.

use std::collections::BTreeSet;
use std::io::{self, Read};

use super::output::file::{FirstFile, first_file};
use super::output::scan::MAX_ARTIFACTS;
use super::output::text::Utf8Lossy;
use super::output::{Collected, Collector, Stream};
use crate::fuzz::Input;
use crate::protocol::{escaped_len, fit};

/// The longest line about what was left out, in bytes.
const LINE: usize = 60;
/// The longest link that is kept, in bytes.
const LINK: usize = 2048;

/// Collects the output of both streams. Pieces go to them in turn if the input's first steering byte is `2`, else all to one.
pub fn task_output(bytes: &[u8]) {
    let input = Input::new(bytes);
    let cap = usize::from(input.steering(1)) * 4;
    let data = input.inflated(8 * 1024);
    let other = if input.steering(0) == b'2' { Stream::Stderr } else { Stream::Stdout };
    let turns = [Stream::Stdout, other].into_iter().cycle();
    let pieces: Vec<(&[u8], Stream)> = input.cut(&data).into_iter().zip(turns).collect();
    let parts = collected(cap, pieces.iter().copied());
    let smaller = pieces.iter().flat_map(|(piece, stream)| piece.chunks(3).map(|part| (part, *stream)));
    assert_eq!(parts, collected(cap, smaller));
    if other == Stream::Stdout {
        assert_eq!(parts, collected(cap, [(data.as_slice(), other)]));
        check_one_stream(&data, cap, &parts);
    }
    check_collected(&parts, cap);
    check_fit(&parts.output, usize::from(input.steering(2)) * 8);
}

fn collected<'a>(cap: usize, pieces: impl IntoIterator<Item = (&'a [u8], Stream)>) -> Collected {
    let mut collector = Collector::new(cap);
    for (piece, stream) in pieces {
        collector.push(stream, piece);
    }
    collector.finish()
}

/// Collects output as a task with the default cap does, in one piece. Returns the length of the kept text. For the bench.
pub fn collect_output(bytes: &[u8]) -> usize {
    collected(4 << 20, [(bytes, Stream::Stdout)]).output.len()
}

fn check_one_stream(data: &[u8], cap: usize, collected: &Collected) {
    let text = String::from_utf8_lossy(data).replace('\0', "\u{fffd}");
    let mut decoded = String::new();
    let mut decoder = Utf8Lossy::default();
    decoder.push(data, &mut decoded);
    decoder.finish(&mut decoded);
    assert_eq!(decoded, text);
    assert!(text.len() > cap || collected.output == text, "a text that fits is kept whole");
    assert!(collected.artifacts.iter().all(|url| text.contains(url.as_str())));
}

fn check_collected(collected: &Collected, cap: usize) {
    assert!(collected.output.len() <= cap + LINE && !collected.output.contains('\0'));
    let urls = &collected.artifacts;
    assert!(urls.len() <= MAX_ARTIFACTS && urls.iter().collect::<BTreeSet<_>>().len() == urls.len());
    for url in urls {
        let parts: Vec<&str> = url.split('/').collect();
        let good = matches!(*parts.as_slice(), ["https:", "", "github.com", owner, repo, "pull", number]
            if !owner.is_empty() && !repo.is_empty() && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit()));
        assert!(good && url.len() < 400, "{url}");
    }
    if let Some(link) = &collected.session_link {
        let is_url = link.starts_with("http://") || link.starts_with("https://");
        assert!(is_url && link.len() <= LINK && link.bytes().all(|byte| byte.is_ascii_graphic()), "{link}");
    }
}

fn check_fit(output: &str, max: usize) {
    let quoted = serde_json::to_string(output).unwrap_or_default();
    assert_eq!(escaped_len(output) + 2, quoted.len());
    let fitted = fit(output.to_owned(), max);
    assert!(escaped_len(&fitted) <= max && (fitted == output || quoted.len() - 2 > max));
}

/// Reads the archive with the output file.
pub fn output_archive(bytes: &[u8]) {
    let input = Input::new(bytes);
    let cap = 256;
    let whole = first(&[input.data], cap);
    assert_eq!(whole, first(&input.cut(input.data), cap));
    if let Ok(Some(collected)) = &whole {
        assert!(input.data.len() >= 512, "a file without a header");
        check_collected(collected, cap);
    }
}

fn first(pieces: &[&[u8]], cap: usize) -> Result<Option<Collected>, io::ErrorKind> {
    let mut collector = Collector::new(cap);
    let mut sink = |text: &[u8]| {
        collector.push(Stream::Stdout, text);
        true
    };
    let found = first_file(Pieces { current: &[], rest: pieces }, &mut sink);
    let found = found.and_then(|found| found.map(|FirstFile { read, .. }| read).transpose());
    found.map(|found| found.map(|()| collector.finish())).map_err(|error| error.kind())
}

/// Returns one piece from each read, or as much of it as fits.
struct Pieces<'a> {
    current: &'a [u8],
    rest: &'a [&'a [u8]],
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            let Some((piece, rest)) = self.rest.split_first() else { return Ok(0) };
            self.current = piece;
            self.rest = rest;
        }
        self.current.read(buffer)
    }
}
