use super::*;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 5\r\n\r\n";

fn read(bytes: &[u8]) -> Result<Option<Head>, HttpError> {
    HeadReader::default().push(bytes)
}

fn framing(headers: &str) -> Result<Framing, HttpError> {
    read(format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes()).unwrap().unwrap().framing(false)
}

#[test]
fn a_head_decodes_at_every_split() {
    let bytes = [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 x\r\nA: b\r\n\r\n", HEAD, b"hello"].concat();
    let whole = bytes.len() - 5;
    for split in 0..=bytes.len() {
        let (first, second) = bytes.split_at(split);
        let mut reader = HeadReader::default();
        let early = reader.push(first).unwrap();
        assert_eq!(early.is_some(), split >= whole, "split at {split}");
        let rest = match early {
            Some(_) => [reader.into_rest(), second.to_vec()].concat(),
            None => {
                let head = reader.push(second).unwrap().unwrap();
                assert_eq!((head.status, head.get("api-version")), (200, Some("1.41")), "split at {split}");
                reader.into_rest()
            }
        };
        assert_eq!(rest, b"hello", "split at {split}");
    }
}

#[test]
fn a_truncated_head_is_incomplete() {
    for end in 0..HEAD.len() {
        assert_eq!(read(&HEAD[..end]), Ok(None), "{end} bytes");
    }
}

#[test]
fn malformed_heads_are_refused() {
    for bad in [
        "SSH-2.0-x\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA b\r\n\r\n",
        "\x16\x03\x01",
    ] {
        assert!(matches!(read(bad.as_bytes()), Err(HttpError::Head(_))), "{bad:?}");
    }
    assert_eq!(read(b"HTTP/1.1 101 Switching\r\n\r\n"), Err(HttpError::Switched));
}

#[test]
fn heads_are_bounded() {
    let sized = |size: usize| {
        let start = "HTTP/1.1 200 OK\r\nA: ";
        let end = "\r\n\r\n";
        format!("{start}{}{end}", "x".repeat(size - start.len() - end.len()))
    };
    assert!(read(sized(MAX_HEAD).as_bytes()).unwrap().is_some());
    assert_eq!(read(sized(MAX_HEAD + 1).as_bytes()), Err(HttpError::HeadTooLong));
    let endless = "x".repeat(MAX_HEAD);
    assert_eq!(read(format!("HTTP/1.1 200 {endless}").as_bytes()), Err(HttpError::HeadTooLong));

    let counted = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert!(read(counted(MAX_HEADERS).as_bytes()).unwrap().is_some());
    assert_eq!(read(counted(MAX_HEADERS + 1).as_bytes()), Err(HttpError::TooManyHeaders));
}

#[test]
fn interim_heads_are_bounded() {
    let after = |count: usize| [b"HTTP/1.1 100 Continue\r\n\r\n".repeat(count), HEAD.to_vec()].concat();
    assert_eq!(read(&after(MAX_INTERIM)).unwrap().unwrap().status, 200);
    assert_eq!(read(&after(MAX_INTERIM + 1)), Err(HttpError::TooManyInterim));
}

#[test]
fn framing_follows_the_headers() {
    assert_eq!(framing(""), Ok(Framing::UntilClose));
    assert_eq!(framing("Content-Length: 12\r\n"), Ok(Framing::Sized(12)));
    assert_eq!(framing("Content-Length: 12\r\ncontent-length: 12\r\n"), Ok(Framing::Sized(12)));
    assert_eq!(framing("transfer-encoding: Chunked\r\n"), Ok(Framing::Chunked));
    assert_eq!(framing("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), Ok(Framing::Chunked));
    for bad in ["", "+1", "-1", "1,1", "1 1", "0x1", "99999999999999999999"] {
        assert_eq!(framing(&format!("Content-Length: {bad}\r\n")), Err(HttpError::Length), "{bad}");
    }
    assert_eq!(framing("Content-Length: 1\r\nContent-Length: 2\r\n"), Err(HttpError::Length));
    for bad in ["gzip", "gzip, chunked", "identity", ""] {
        assert_eq!(framing(&format!("Transfer-Encoding: {bad}\r\n")), Err(HttpError::Encoding), "{bad}");
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(framing(twice), Err(HttpError::Encoding));
}

#[test]
fn some_responses_have_no_body_despite_content_length() {
    let head = |status: u16| {
        let text = format!("HTTP/1.1 {status} x\r\nContent-Length: 9\r\n\r\n");
        read(text.as_bytes()).unwrap().unwrap()
    };
    assert_eq!(head(204).framing(false), Ok(Framing::Sized(0)));
    assert_eq!(head(304).framing(false), Ok(Framing::Sized(0)));
    assert_eq!(head(200).framing(true), Ok(Framing::Sized(0)));
    assert_eq!(head(200).framing(false), Ok(Framing::Sized(9)));
}
