//! OpenSSL's error texts, which are all that native-tls reports. They have not changed since OpenSSL 1.1.

/// The reason in the text if the peer's certificate was refused.
const REFUSED: &str = "certificate verify failed";

/// Returns why the peer's certificate was refused, if the error `text` of a handshake is about that.
///
/// native-tls appends the result of the verification in brackets.
pub(crate) fn verification_failure(text: &str) -> Option<&str> {
    if !text.contains(REFUSED) {
        return None;
    }
    let result = text.rsplit_once(" (").and_then(|(_, rest)| rest.strip_suffix(')'));
    Some(result.unwrap_or(REFUSED))
}

/// Whether a `reason` of [`verification_failure`] depends on the time: the certificate has expired or is not valid yet.
pub(crate) fn is_about_dates(reason: &str) -> bool {
    ["certificate has expired", "certificate is not yet valid"].contains(&reason)
}

/// Whether the error `text` of a handshake means that the peer does not speak TLS.
pub(crate) fn is_not_tls(text: &str) -> bool {
    let signs = ["wrong version number", "packet length too long", "http request", "record layer failure"];
    signs.iter().any(|sign| text.contains(sign))
}

/// Whether the error `text` of a handshake means that the peer ended the connection without an answer.
pub(crate) fn is_cut(text: &str) -> bool {
    ["unexpected EOF", "reset by peer", "Broken pipe"].iter().any(|sign| text.contains(sign))
}

/// Whether these first bytes of an answer are a record of TLS: an alert, or a handshake.
pub(crate) fn is_record(bytes: &[u8]) -> bool {
    matches!(bytes, [0x15 | 0x16, 0x03, ..])
}

/// Returns the reason in OpenSSL's `error:CODE:LIBRARY:FUNCTION:REASON:FILE:LINE:DETAIL`; the whole text if it has another form.
pub(crate) fn reason(text: &str) -> &str {
    let field = text.split(':').nth(4).filter(|_| text.starts_with("error:"));
    field.unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "error:0A000086:SSL routines:tls_post_process_server_certificate:certificate verify \
                        failed:ssl/statem/statem_clnt.c:1889: (self-signed certificate)";

    #[test]
    fn a_refused_certificate_is_known_by_its_text() {
        assert_eq!(verification_failure(TEXT), Some("self-signed certificate"));
        assert_eq!(verification_failure("certificate verify failed"), Some(REFUSED));
        assert_eq!(verification_failure("error:0A00010B:SSL routines::wrong version number:x.c:354:"), None);
    }

    #[test]
    fn the_other_kind_of_port_is_known() {
        assert!(
            is_not_tls("error:0A00010B:SSL routines::wrong version number:x.c:354:") && !is_not_tls(TEXT)
        );
        assert!(is_record(b"\x15\x03\x01\x00\x02") && !is_record(b"HTTP/1.1 400") && !is_record(b"\x15"));
    }

    #[test]
    fn the_reason_is_the_fifth_field() {
        assert_eq!(reason(TEXT), REFUSED);
        assert_eq!(
            reason("error:0A00010B:SSL routines:f:wrong version number:x.c:354:"),
            "wrong version number"
        );
        assert_eq!(reason("the handshake failed: x: y: z: w"), "the handshake failed: x: y: z: w");
    }
}
