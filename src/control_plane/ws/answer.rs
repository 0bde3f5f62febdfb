//! Classifies responses that refuse the upgrade request.

use super::error::{DialError, LinkError};

/// Returns the status in the first bytes of a response, as soon as its three digits have arrived.
///
/// The control plane sends 401 and 403 as a bare status line and then resets the connection, so the head may never be
/// complete. tungstenite then reports only an incomplete handshake.
pub(super) fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, after) = rest.split_at_checked(3)?;
    if !digits.iter().all(u8::is_ascii_digit) || after.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let status = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (status >= 100).then_some(status)
}

/// Returns the error for a status other than 101: permanent unless another attempt may get a different answer.
pub(super) fn classify(status: u16) -> DialError {
    DialError::Permanent(match status {
        401 => LinkError::Unauthorized,
        403 => LinkError::Forbidden,
        404 => LinkError::NotFound,
        200..=299 => LinkError::NotUpgraded { status },
        300..=399 => LinkError::Redirected { status },
        400..=499 if !matches!(status, 408 | 425 | 429) => LinkError::Refused { status },
        _ => return DialError::Transient(format!("the control plane answered {status}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_once_its_third_digit_is_there() {
        let answer = b"HTTP/1.1 401 Unauthorized\r\n\r\n";
        for cut in 0..=answer.len() {
            let expected = (cut >= "HTTP/1.1 401".len()).then_some(401);
            assert_eq!(status(&answer[..cut]), expected, "{cut}");
        }
    }

    #[test]
    fn other_bytes_have_no_status() {
        for head in
            ["", "HTTP/2 200", "SSH-2.0-x", "HTTP/1.1 4x1 ", "HTTP/1.1 4010", "HTTP/1.1 099 ", "HTTP/1.1  40"]
        {
            assert_eq!(status(head.as_bytes()), None, "{head}");
        }
        assert_eq!(status(b"HTTP/1.0 502\r\n"), Some(502));
    }

    #[test]
    fn statuses_are_permanent_or_transient() {
        for status in [100, 101, 199, 408, 425, 429, 500, 502, 503, 504, 599, 600, 999] {
            assert!(matches!(classify(status), DialError::Transient(_)), "{status}");
        }
        for status in [200, 204, 301, 302, 307, 308, 400, 401, 403, 404, 405, 410, 426, 499] {
            assert!(matches!(classify(status), DialError::Permanent(_)), "{status}");
        }
        assert_eq!(classify(401), DialError::Permanent(LinkError::Unauthorized));
        assert_eq!(classify(403), DialError::Permanent(LinkError::Forbidden));
        assert_eq!(classify(404), DialError::Permanent(LinkError::NotFound));
        assert_eq!(classify(302), DialError::Permanent(LinkError::Redirected { status: 302 }));
        assert_eq!(classify(200), DialError::Permanent(LinkError::NotUpgraded { status: 200 }));
    }
}
