//! The format of a fuzzer's input, and checks that several targets share.

use serde_json::Value;

/// The text that a target puts in place of a secret.
pub(crate) const MARKER: &str = "hunter2-MARKER";

/// A fuzzer's input: a first line of steering bytes, and the data. The steering bytes choose options of the target and the lengths
/// of the pieces that [`Input::cut`] makes. A seed is data from a peer after one line of steering bytes.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) steer: &'a [u8],
    pub(crate) data: &'a [u8],
}

impl<'a> Input<'a> {
    /// Splits an input at its first line feed. Without one, all of it is data.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
        match (parts.next(), parts.next()) {
            (Some(steer), Some(data)) => Self { steer, data },
            _ => Self { steer: &[], data: bytes },
        }
    }

    /// Returns the steering byte at `index`, or 0 if there is none.
    pub(crate) fn steering(&self, index: usize) -> u8 {
        self.steer.get(index).copied().unwrap_or_default()
    }

    /// Returns the data as text, with invalid UTF-8 replaced.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.data).into_owned()
    }

    /// Returns the data, repeated to about `size` bytes if the first steering byte is `*`, because a fuzzer rarely finds long inputs
    /// by chance.
    pub(crate) fn inflated(&self, size: usize) -> Vec<u8> {
        let times = if self.steering(0) == b'*' { size / self.data.len().max(1) + 1 } else { 1 };
        self.data.repeat(times)
    }

    /// Cuts `bytes` into pieces. Each steering byte gives the length of a piece, starting over after the last; without any there
    /// is one piece. Lengths grow with `bytes.len()`, because the head of a response is parsed again with each piece.
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

/// Asserts that a text for a log or a report has at most `max` bytes and no control characters.
pub(crate) fn assert_one_line(text: &str, max: usize) {
    assert!(text.len() <= max, "{} bytes; the limit is {max}", text.len());
    assert!(!text.contains(char::is_control), "control characters in {text:?}");
}

/// Asserts that no text contains the marker.
pub(crate) fn assert_hidden(texts: &[String]) {
    assert!(texts.iter().all(|text| !text.contains(MARKER)), "a secret is visible");
}

/// Returns `value` with the marker in place of each string for whose path `hidden` returns true. A path is a JSON pointer without
/// escapes, such as `/data/env_vars/NAME`; `path` is that of `value`.
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
