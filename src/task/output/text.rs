//! Decodes bytes to text, and caps the text that is kept.

use crate::protocol::left_out_line;

/// Decodes UTF-8 in pieces, to what `String::from_utf8_lossy` returns for the whole. A NUL becomes U+FFFD too, because the
/// control plane's store would cut the text there.
#[derive(Debug, Default)]
pub(crate) struct Utf8Lossy {
    /// The bytes of an incomplete character, at most three.
    pending: Vec<u8>,
}

impl Utf8Lossy {
    /// Decodes `bytes` and appends to `text`. An incomplete character at the end waits for the next call.
    pub(crate) fn push(&mut self, bytes: &[u8], text: &mut String) {
        let joined;
        let mut bytes = bytes;
        if !self.pending.is_empty() {
            joined = [self.pending.as_slice(), bytes].concat();
            self.pending.clear();
            bytes = &joined;
        }
        let (whole, incomplete) = bytes.split_at(bytes.len() - incomplete_len(bytes));
        self.pending.extend_from_slice(incomplete);
        if let Ok(valid) = std::str::from_utf8(whole) {
            return push_valid(valid, text);
        }
        for chunk in whole.utf8_chunks() {
            push_valid(chunk.valid(), text);
            if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }

    /// Ends the text: appends U+FFFD for an incomplete character.
    pub(crate) fn finish(&mut self, text: &mut String) {
        if !self.pending.is_empty() {
            self.pending.clear();
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Returns the length of an incomplete character at the end, at most 3.
fn incomplete_len(bytes: &[u8]) -> usize {
    let is_incomplete = |text: &[u8]| {
        std::str::from_utf8(text).is_err_and(|error| (error.valid_up_to(), error.error_len()) == (0, None))
    };
    (1..=bytes.len().min(3)).find(|len| is_incomplete(bytes.split_at(bytes.len() - len).1)).unwrap_or(0)
}

fn push_valid(valid: &str, text: &mut String) {
    for (index, part) in valid.split('\0').enumerate() {
        if index > 0 {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        text.push_str(part);
    }
}

/// Keeps the beginning and the end of a text: a quarter of the cap from its beginning, the rest from its end.
///
/// A text that fits is kept whole. Memory is bounded by the cap, and each byte takes constant time.
#[derive(Debug)]
pub(crate) struct Capped {
    cap: usize,
    /// At most the cap. Once text is left out, a head of whole characters and a ring of the last bytes.
    bytes: Vec<u8>,
    /// The length of the head; 0 while nothing is left out.
    head: usize,
    /// Where the ring's oldest byte is, counted from the head's end.
    oldest: usize,
    left_out: u64,
    /// Whether a quarter is kept from the beginning.
    keeps_head: bool,
}

impl Capped {
    /// `cap` is in bytes and does not count the line about what was left out.
    pub(crate) fn new(cap: usize) -> Self {
        Self { cap, bytes: Vec::new(), head: 0, oldest: 0, left_out: 0, keeps_head: true }
    }

    /// Takes the next part of the text.
    pub(crate) fn push(&mut self, text: &str) {
        let free = self.cap - self.bytes.len();
        let (fitting, rest) = text.as_bytes().split_at(text.len().min(free));
        let needed = self.bytes.len() + fitting.len();
        if needed > self.bytes.capacity() {
            // Doubles like any vector, but not beyond the cap.
            let capacity = (self.bytes.len() * 2).clamp(needed, self.cap);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(fitting);
        if !rest.is_empty() {
            self.replace_oldest(rest);
        }
    }

    /// Takes bytes that do not fit.
    fn replace_oldest(&mut self, bytes: &[u8]) {
        if self.left_out == 0 && self.keeps_head {
            self.head = quarter(&self.bytes, self.cap);
        }
        self.left_out = self.left_out.saturating_add(bytes.len() as u64);
        let (_, ring) = self.bytes.split_at_mut(self.head);
        if ring.is_empty() {
            return;
        }
        let (_, last) = bytes.split_at(bytes.len().saturating_sub(ring.len()));
        let size = ring.len();
        let (newest, oldest) = ring.split_at_mut(self.oldest);
        let (first, second) = last.split_at(last.len().min(oldest.len()));
        oldest.split_at_mut(first.len()).0.copy_from_slice(first);
        newest.split_at_mut(second.len()).0.copy_from_slice(second);
        self.oldest = (self.oldest + last.len()) % size;
    }

    /// Ends the text where a part is skipped whose end [`Capped::after_gap`] keeps. Returns the beginning: at most a quarter of
    /// the cap, in whole characters.
    pub(crate) fn into_beginning(self) -> String {
        let Self { cap, mut bytes, head, left_out, .. } = self;
        let end = if left_out > 0 { head } else { quarter(&bytes, cap) };
        bytes.truncate(end);
        bytes.shrink_to_fit();
        text_of(bytes)
    }

    /// Returns an empty text that keeps only the end, of at most `cap` bytes.
    pub(crate) fn after_gap(cap: usize) -> Self {
        Self { keeps_head: false, ..Self::new(cap) }
    }

    /// Returns how many line feeds are kept.
    pub(crate) fn lines(&self) -> u64 {
        memchr::memchr_iter(b'\n', &self.bytes).count() as u64
    }

    /// Whether nothing was left out so far.
    pub(crate) fn is_whole(&self) -> bool {
        self.left_out == 0
    }

    /// Returns the end that was kept, in whole characters and without a line.
    pub(crate) fn into_end(mut self) -> String {
        self.bytes.rotate_left(self.oldest);
        let broken = self.bytes.iter().take_while(|byte| is_continuation(**byte)).count();
        self.bytes.drain(..broken);
        text_of(self.bytes)
    }

    /// Returns what was kept, with a line in the middle if something was left out.
    pub(crate) fn finish(mut self) -> String {
        if self.left_out > 0 {
            let (_, ring) = self.bytes.split_at_mut(self.head);
            ring.rotate_left(self.oldest);
            let broken = ring.iter().take_while(|byte| is_continuation(**byte)).count();
            let line = left_out_line(self.left_out.saturating_add(broken as u64));
            // Exact: a vector of many megabytes would double.
            self.bytes.reserve_exact(line.len());
            self.bytes.splice(self.head..self.head + broken, line.into_bytes());
        }
        text_of(self.bytes)
    }
}

/// Converts bytes that are whole characters, without a copy.
fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Returns the length of the part of the text, in whole characters, that is kept from its beginning.
fn quarter(text: &[u8], cap: usize) -> usize {
    (0..=(cap / 4).min(text.len())).rfind(|at| is_boundary(text, *at)).unwrap_or(0)
}

/// Whether a character starts at this byte, or the text ends there.
fn is_boundary(text: &[u8], at: usize) -> bool {
    text.get(at).is_none_or(|byte| !is_continuation(*byte))
}

/// Whether a byte continues a character.
fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::numbers::Numbers;

    fn decode<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> String {
        let mut decoder = Utf8Lossy::default();
        let mut text = String::new();
        chunks.for_each(|chunk| {
            decoder.push(chunk, &mut text);
            assert!(decoder.pending.len() <= 3);
        });
        decoder.finish(&mut text);
        text
    }

    fn decode_whole(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}")
    }

    #[test]
    fn bytes_decode_alike_in_every_split() {
        let interesting = [
            0x00, b'a', b'\n', 0x80, 0xbf, 0xc0, 0xc3, 0xe0, 0xa0, 0xed, 0x9f, 0xef, 0xf0, 0x90, 0xf4, 0x8f,
            0xf5, 0xff,
        ];
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        for _ in 0..3000 {
            let length = numbers.below(9);
            let bytes: Vec<u8> = (0..length).map(|_| interesting[numbers.below(interesting.len())]).collect();
            let whole = decode_whole(&bytes);
            for first in 0..=length {
                for second in first..=length {
                    let chunks = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    assert_eq!(decode(chunks.into_iter()), whole, "{bytes:x?} {first} {second}");
                }
            }
            assert_eq!(decode(bytes.chunks(1)), whole, "{bytes:x?}");
        }
    }

    #[test]
    fn valid_text_is_unchanged_in_every_split() {
        let text = "aü€😀\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}";
        for size in 1..=text.len() {
            assert_eq!(decode(text.as_bytes().chunks(size)), text);
        }
    }

    /// A simple implementation for the whole text.
    fn cap_whole(text: &str, cap: usize) -> String {
        if text.len() <= cap {
            return text.into();
        }
        let head = (0..=cap / 4).rev().find(|end| text.is_char_boundary(*end)).unwrap();
        let tail = (text.len() - (cap - head)..).find(|start| text.is_char_boundary(*start)).unwrap();
        let [first, between, last] = split_in_three(text, head, tail);
        format!("{first}\n[... {} bytes left out ...]\n{last}", between.len())
    }

    fn split_in_three(text: &str, first: usize, second: usize) -> [&str; 3] {
        let (left, right) = text.split_at(second);
        let (left, middle) = left.split_at(first);
        [left, middle, right]
    }

    fn cap_parts<'a>(parts: impl Iterator<Item = &'a str>, cap: usize) -> String {
        let mut capped = Capped::new(cap);
        for part in parts {
            capped.push(part);
            assert!(capped.bytes.len() <= cap && capped.bytes.capacity() <= cap.max(8));
        }
        capped.finish()
    }

    #[test]
    fn a_capped_text_keeps_both_ends_in_every_split() {
        for text in ["", "a", "abcdefghijklmnop", "üüüüüüüü", "a€b€c€d€", "😀😀😀😀", "aü€😀😀€üa"]
        {
            for cap in 0..text.len() + 3 {
                let whole = cap_whole(text, cap);
                for first in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
                    for second in (first..=text.len()).filter(|at| text.is_char_boundary(*at)) {
                        let parts = split_in_three(text, first, second);
                        assert_eq!(cap_parts(parts.into_iter(), cap), whole, "{text} {cap} {first} {second}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_cap_holds_for_many_and_for_large_parts() {
        let mut numbers = Numbers(7);
        for _ in 0..200 {
            let cap = numbers.below(300);
            let parts: Vec<String> = (0..numbers.below(40))
                .map(|_| ["x", "ü", "€", "😀", "\n"][numbers.below(5)].repeat(numbers.below(60)))
                .collect();
            assert_eq!(cap_parts(parts.iter().map(String::as_str), cap), cap_whole(&parts.concat(), cap));
        }
    }

    #[test]
    fn the_beginning_and_the_end_are_kept_apart_around_a_gap() {
        for text in ["", "abc", "abcdefghijklmnop", "üüüüüüüü", "a€b€c€d€"] {
            for cap in 0..20 {
                let mut before = Capped::new(cap);
                let mut after = Capped::after_gap(cap);
                for part in text.split_inclusive(['a', 'ü', 'c']) {
                    before.push(part);
                    after.push(part);
                }
                assert_eq!(after.is_whole(), text.len() <= cap);
                let (head, tail) = (before.into_beginning(), after.into_end());
                let end = (0..=(cap / 4).min(text.len())).rfind(|end| text.is_char_boundary(*end)).unwrap();
                assert_eq!(head, text.split_at(end).0, "{text} {cap}");
                let start = text.len().saturating_sub(cap);
                let start = (start..=text.len()).find(|start| text.is_char_boundary(*start)).unwrap();
                assert_eq!(tail, text.split_at(start).1, "{text} {cap}");
            }
        }
    }

    #[test]
    fn the_capacity_is_bounded_by_the_cap() {
        let mut capped = Capped::new(100_000);
        for _ in 0..10_000 {
            capped.push("0123456789012345678901234567890123456789");
        }
        assert_eq!(capped.bytes.capacity(), 100_000);
        let text = capped.finish();
        assert_eq!((text.len(), text.capacity()), (100_033, 100_033));
    }
}
