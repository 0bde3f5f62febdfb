//! Decodes bytes to text, and caps the text that is kept.

use std::collections::VecDeque;

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
        let mut rest = bytes;
        if !self.pending.is_empty() {
            joined = [self.pending.as_slice(), bytes].concat();
            self.pending.clear();
            rest = &joined;
        }
        while let Err(error) = std::str::from_utf8(rest) {
            let (valid, after) = rest.split_at(error.valid_up_to());
            push_valid(valid, text);
            let Some(length) = error.error_len() else {
                self.pending.extend_from_slice(after);
                return;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            (_, rest) = after.split_at(length);
        }
        push_valid(rest, text);
    }

    /// Ends the text: appends U+FFFD for an incomplete character.
    pub(crate) fn finish(&mut self, text: &mut String) {
        if !self.pending.is_empty() {
            self.pending.clear();
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

fn push_valid(bytes: &[u8], text: &mut String) {
    for (index, part) in bytes.split(|byte| *byte == 0).enumerate() {
        if index > 0 {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        text.push_str(&String::from_utf8_lossy(part));
    }
}

/// Keeps the beginning and the end of a text: a quarter of the cap from its beginning, the rest from its end.
///
/// A text that fits is kept whole. Memory is bounded by the cap, and each byte takes constant time.
#[derive(Debug)]
pub(crate) struct Capped {
    cap: usize,
    head: String,
    head_is_full: bool,
    /// The last bytes; may begin in the middle of a character.
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Capped {
    /// `cap` is in bytes and does not count the line about what was left out.
    pub(crate) fn new(cap: usize) -> Self {
        Self { cap, head: String::new(), head_is_full: false, tail: VecDeque::new(), left_out: 0 }
    }

    /// Takes the next part of the text.
    pub(crate) fn push(&mut self, text: &str) {
        let mut rest = text;
        if !self.head_is_full {
            let room = (self.cap / 4).saturating_sub(self.head.len());
            let (head, after) = split_before(text, room);
            self.head.push_str(head);
            self.head_is_full = !after.is_empty();
            rest = after;
        }
        self.push_tail(rest.as_bytes());
    }

    fn push_tail(&mut self, bytes: &[u8]) {
        // Bytes that the head could not use for a whole character belong to the tail, so a text as long as the cap fits.
        let room = self.cap.saturating_sub(self.head.len());
        let (skipped, bytes) = bytes.split_at(bytes.len().saturating_sub(room));
        let dropped = (self.tail.len() + bytes.len()).saturating_sub(room);
        self.tail.drain(..dropped);
        self.left_out = self.left_out.saturating_add((skipped.len() + dropped) as u64);
        let needed = self.tail.len() + bytes.len();
        if needed > self.tail.capacity() {
            // Doubles like any queue, but not beyond the cap.
            let capacity = (self.tail.len() * 2).clamp(needed, room.max(needed));
            self.tail.reserve_exact(capacity - self.tail.len());
        }
        self.tail.extend(bytes);
    }

    /// Returns what was kept, with a line in the middle if something was left out.
    pub(crate) fn finish(mut self) -> String {
        let tail: &[u8] = self.tail.make_contiguous();
        let mut output = self.head;
        if self.left_out == 0 {
            output.push_str(&String::from_utf8_lossy(tail));
            return output;
        }
        let broken = tail.iter().take_while(|byte| is_continuation(**byte)).count();
        let (broken, tail) = tail.split_at(broken);
        output.push_str(&left_out_line(self.left_out.saturating_add(broken.len() as u64)));
        output.push_str(&String::from_utf8_lossy(tail));
        output
    }
}

/// Whether a byte continues a character.
fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// Splits off as many whole characters as fit into `room` bytes.
fn split_before(text: &str, room: usize) -> (&str, &str) {
    // No character has more than four bytes.
    (0..4)
        .find_map(|less| text.split_at_checked(room.min(text.len()).checked_sub(less)?))
        .unwrap_or(("", text))
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
            assert!(capped.head.len() + capped.tail.len() <= cap);
            assert!(capped.head.len() + capped.tail.capacity() <= 2 * cap + 8);
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
    fn the_capacity_of_the_tail_is_bounded_by_the_cap() {
        let mut capped = Capped::new(100_000);
        for _ in 0..10_000 {
            capped.push("0123456789012345678901234567890123456789");
        }
        assert!(capped.tail.capacity() <= 100_000, "{}", capped.tail.capacity());
    }
}
