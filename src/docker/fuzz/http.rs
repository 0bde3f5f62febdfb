//! HTTP as it comes from a socket: heads and bodies, cut anywhere.
//!
//! Owns the comparison of the pieces with the whole.

use crate::docker::http::HttpError;
use crate::docker::http::body::{Decoder, Framing, Step};
use crate::docker::http::head::{Head, HeadReader, MAX_HEAD, MAX_HEADERS};
use crate::docker::http::request::{LAST_CHUNK, chunk};
use crate::fuzz::Input;

/// A body's framing: `c` in the steering is chunked, `u` until the close, and anything else a size.
pub fn http_body(bytes: &[u8]) {
    let input = Input::new(bytes);
    let framing = match input.knob(0) {
        b'c' => Framing::Chunked,
        b'u' => Framing::UntilClose,
        size => Framing::Sized(u64::from(size)),
    };
    let whole = Decoded::of(framing, [input.data], input.data.len() + 1);
    let parts = Decoded::of(framing, input.cut(input.data), usize::from(input.knob(1)) + 1);
    assert_eq!(whole.end, parts.end);
    if whole.end.is_ok() {
        assert_eq!((&whole.payload, whole.used, whole.done), (&parts.payload, parts.used, parts.done));
    }
    // What came before bytes that are wrong may have been given or not.
    assert!(parts.payload.starts_with(&whole.payload));
    expected(framing, input.data, &whole);
    there_and_back(&input);
}

struct Decoded {
    payload: Vec<u8>,
    used: usize,
    done: bool,
    end: Result<(), HttpError>,
}

impl Decoded {
    /// Decodes the pieces through an output of `room` bytes.
    fn of<'a>(framing: Framing, pieces: impl IntoIterator<Item = &'a [u8]>, room: usize) -> Self {
        let (mut decoder, mut output) = (Decoder::new(framing), vec![0; room]);
        let mut all = Self { payload: Vec::new(), used: 0, done: false, end: Ok(()) };
        for mut piece in pieces {
            while all.end.is_ok() {
                let step = match decoder.decode(piece, &mut output) {
                    Ok(step) => step,
                    Err(problem) => {
                        all.end = Err(problem);
                        break;
                    }
                };
                assert!(step.consumed <= piece.len() && step.produced <= room.min(step.consumed));
                all.payload.extend_from_slice(output.get(..step.produced).unwrap_or_default());
                all.used += step.consumed;
                piece = piece.get(step.consumed..).unwrap_or_default();
                if step == Step::default() {
                    assert!(piece.is_empty() || decoder.is_done(), "it takes no more before its end");
                    break;
                }
            }
        }
        all.done = decoder.is_done();
        assert!(all.end.is_err() || decoder.close() == (all.done || framing == Framing::UntilClose));
        all
    }
}

/// What follows from the framing alone.
fn expected(framing: Framing, data: &[u8], whole: &Decoded) {
    match framing {
        Framing::Sized(size) => {
            let end = data.len().min(usize::try_from(size).unwrap_or(usize::MAX));
            assert_eq!((whole.payload.as_slice(), whole.used), (data.get(..end).unwrap_or_default(), end));
            assert_eq!(whole.done, end as u64 == size);
        }
        Framing::UntilClose => assert_eq!((whole.payload.as_slice(), whole.used), (data, data.len())),
        Framing::Chunked => {
            // Each chunk costs its size, four bytes of line ends, and three more for the last.
            assert!(!whole.done || whole.used >= whole.payload.len() + 5);
            assert!(whole.payload.len() <= data.len());
        }
    }
}

/// What we send in chunks, our own decoder takes apart.
fn there_and_back(input: &Input<'_>) {
    let mut sent = Vec::new();
    for piece in input.cut(input.data) {
        chunk(&mut sent, piece);
    }
    sent.extend_from_slice(LAST_CHUNK);
    let cut = sent.len() - 1;
    let back = Decoded::of(Framing::Chunked, input.cut(&sent), 64);
    assert!(back.done && back.end.is_ok() && back.payload == input.data);
    let early = Decoded::of(Framing::Chunked, sent.get(..cut), 64);
    assert!(!early.done && early.end.is_ok());
}

/// A response's head, over interim ones, and what follows it.
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
            assert_eq!(head.get("transfer-encoding"), None, "both are said");
        }
        Ok(Framing::Chunked) => assert!(head.get("TRANSFER-ENCODING").is_some()),
        _ => {}
    }
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<(Head, Vec<u8>)>, HttpError> {
    let (mut reader, mut found, mut after) = (HeadReader::default(), None, Vec::new());
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
