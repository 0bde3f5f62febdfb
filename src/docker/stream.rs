//! Decoders for the engine's streams, pull progress and framed logs. Pure: the caller pushes the bytes.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::one_line;
use super::{Error, LogStream, PullProgress};

/// The most bytes of a line of a pull's stream. Real lines have a few hundred.
pub(super) const MAX_LINE: usize = 256 * 1024;
/// The most layers that are counted. Overlay drivers allow 128.
pub(super) const MAX_LAYERS: usize = 1024;
/// The most bytes in the id of a counted layer. Real ids have twelve.
const MAX_ID: usize = 128;
/// The longest payload of a log's frame that is copied to join it with others, in bytes.
const SMALL_FRAME: usize = 2048;

/// Decodes the JSON lines of a pull.
#[derive(Debug, Default)]
pub(super) struct PullStream {
    line: Vec<u8>,
    layers: BTreeMap<String, Layer>,
    progress: PullProgress,
}

#[derive(Debug, Default, Clone, Copy)]
struct Layer {
    done: bool,
    bytes: u64,
    total: u64,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default, rename = "progressDetail")]
    detail: Option<Detail>,
    #[serde(default, rename = "errorDetail")]
    error_detail: Option<ErrorDetail>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(default)]
    current: Option<i64>,
    #[serde(default)]
    total: Option<i64>,
}

#[derive(Deserialize)]
struct ErrorDetail {
    #[serde(default)]
    message: Option<String>,
}

impl PullStream {
    /// Decodes the next bytes. An error reported in the stream is [`Error::Pull`].
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut parts = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            self.append(part)?;
            if parts.peek().is_some() {
                self.finish()?;
            }
        }
        Ok(())
    }

    /// Decodes the current line: each complete one, and at the end of the stream one without a line feed.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        let line = std::mem::take(&mut self.line);
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(());
        }
        let event: Event = serde_json::from_slice(line)
            .map_err(|_| Error::protocol("a line of a pull's stream is not JSON"))?;
        self.event(event)
    }

    pub(super) fn progress(&self) -> &PullProgress {
        &self.progress
    }

    /// Returns how many bytes of the stream are kept.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn held(&self) -> usize {
        self.line.len() + self.layers.keys().map(String::len).sum::<usize>()
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.line.len() + bytes.len() > MAX_LINE {
            return Err(Error::protocol(format!(
                "a line of a pull's stream is longer than {MAX_LINE} bytes"
            )));
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<(), Error> {
        let detail = event.error_detail.map(|detail| detail.message.unwrap_or_default());
        if let Some(message) = detail.filter(|text| !text.is_empty()).or(event.error) {
            return Err(Error::Pull { message: one_line(&message) });
        }
        if let (Some(id), Some(status)) = (event.id, event.status) {
            self.layer(id, &status, event.detail.as_ref());
        }
        Ok(())
    }

    /// Updates a layer. Other statuses are ignored: the stream also has lines whose id is the tag.
    fn layer(&mut self, id: String, status: &str, detail: Option<&Detail>) {
        let waiting = matches!(status, "Pulling fs layer" | "Waiting" | "Verifying Checksum" | "Extracting");
        let done = matches!(status, "Pull complete" | "Already exists");
        let fetched = status == "Download complete";
        let fetching = status == "Downloading";
        let known = waiting || done || fetched || fetching;
        if !known || id.len() > MAX_ID || (self.layers.len() >= MAX_LAYERS && !self.layers.contains_key(&id))
        {
            return;
        }
        let layer = self.layers.entry(id).or_default();
        layer.done |= done;
        if fetching {
            let size = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
            layer.bytes = size(detail.and_then(|detail| detail.current));
            layer.total = size(detail.and_then(|detail| detail.total)).max(layer.total);
        } else if fetched || done {
            // The total is 0 if the engine never reported the size.
            layer.bytes = layer.bytes.max(layer.total);
        }
        self.progress = self.sum();
    }

    fn sum(&self) -> PullProgress {
        let add = |mut sum: PullProgress, layer: &Layer| {
            sum.layers_done += usize::from(layer.done);
            sum.bytes = sum.bytes.saturating_add(layer.bytes);
            sum.bytes_total = sum.bytes_total.saturating_add(layer.total);
            sum
        };
        let start = PullProgress { layers: self.layers.len(), ..PullProgress::default() };
        self.layers.values().fold(start, add)
    }
}

/// Decodes the frames of a log: 8 bytes (the stream, three zeros, a big-endian length), then that many bytes.
#[derive(Debug, Default)]
pub(super) struct LogDemux {
    header: [u8; 8],
    have: usize,
    left: usize,
    /// The payload of adjacent small frames of one stream. Empty between calls.
    joined: Vec<u8>,
}

impl LogDemux {
    /// Decodes the next bytes and passes their payload to `sink`, in pieces. Payload of small frames is joined, because the
    /// engine sends each line in a frame of its own.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        sink: &mut dyn FnMut(LogStream, &[u8]),
    ) -> Result<(), Error> {
        let mut joined = Joined { bytes: std::mem::take(&mut self.joined), stream: LogStream::Stdout };
        let mut result = Ok(());
        while result.is_ok() && !bytes.is_empty() {
            if self.left > 0 {
                let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= payload.len();
                bytes = rest;
                result = stream_of(self.header).map(|stream| joined.push(stream, payload, sink));
                continue;
            }
            let (_, missing) = self.header.split_at_mut(self.have);
            let (header, rest) = bytes.split_at(missing.len().min(bytes.len()));
            missing.split_at_mut(header.len()).0.copy_from_slice(header);
            self.have += header.len();
            bytes = rest;
            if self.have == self.header.len() {
                self.have = 0;
                result = length_of(self.header).map(|length| self.left = length);
            }
        }
        joined.flush(sink);
        self.joined = joined.bytes;
        result
    }

    /// Checks that the log does not end within a frame.
    pub(super) fn finish(&self) -> Result<(), Error> {
        if self.have == 0 && self.left == 0 {
            return Ok(());
        }
        Err(Error::protocol("a log ends within a frame"))
    }
}

struct Joined {
    bytes: Vec<u8>,
    stream: LogStream,
}

impl Joined {
    fn push(&mut self, stream: LogStream, payload: &[u8], sink: &mut dyn FnMut(LogStream, &[u8])) {
        if stream != self.stream || payload.len() > SMALL_FRAME {
            self.flush(sink);
        }
        if payload.len() > SMALL_FRAME {
            return sink(stream, payload);
        }
        self.stream = stream;
        self.bytes.extend_from_slice(payload);
    }

    fn flush(&mut self, sink: &mut dyn FnMut(LogStream, &[u8])) {
        if !self.bytes.is_empty() {
            sink(self.stream, &self.bytes);
            self.bytes.clear();
        }
    }
}

fn stream_of(header: [u8; 8]) -> Result<LogStream, Error> {
    match header {
        // 0 is echoed standard input, which the engine's own client prints as output.
        [0 | 1, 0, 0, 0, ..] => Ok(LogStream::Stdout),
        [2, 0, 0, 0, ..] => Ok(LogStream::Stderr),
        [3, 0, 0, 0, ..] => Ok(LogStream::Engine),
        _ => Err(Error::protocol("a log is not framed")),
    }
}

fn length_of(header: [u8; 8]) -> Result<usize, Error> {
    stream_of(header)?;
    let [_, _, _, _, length @ ..] = header;
    usize::try_from(u32::from_be_bytes(length)).map_err(|_| Error::protocol("a log frame is too long"))
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
