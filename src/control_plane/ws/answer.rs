//! What the answer to the upgrade means when it is not an upgrade.
//!
//! Pure. Owns the line between answers that another attempt can change and answers that it cannot. It must not know how
//! the bytes were read.

use super::error::LinkError;

/// What follows from a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Trying again cannot help.
    Permanent(LinkError),
    /// It may be different the next time.
    Transient(String),
}

/// The status in the first bytes of an answer, as soon as its three digits are there.
///
/// The control plane answers 401 and 403 with a bare status line and destroys the socket, so that a whole head may
/// never come: tungstenite then only says that the handshake is incomplete.
pub(super) fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, after) = rest.split_at_checked(3)?;
    let whole = digits.iter().all(u8::is_ascii_digit) && !after.first().is_some_and(u8::is_ascii_digit);
    let status = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (whole && status >= 100).then_some(status)
}

/// Judges a status that is not a successful 101.
pub(super) fn judge(status: u16) -> Verdict {
    Verdict::Permanent(match status {
        401 => LinkError::Unauthorized,
        403 => LinkError::Forbidden,
        404 => LinkError::NotFound,
        200..=299 => LinkError::NotUpgraded { status },
        300..=399 => LinkError::Redirected { status },
        400..=499 if !matches!(status, 408 | 425 | 429) => LinkError::Refused { status },
        _ => return Verdict::Transient(format!("the control plane answered {status}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_there_with_its_third_digit_on_every_prefix() {
        let answer = b"HTTP/1.1 401 Unauthorized\r\n\r\n";
        for cut in 0..=answer.len() {
            let expected = (cut >= "HTTP/1.1 401".len()).then_some(401);
            assert_eq!(status(&answer[..cut]), expected, "{cut}");
        }
    }

    #[test]
    fn what_is_no_status_line_has_no_status() {
        for head in
            ["", "HTTP/2 200", "SSH-2.0-x", "HTTP/1.1 4x1 ", "HTTP/1.1 4010", "HTTP/1.1 099 ", "HTTP/1.1  40"]
        {
            assert_eq!(status(head.as_bytes()), None, "{head}");
        }
        assert_eq!(status(b"HTTP/1.0 502\r\n"), Some(502));
    }

    #[test]
    fn only_what_another_attempt_can_change_is_transient() {
        for status in [100, 101, 199, 408, 425, 429, 500, 502, 503, 504, 599, 600, 999] {
            assert!(matches!(judge(status), Verdict::Transient(_)), "{status}");
        }
        for status in [200, 204, 301, 302, 307, 308, 400, 401, 403, 404, 405, 410, 426, 499] {
            assert!(matches!(judge(status), Verdict::Permanent(_)), "{status}");
        }
        assert_eq!(judge(401), Verdict::Permanent(LinkError::Unauthorized));
        assert_eq!(judge(403), Verdict::Permanent(LinkError::Forbidden));
        assert_eq!(judge(404), Verdict::Permanent(LinkError::NotFound));
        assert_eq!(judge(302), Verdict::Permanent(LinkError::Redirected { status: 302 }));
        assert_eq!(judge(200), Verdict::Permanent(LinkError::NotUpgraded { status: 200 }));
    }
}
