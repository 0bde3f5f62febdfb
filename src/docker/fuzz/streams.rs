//! Targets for the streams of an engine, pull progress and framed logs: pieces must decode like the whole stream.

use super::assert_error;
use crate::docker::stream::{LogDemux, MAX_LAYERS, MAX_LINE, PullStream};
use crate::docker::{Error, LogStream, PullProgress};
use crate::fuzz::Input;

/// A log.
pub fn log_frames(bytes: &[u8]) {
    let input = Input::new(bytes);
    let whole = demuxed([input.data]);
    assert_eq!(whole, demuxed(input.cut(input.data)));
    let (seen, end) = whole;
    assert!(seen.len() <= input.data.len());
    assert!(end.is_ok() || end.is_err_and(|text| !text.is_empty()));
    round_trip(&input);
}

/// Returns each byte with its stream, and how the log ended.
fn demuxed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<(LogStream, u8)>, Result<(), String>) {
    let mut demux = LogDemux::default();
    let mut seen = Vec::new();
    let mut sink = |stream, bytes: &[u8]| {
        assert!(!bytes.is_empty(), "an empty piece was passed on");
        seen.extend(bytes.iter().map(|byte| (stream, *byte)));
    };
    let mut end = Ok(());
    for piece in pieces {
        end = end.and_then(|()| demux.push(piece, &mut sink));
    }
    let end = end.and_then(|()| demux.finish()).map_err(|error| {
        assert_error(&error);
        error.to_string()
    });
    (seen, end)
}

/// The decoder reads back framed pieces.
fn round_trip(input: &Input<'_>) {
    let mut sent = Vec::new();
    let mut expected = Vec::new();
    let kinds =
        [(1, LogStream::Stdout), (2, LogStream::Stderr), (3, LogStream::Engine), (0, LogStream::Stdout)];
    for (piece, (kind, stream)) in input.cut(input.data).into_iter().zip(kinds.into_iter().cycle()) {
        let length = u32::try_from(piece.len()).unwrap_or_default().to_be_bytes();
        sent.extend([[kind, 0, 0, 0], length].concat());
        sent.extend_from_slice(piece);
        expected.extend(piece.iter().map(|byte| (stream, *byte)));
    }
    assert_eq!(demuxed(input.cut(&sent)), (expected, Ok(())));
}

/// The progress of a pull.
pub fn pull_stream(bytes: &[u8]) {
    let input = Input::new(bytes);
    let data = input.inflated(MAX_LINE + 100);
    let whole = pulled([data.as_slice()]);
    assert_eq!(whole, pulled(input.cut(&data)));
    let (progress, _) = whole;
    assert!(progress.layers <= MAX_LAYERS && progress.layers_done <= progress.layers);
}

fn pulled<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (PullProgress, Result<(), String>) {
    let mut stream = PullStream::default();
    let mut end = Ok(());
    for piece in pieces {
        end = end.and_then(|()| stream.push(piece));
        assert!(stream.held() <= MAX_LINE + MAX_LAYERS * 256, "it keeps {} bytes", stream.held());
    }
    let end = end.and_then(|()| stream.finish()).map_err(|error| {
        assert!(matches!(error, Error::Pull { .. } | Error::Protocol { .. }), "{error:?}");
        assert_error(&error);
        error.to_string()
    });
    (stream.progress().clone(), end)
}
