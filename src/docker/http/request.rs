//! Encodes a request's head, and chunks of its body.

use super::HttpError;

/// The end of a chunked body.
pub(in crate::docker) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The framing of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::docker) enum Length {
    /// No body and no length header, for methods without a body.
    None,
    Known(usize),
    Chunked,
}

/// Returns the request's head. `target` must be encoded. A header value with a control character is an error.
pub(in crate::docker) fn head<'a>(
    method: &str,
    target: &str,
    host: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    length: Length,
) -> Result<Vec<u8>, HttpError> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    head.push_str(concat!("User-Agent: ", env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"), "\r\n"));
    for (name, value) in headers {
        if value.chars().any(char::is_control) {
            return Err(HttpError::HeaderValue);
        }
        for part in [name, ": ", value, "\r\n"] {
            head.push_str(part);
        }
    }
    match length {
        Length::None => {}
        Length::Known(bytes) => head.push_str(&format!("Content-Length: {bytes}\r\n")),
        Length::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
    }
    head.push_str("\r\n");
    Ok(head.into_bytes())
}

/// Appends `data` to `out` as one chunk. Empty data is skipped: it would be the last chunk.
pub(in crate::docker) fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: Length) -> String {
        let head = head("PUT", "/v1.41/x?a=b", "docker", [("X-A", "b c")], length).unwrap();
        String::from_utf8(head).unwrap()
    }

    #[test]
    fn a_head_is_encoded() {
        let start = "PUT /v1.41/x?a=b HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nUser-Agent: ";
        let head = text(Length::None);
        assert!(head.starts_with(start), "{head}");
        assert!(head.ends_with("\r\nX-A: b c\r\n\r\n"), "{head}");
        assert!(text(Length::Known(0)).ends_with("\r\nContent-Length: 0\r\n\r\n"));
        assert!(text(Length::Chunked).ends_with("\r\nTransfer-Encoding: chunked\r\n\r\n"));
    }

    #[test]
    fn a_value_cannot_add_a_header() {
        for value in ["a\r\nX: y", "a\n", "\0", "\u{7f}"] {
            assert_eq!(head("GET", "/", "h", [("X", value)], Length::None), Err(HttpError::HeaderValue));
        }
    }

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        let mut out = Vec::new();
        chunk(&mut out, &[b'x'; 26]);
        chunk(&mut out, b"");
        chunk(&mut out, b"y");
        assert_eq!(out, b"1a\r\nxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n1\r\ny\r\n");
    }
}
