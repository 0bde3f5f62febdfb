//! The little of HTTP that the monitoring pages need: the head of a request, and one answer.

use httparse::{EMPTY_HEADER, Request, Status};

/// The most bytes of a request's head.
pub(super) const MAX_HEAD: usize = 8 * 1024;
/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// A request without its body, which is ignored.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The path without the query.
    pub(super) path: String,
    /// Whether only the head of the answer is wanted.
    pub(super) head_only: bool,
    /// The header `Host` without its port; empty if absent.
    pub(super) host: String,
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The beginning of a head.
    Partial,
    Request(Asked),
    /// No request that is answered with a page.
    Refused(Answer),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    /// Returns an answer of one line.
    pub(super) fn line(status: u16, text: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{text}\n") }
    }

    /// Returns the bytes to send. The connection is to be closed after them.
    pub(super) fn encode(&self, head_only: bool) -> Vec<u8> {
        let Self { status, content_type, body } = self;
        let reason = match status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            431 => "Request Header Fields Too Large",
            _ => "Service Unavailable",
        };
        let allow = if *status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let mut text = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            body.len()
        );
        if !head_only {
            text.push_str(body);
        }
        text.into_bytes()
    }
}

/// Parses the bytes that a client has sent.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) if bytes.len() >= MAX_HEAD => {
            return Parsed::Refused(Answer::line(431, "the request is too long"));
        }
        Ok(Status::Partial) => return Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Refused(Answer::line(431, "the request has too many headers"));
        }
        Err(_) => return Parsed::Refused(Answer::line(400, "this is no HTTP request")),
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Parsed::Refused(Answer::line(405, "only GET and HEAD are allowed")),
    };
    let path = request.path.unwrap_or_default();
    let path = path.split(['?', '#']).next().unwrap_or_default().to_owned();
    let host = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
    let host = host.map(|header| String::from_utf8_lossy(header.value)).unwrap_or_default();
    Parsed::Request(Asked { path, head_only, host: without_port(&host).to_owned() })
}

/// Returns the host of `host[:port]`, without the brackets of an IPv6 address.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_parsed_once_it_is_complete() {
        let head = "GET /metrics?x=1 HTTP/1.1\r\nHost: [::1]:9464\r\nAccept: */*\r\n\r\nbody";
        let end = head.find("body").unwrap();
        for length in 0..end {
            assert_eq!(parse(&head.as_bytes()[..length]), Parsed::Partial, "{length}");
        }
        let asked = Asked { path: "/metrics".to_owned(), head_only: false, host: "::1".to_owned() };
        assert_eq!(parse(head.as_bytes()), Parsed::Request(asked));
        let Parsed::Request(asked) = parse(b"HEAD / HTTP/1.0\r\n\r\n") else { panic!() };
        assert!(asked.head_only && asked.host.is_empty());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let status = |bytes: &[u8]| match parse(bytes) {
            Parsed::Refused(answer) => answer.status,
            other => panic!("{other:?}"),
        };
        assert_eq!(status(b"POST /metrics HTTP/1.1\r\nContent-Length: 99999\r\n\r\n"), 405);
        assert_eq!(status(b"\x16\x03\x01\x02\x00"), 400, "TLS");
        assert_eq!(status(b"GET / HTTP/9.9\r\n\r\n"), 400);
        assert_eq!(status(b"\x00\x00\x00\x00"), 400);
        let long = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(MAX_HEAD));
        assert_eq!(status(long.as_bytes()), 431);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: a\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(status(many.as_bytes()), 431);
    }

    #[test]
    fn an_answer_says_its_length_and_closes() {
        let answer = Answer::line(503, "no engine");
        let text = String::from_utf8(answer.encode(false)).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
        assert!(
            text.contains("\r\nContent-Length: 10\r\n") && text.ends_with("\r\n\r\nno engine\n"),
            "{text}"
        );
        let head = String::from_utf8(answer.encode(true)).unwrap();
        assert!(head.contains("\r\nContent-Length: 10\r\n") && head.ends_with("Connection: close\r\n\r\n"));
        assert!(
            String::from_utf8(Answer::line(405, "").encode(false))
                .unwrap()
                .contains("\r\nAllow: GET, HEAD\r\n")
        );
    }
}
