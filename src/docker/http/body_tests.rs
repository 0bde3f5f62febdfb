use super::*;

const CHUNKED: &[u8] =
    b"5\r\nhello\r\n1 ;name=\"v\"\r\n,\r\n00000B;x\r\n big\r\nworld\r\n0\r\nA: b\r\nC: d\r\n\r\n";
const TEXT: &[u8] = b"hello, big\r\nworld";

/// Decodes `parts` in turn with an output of `size` bytes. Returns the payload and the unused bytes.
fn decode(framing: Framing, parts: &[&[u8]], size: usize) -> Result<(Vec<u8>, Vec<u8>, Decoder), HttpError> {
    let mut decoder = Decoder::new(framing);
    let mut payload = Vec::new();
    let mut rest = Vec::new();
    for part in parts {
        rest.extend_from_slice(part);
        loop {
            let mut output = vec![0; size];
            let transfer = decoder.decode(&rest, &mut output)?;
            payload.extend_from_slice(&output[..transfer.produced]);
            rest.drain(..transfer.consumed);
            if transfer == Transfer::default() {
                break;
            }
        }
    }
    Ok((payload, rest, decoder))
}

#[test]
fn chunks_decode_at_every_split_and_output_size() {
    let bytes = [CHUNKED, b"rest"].concat();
    for split in 0..=bytes.len() {
        for size in [1, 2, 3, 100] {
            let (first, second) = bytes.split_at(split);
            let (payload, rest, decoder) = decode(Framing::Chunked, &[first, second], size).unwrap();
            assert_eq!(payload, TEXT, "split at {split}, output of {size}");
            assert_eq!(rest, b"rest", "split at {split}, output of {size}");
            assert!(decoder.is_done());
        }
    }
}

#[test]
fn every_truncated_chunked_body_is_detected() {
    for end in 0..CHUNKED.len() {
        let (payload, _, mut decoder) = decode(Framing::Chunked, &[&CHUNKED[..end]], 100).unwrap();
        assert!(TEXT.starts_with(&payload), "{end} bytes");
        assert!(!decoder.close(), "{end} bytes");
    }
}

#[test]
fn a_sized_body_ends_at_its_size() {
    for split in 0..=TEXT.len() {
        let (first, second) = TEXT.split_at(split);
        let (payload, rest, decoder) = decode(Framing::Sized(5), &[first, second], 100).unwrap();
        assert_eq!((payload.as_slice(), rest.as_slice()), TEXT.split_at(5), "split at {split}");
        assert!(decoder.is_done());
    }
    for end in 0..5 {
        let (_, _, mut decoder) = decode(Framing::Sized(5), &[&TEXT[..end]], 100).unwrap();
        assert!(!decoder.close(), "{end} bytes");
    }
    assert!(Decoder::new(Framing::Sized(0)).is_done());
}

#[test]
fn a_body_without_a_length_ends_with_the_connection() {
    let (payload, rest, mut decoder) = decode(Framing::UntilClose, &[TEXT, TEXT], 3).unwrap();
    assert_eq!((payload, rest.len()), ([TEXT, TEXT].concat(), 0));
    assert!(!decoder.is_done());
    assert!(decoder.close() && decoder.is_done());
}

#[test]
fn malformed_chunks_are_refused() {
    let broken = |text: &[u8]| decode(Framing::Chunked, &[text], 100).unwrap_err();
    for text in
        ["x", "\r\n", " 5\r\n", "-1\r\n", "+1\r\n", "0x5\r\n", "5\n", ";a\r\n", "11112222333344445\r\n"]
    {
        assert_eq!(broken(text.as_bytes()), HttpError::ChunkSize, "{text:?}");
    }
    for text in ["1\r\nab", "1\r\na\n", "1\r\na\rx", "1\rx", "1;a\n", "0\r\n\rx", "0\r\nA\n"] {
        assert_eq!(broken(text.as_bytes()), HttpError::ChunkEnd, "{text:?}");
    }
}

#[test]
fn chunk_extensions_and_trailers_are_bounded() {
    assert!(decode(Framing::Chunked, &[b"ffffffffffffffff\r\nx"], 1).is_ok());
    let extension = |n: usize| format!("1;{}\r\nx", "a".repeat(n - 1));
    assert!(decode(Framing::Chunked, &[extension(MAX_EXTRA).as_bytes()], 1).is_ok());
    let error = decode(Framing::Chunked, &[extension(MAX_EXTRA + 1).as_bytes()], 1).unwrap_err();
    assert_eq!(error, HttpError::ChunkExtra);
    let trailer = |n: usize| format!("0\r\n{}\r\n{}\r\n\r\n", "a".repeat(n - 10), "b".repeat(10));
    let (_, _, decoder) = decode(Framing::Chunked, &[trailer(MAX_EXTRA).as_bytes()], 1).unwrap();
    assert!(decoder.is_done());
    let error = decode(Framing::Chunked, &[trailer(MAX_EXTRA + 1).as_bytes()], 1).unwrap_err();
    assert_eq!(error, HttpError::ChunkExtra);
}
