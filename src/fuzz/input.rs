//! How an input is read, and what is asked of every text that people get to see.
//!
//! Owns the form of an input: a first line that steers, and the bytes that are looked at. It must not know a target.

use serde_json::Value;

/// Stands where a secret would be.
pub(crate) const MARKER: &str = "hunter2-MARKER";

/// A fuzzer's input. The bytes before its first line feed say how the rest is cut: each is the length of a piece, and they
/// start over at their end. So a seed is the bytes of a peer with one more line before them.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) steer: &'a [u8],
    pub(crate) data: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let (steer, rest) = bytes.split_at(end);
                Self { steer, data: rest.get(1..).unwrap_or_default() }
            }
            None => Self { steer: &[], data: bytes },
        }
    }

    /// The steering byte at `index`, 0 where there is none.
    pub(crate) fn knob(&self, index: usize) -> u8 {
        self.steer.get(index).copied().unwrap_or_default()
    }

    /// The bytes as a text; what is none of UTF-8 is replaced.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.data).into_owned()
    }

    /// The bytes over and over, up to about `size`: what is long is rarely found by chance.
    pub(crate) fn inflated(&self, size: usize) -> Vec<u8> {
        let times = if self.knob(0) == b'*' { size / self.data.len().max(1) + 1 } else { 1 };
        self.data.repeat(times)
    }

    /// These bytes cut as the steering says; at once without any. Pieces of much are larger, as the head of a response is
    /// looked at anew with each.
    pub(crate) fn cut<'b>(&self, mut bytes: &'b [u8]) -> Vec<&'b [u8]> {
        let scale = 1 + bytes.len() / 512;
        let lengths = self.steer.iter().map(|byte| match usize::from(*byte) {
            short @ ..128 => (short % 32 + 1) * scale,
            long => (long - 127) * 64,
        });
        let mut pieces = Vec::new();
        for length in lengths.cycle() {
            if bytes.is_empty() {
                return pieces;
            }
            let (piece, rest) = bytes.split_at(length.min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        vec![bytes]
    }
}

/// A text for a log or a report: no longer than `max` bytes, and nothing in it can begin a line.
pub(crate) fn assert_one_line(text: &str, max: usize) {
    assert!(text.len() <= max, "{} bytes, at most {max} are right", text.len());
    assert!(!text.contains(char::is_control), "not one line: {text:?}");
}

/// Neither its text nor its `Debug` may show the marker.
pub(crate) fn assert_hidden(texts: &[String]) {
    assert!(texts.iter().all(|text| !text.contains(MARKER)), "a secret is shown");
}

/// JSON with the marker in place of each text whose path `hidden` takes. A path is the keys and positions from the root,
/// each with a slash before it.
pub(crate) fn marked(value: &Value, path: &str, hidden: &dyn Fn(&str) -> bool) -> Value {
    match value {
        Value::String(_) if hidden(path) => MARKER.into(),
        Value::Array(items) => {
            let item = |(index, item): (usize, &Value)| marked(item, &format!("{path}/{index}"), hidden);
            items.iter().enumerate().map(item).collect()
        }
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                (key.clone(), marked(value, &format!("{path}/{key}"), hidden))
            };
            fields.iter().map(field).collect()
        }
        other => other.clone(),
    }
}
