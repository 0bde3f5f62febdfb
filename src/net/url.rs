//! URLs as text: percent-encoding, and a form that is safe to show.

/// Returns `text` with every byte percent-encoded but the unreserved ones (RFC 3986, 2.3) and those in `keep`.
pub(crate) fn percent_encode(text: &str, keep: &[u8]) -> String {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(['%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    encoded
}

/// Returns the bytes of percent-encoded `text`. A percent sign without two hexadecimal digits stays as it is.
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    while let [first, after @ ..] = rest {
        let pair = match after {
            [high, low, ..] if *first == b'%' => digit(high).zip(digit(low)),
            _ => None,
        };
        decoded.push(pair.map_or(*first, |(high, low)| high << 4 | low));
        rest = if pair.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    decoded
}

/// Returns `host:port`, with brackets around an IPv6 address.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A URL that is safe to show: without everything before an `@`, without its query, which may hold a token, and without a port that is
/// no number, as in `http://USER:PASSWORD`. If an `@` follows a `?` or `#`, either can be part of a password, and only the scheme is
/// shown.
pub(crate) fn redacted(text: &str) -> String {
    let scheme =
        text.split_once("://").map(|(scheme, _)| scheme).filter(|scheme| !scheme.contains(['@', '?', '#']));
    let (text, query) = match text.find(['?', '#']).and_then(|end| text.split_at_checked(end)) {
        Some((_, query)) if query.contains('@') => {
            return format!("{}...", scheme.map(|scheme| format!("{scheme}://")).unwrap_or_default());
        }
        Some((text, _)) => (text, "?..."),
        None => (text, ""),
    };
    let Some((scheme, rest)) = scheme.and_then(|_| text.split_once("://")) else {
        return match text.rsplit_once('@') {
            Some((_, host)) => format!("...@{host}{query}"),
            None => format!("{}{query}", without_password(text)),
        };
    };
    let (hidden, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, rest)| ("...@", rest));
    format!("{scheme}://{hidden}{}{query}", without_password(rest))
}

/// Returns `HOST[:PORT][/PATH]` without what may be a password: a port that is no number, and what is behind a second colon or an
/// encoded `@`.
fn without_password(text: &str) -> String {
    let (place, path) = text.find('/').and_then(|end| text.split_at_checked(end)).unwrap_or((text, ""));
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = |host: &str| host.ends_with(']') || !host.contains([':', '%']);
    match place.rsplit_once(':') {
        _ if place.ends_with(']') => format!("{place}{path}"),
        Some((host, port)) if is_host(host) && is_port(port) => format!("{place}{path}"),
        None if is_host(place) => format!("{place}{path}"),
        _ => {
            let shown = place.split([':', '%']).next().unwrap_or_default();
            format!("{shown}:...{path}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_unreserved_bytes_are_encoded() {
        assert_eq!(percent_encode("aZ09-._~", b""), "aZ09-._~");
        assert_eq!(percent_encode("a b&c=d/ö%+", b""), "a%20b%26c%3Dd%2F%C3%B6%25%2B");
        assert_eq!(percent_encode("h:5000/a b", b"/:"), "h:5000/a%20b");
    }

    #[test]
    fn decoding_reverses_encoding_and_keeps_what_is_not_encoded() {
        let text = "a b&c=d/ö%+\u{0}";
        assert_eq!(percent_decode(&percent_encode(text, b"")), text.as_bytes());
        for (text, bytes) in [("%4a%4A", "JJ"), ("%", "%"), ("%4", "%4"), ("%4x%", "%4x%"), ("%%34", "%4")] {
            assert_eq!(percent_decode(text), bytes.as_bytes(), "{text}");
        }
    }

    #[test]
    fn only_ipv6_addresses_get_brackets() {
        assert_eq!(authority("h", 1), "h:1");
        assert_eq!(authority("::1", 1), "[::1]:1");
    }

    #[test]
    fn a_redacted_url_has_no_password_and_no_query() {
        let cases = [
            ("ws://h/x", "ws://h/x"),
            ("ws://u:p@h/x?t=p", "ws://...@h/x?..."),
            ("u:p@h", "...@h"),
            ("u@p://h", "...@p://h"),
            ("ws://u:p@q@h", "ws://...@h"),
            ("ws://h#p", "ws://h?..."),
            ("http://u:p?q@h", "http://..."),
            ("http://u:p#q@h/?p", "http://..."),
            ("u:p?@h", "..."),
            ("http://u:p", "http://u:..."),
            ("http://u:p/1", "http://u:.../1"),
            ("ws://[::1]/x", "ws://[::1]/x"),
            ("ws://[::1]:1/p:q", "ws://[::1]:1/p:q"),
            ("unix:///a:b", "unix:///a:b"),
            ("u:p?x://@h", "..."),
            ("u:p", "u:..."),
            ("u:p/1", "u:.../1"),
            ("h:1/x", "h:1/x"),
            ("http://u:p:8080/x", "http://u:.../x"),
            ("http://u:p%40h:80", "http://u:..."),
            ("http://u%3Ap%40h:1", "http://u:..."),
            ("http://u:p@h%2F:1", "http://...@h:..."),
            ("http://[fe80::1%25eth0]:1/x", "http://[fe80::1%25eth0]:1/x"),
        ];
        for (text, shown) in cases {
            assert_eq!(redacted(text), shown);
        }
    }
}
