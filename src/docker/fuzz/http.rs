//! Targets for the HTTP decoders: input in pieces must decode like the whole input.

use crate::docker::http::HttpError;
use crate::docker::http::body::{Decoder, Framing, Transfer};
use crate::docker::http::head::{Head, HeadReader, MAX_HEAD, MAX_HEADERS};
use crate::docker::http::request::{LAST_CHUNK, chunk};
use crate::fuzz::Input;

/// A body. The steering byte `c` means chunked, `u` until the close; any other is the size.
pub fn http_body(bytes: &[u8]) {
    let input = Input::new(bytes);
    let framing = match input.steering(0) {
        b'c' => Framing::Chunked,
        b'u' => Framing::UntilClose,
        size => Framing::Sized(u64::from(size)),
    };
    let whole = Decoded::of(framing, [input.data], input.data.len() + 1);
    let parts = Decoded::of(framing, input.cut(input.data), usize::from(input.steering(1)) + 1);
    assert_eq!(whole.end, parts.end);
    if whole.end.is_ok() {
        assert_eq!((&whole.payload, whole.used, whole.done), (&parts.payload, parts.used, parts.done));
    }
    // Payload before an error may be missing from the whole input's result.
    assert!(parts.payload.starts_with(&whole.payload));
    expected(framing, input.data, &whole);
    round_trip(&input);
}

struct Decoded {
    payload: Vec<u8>,
    used: usize,
    done: bool,
    end: Result<(), HttpError>,
}

impl Decoded {
    /// Decodes the pieces with an output of `size` bytes.
    fn of<'a>(framing: Framing, pieces: impl IntoIterator<Item = &'a [u8]>, size: usize) -> Self {
        let mut decoder = Decoder::new(framing);
        let mut output = vec![0; size];
        let mut all = Self { payload: Vec::new(), used: 0, done: false, end: Ok(()) };
        for mut piece in pieces {
            while all.end.is_ok() {
                let transfer = match decoder.decode(piece, &mut output) {
                    Ok(transfer) => transfer,
                    Err(problem) => {
                        all.end = Err(problem);
                        break;
                    }
                };
                assert!(transfer.produced <= transfer.consumed);
                all.payload.extend_from_slice(output.split_at(transfer.produced).0);
                all.used += transfer.consumed;
                (_, piece) = piece.split_at(transfer.consumed);
                if transfer == Transfer::default() {
                    assert!(piece.is_empty() || decoder.is_done(), "the decoder stopped before the end");
                    break;
                }
            }
        }
        all.done = decoder.is_done();
        assert!(all.end.is_err() || decoder.close() == (all.done || framing == Framing::UntilClose));
        all
    }
}

/// Checks what follows from the framing alone.
fn expected(framing: Framing, data: &[u8], whole: &Decoded) {
    match framing {
        Framing::Sized(size) => {
            let end = data.len().min(usize::try_from(size).unwrap_or(usize::MAX));
            assert_eq!((whole.payload.as_slice(), whole.used), (data.split_at(end).0, end));
            assert_eq!(whole.done, end as u64 == size);
        }
        Framing::UntilClose => assert_eq!((whole.payload.as_slice(), whole.used), (data, data.len())),
        Framing::Chunked => {
            // The last chunk alone has five bytes.
            assert!(!whole.done || whole.used >= whole.payload.len() + 5);
            assert!(whole.payload.len() <= data.len());
        }
    }
}

/// The decoder reads what the encoder writes.
fn round_trip(input: &Input<'_>) {
    let mut sent = Vec::new();
    for piece in input.cut(input.data) {
        chunk(&mut sent, piece);
    }
    sent.extend_from_slice(LAST_CHUNK);
    let decoded = Decoded::of(Framing::Chunked, input.cut(&sent), 64);
    assert!(decoded.done && decoded.end.is_ok() && decoded.payload == input.data);
    let (truncated, _) = sent.split_at(sent.len() - 1);
    let truncated = Decoded::of(Framing::Chunked, [truncated], 64);
    assert!(!truncated.done && truncated.end.is_ok());
}

/// A response's head after any interim heads, and the bytes that follow it.
pub fn http_head(bytes: &[u8]) {
    let input = Input::new(bytes);
    let data = input.inflated(MAX_HEAD + 100);
    let whole = read([data.as_slice()]);
    let parts = read(input.cut(&data));
    assert_eq!(whole, parts);
    let Ok(Some((head, rest))) = whole else { return };
    assert!((200..1000).contains(&head.status) && data.ends_with(&rest));
    let shown = format!("{head:?}");
    assert!(shown.matches("\", [").count() <= MAX_HEADERS && data.len() - rest.len() > 12);
    assert_eq!(head.framing(true), Ok(Framing::Sized(0)));
    match head.framing(false) {
        Ok(Framing::Sized(size)) if size > 0 => {
            assert_eq!(head.get("content-length").map(|text| text.trim().parse()), Some(Ok(size)));
            assert_eq!(head.get("transfer-encoding"), None, "both headers are set");
        }
        Ok(Framing::Chunked) => assert!(head.get("TRANSFER-ENCODING").is_some()),
        _ => {}
    }
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<(Head, Vec<u8>)>, HttpError> {
    let mut reader = HeadReader::default();
    let mut found = None;
    let mut after = Vec::new();
    let mut empty = true;
    for piece in pieces {
        if found.is_some() {
            after.extend_from_slice(piece);
            continue;
        }
        found = reader.push(piece)?;
        empty &= piece.is_empty();
        assert!(found.is_some() || reader.is_empty() == empty);
    }
    Ok(found.map(|head| (head, [reader.into_rest(), after].concat())))
}
