//! Bytes to text, and text to a length that can be sent.
//!
//! Owns decoding, the cap in bytes, the cap in encoded bytes and the line that says what was left out. It must not know
//! what the text means.

use std::collections::VecDeque;

/// Decodes UTF-8 that comes in pieces: together they give what `String::from_utf8_lossy` gives for the whole, except
/// that a NUL becomes U+FFFD too, since the control plane's store ends at a NUL.
#[derive(Debug, Default)]
pub struct Utf8Lossy {
    /// The beginning of a character, at most three bytes.
    pending: Vec<u8>,
}

impl Utf8Lossy {
    /// Appends to `text` what `bytes` complete.
    pub fn push(&mut self, bytes: &[u8], text: &mut String) {
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
            rest = after.get(length..).unwrap_or_default();
        }
        push_valid(rest, text);
    }

    /// Appends what stands for a character that was never completed.
    pub fn finish(&mut self, text: &mut String) {
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

/// Keeps the beginning and the end of a text: the first quarter and the last three quarters of a cap.
///
/// A text that fits is kept whole. Needs no more memory than the cap, whatever is pushed, and constant time a byte.
#[derive(Debug)]
pub struct Capped {
    cap: usize,
    head: String,
    head_is_full: bool,
    /// The last bytes; may begin within a character.
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Capped {
    /// `cap` is in bytes, without the line about what was left out.
    pub fn new(cap: usize) -> Self {
        Self { cap, head: String::new(), head_is_full: false, tail: VecDeque::new(), left_out: 0 }
    }

    /// Takes the next part.
    pub fn push(&mut self, text: &str) {
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
        // What the head could not use for a whole character is the tail's: so a text as long as the cap fits.
        let room = self.cap.saturating_sub(self.head.len());
        let bytes_out = bytes.len().saturating_sub(room);
        let bytes = bytes.get(bytes_out..).unwrap_or_default();
        let tail_out = (self.tail.len() + bytes.len()).saturating_sub(room);
        self.tail.drain(..tail_out);
        self.left_out = self.left_out.saturating_add((bytes_out + tail_out) as u64);
        let needed = self.tail.len() + bytes.len();
        if needed > self.tail.capacity() {
            // Doubles as a queue does by itself, but not beyond the cap.
            let capacity = (self.tail.len() * 2).clamp(needed, room.max(needed));
            self.tail.reserve_exact(capacity - self.tail.len());
        }
        self.tail.extend(bytes);
    }

    /// What was kept, with a line between when something was left out.
    pub fn finish(mut self) -> String {
        let tail: &[u8] = self.tail.make_contiguous();
        let mut output = self.head;
        if self.left_out == 0 {
            output.push_str(&String::from_utf8_lossy(tail));
            return output;
        }
        let broken = tail.iter().take_while(|byte| is_continuation(**byte)).count();
        output.push_str(&left_out_line(self.left_out.saturating_add(broken as u64)));
        output.push_str(&String::from_utf8_lossy(tail.get(broken..).unwrap_or_default()));
        output
    }
}

fn left_out_line(bytes: u64) -> String {
    format!("\n[... {bytes} bytes left out ...]\n")
}

/// Whether a byte is not the first of a character.
fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// Splits off as many whole characters as `room` bytes take.
fn split_before(text: &str, room: usize) -> (&str, &str) {
    // No character has more than four bytes.
    (0..4)
        .find_map(|less| text.split_at_checked(room.min(text.len()).checked_sub(less)?))
        .unwrap_or(("", text))
}

/// The bytes that a text takes in a JSON string, without the quotes around it.
pub fn escaped_len(text: &str) -> usize {
    text.bytes().map(escaped_byte_len).sum()
}

/// As serde_json writes it: what is not ASCII, and DEL, as it is.
fn escaped_byte_len(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0x00..=0x1f => 6,
        _ => 1,
    }
}

/// Cuts the middle out of a text, as [`Capped`] does, until it takes at most `max_encoded` bytes in a JSON string.
///
/// The line between counts what is cut here. Where not even that line has room, nothing is left.
pub fn fit(output: String, max_encoded: usize) -> String {
    if escaped_len(&output) <= max_encoded {
        return output;
    }
    // No count can be longer than that of the whole.
    let Some(budget) = max_encoded.checked_sub(escaped_len(&left_out_line(output.len() as u64))) else {
        return String::new();
    };
    let (head_end, head_cost) = affordable(output.chars(), budget / 4);
    let (tail_length, _) = affordable(output.chars().rev(), budget - head_cost);
    let (head, rest) = output.split_at_checked(head_end).unwrap_or(("", &output));
    let cut = rest.len().saturating_sub(tail_length);
    let tail = rest.get(cut..).unwrap_or_default();
    format!("{head}{}{tail}", left_out_line(cut as u64))
}

/// How many bytes of text, in whole characters, the budget of encoded bytes pays for, and what they cost.
fn affordable(chars: impl Iterator<Item = char>, budget: usize) -> (usize, usize) {
    let (mut length, mut cost) = (0, 0);
    for c in chars {
        let price = u8::try_from(c).ok().filter(u8::is_ascii).map_or(c.len_utf8(), escaped_byte_len);
        if cost + price > budget {
            break;
        }
        length += c.len_utf8();
        cost += price;
    }
    (length, cost)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Numbers;
    use super::*;

    fn decode<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> String {
        let (mut decoder, mut text) = (Utf8Lossy::default(), String::new());
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
    fn bytes_in_any_split_decode_as_the_whole() {
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
    fn every_character_survives_every_split() {
        let text = "aü€😀\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}";
        for size in 1..=text.len() {
            assert_eq!(decode(text.as_bytes().chunks(size)), text);
        }
    }

    /// The same on the whole text.
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
    fn the_cap_keeps_both_ends_in_every_split() {
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
    fn the_cap_holds_for_much_and_for_large_parts() {
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
    fn the_buffer_of_the_tail_stays_within_the_cap() {
        let mut capped = Capped::new(100_000);
        for _ in 0..10_000 {
            capped.push("0123456789012345678901234567890123456789");
        }
        assert!(capped.tail.capacity() <= 100_000, "{}", capped.tail.capacity());
    }

    #[test]
    fn the_escaped_length_is_that_of_the_encoder() {
        let text: String =
            (0..0x250).filter_map(char::from_u32).chain("\"\\€😀\u{2028}\u{fffd}".chars()).collect();
        for c in text.chars() {
            let c = c.to_string();
            assert_eq!(escaped_len(&c) + 2, serde_json::to_string(&c).unwrap().len(), "{c:?}");
        }
        assert_eq!(escaped_len(&text) + 2, serde_json::to_string(&text).unwrap().len());
    }

    #[test]
    fn what_fits_is_not_touched() {
        let text = "a\n\u{1}€";
        assert_eq!(fit(text.into(), 12), text);
        assert_ne!(fit(text.into(), 11), text);
    }

    #[test]
    fn what_does_not_fit_loses_its_middle() {
        let mut numbers = Numbers(11);
        for _ in 0..2000 {
            let text: String = (0..numbers.below(200))
                .map(|_| ["x", "\u{1}", "\"", "€", "😀", "\n"][numbers.below(6)])
                .collect();
            let limit = numbers.below(400);
            let fitted = fit(text.clone(), limit);
            assert!(escaped_len(&fitted) <= limit, "{text:?} {limit}");
            let Some((head, rest)) = fitted.split_once("\n[... ") else {
                assert!(fitted == text || (fitted.is_empty() && limit < 33), "{text:?} {limit}");
                continue;
            };
            let (count, tail) = rest.split_once(" bytes left out ...]\n").unwrap();
            assert!(text.starts_with(head) && text.ends_with(tail));
            assert_eq!(head.len() + tail.len() + count.parse::<usize>().unwrap(), text.len());
            // Nothing is wasted: at most one character at each end, and a digit of the count.
            assert!(escaped_len(&fitted) + 6 + 6 + 2 > limit, "{text:?} {limit}");
            assert!(escaped_len(head) <= limit / 4);
        }
    }
}
