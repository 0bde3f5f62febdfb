//! The two addresses of the control plane: what is a good one, and how one is made from the other.
//!
//! Owns parsing, the derived address and percent-encoding. It must not know which setting a URL came from.

use std::net::{IpAddr, Ipv4Addr};

use http::Uri;

/// Where an existing control plane takes workers.
pub(super) const WORKER_PATH: &str = "/api/v1/selfhosted/worker/ws";
/// Longer than any real URL and far below the 64 KiB that [`Uri`] takes.
const LONGEST: usize = 4096;

/// The schemes of an address, plain first.
pub(super) type Schemes = [&'static str; 2];
/// Of the address where the workers connect.
pub(super) const WEB_SOCKET: Schemes = ["ws", "wss"];
/// Of the control plane's root.
pub(super) const HTTP: Schemes = ["http", "https"];

/// Parses a URL of one of `schemes`; the error says what would be right.
pub(super) fn parse(text: &str, schemes: Schemes) -> Result<Uri, String> {
    let [plain, secure] = schemes;
    let form = || format!("must look like {plain}://HOST[:PORT]/PATH or {secure}://...");
    if text.len() > LONGEST {
        return Err(format!("must not be longer than {LONGEST} bytes"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("must be ASCII without spaces; percent-encode what is not".into());
    }
    let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
    let scheme = schemes.into_iter().find(|s| s.eq_ignore_ascii_case(scheme)).ok_or_else(form)?;
    if rest.contains('#') {
        return Err("must not have a fragment (#...)".into());
    }
    let uri: Uri = format!("{scheme}://{rest}").parse().map_err(|_| form())?;
    check_authority(&uri).map_or(Ok(uri), Err)
}

fn check_authority(uri: &Uri) -> Option<String> {
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    if authority.contains('@') {
        return Some("must not have a user name or a password in it; the key has its own setting".into());
    }
    if host.is_empty() {
        return Some("must name a host".into());
    }
    if host.starts_with('[') && address(host).is_none() {
        return Some("must have an IPv6 address between the brackets".into());
    }
    let port_is_good = authority.len() == host.len() || uri.port_u16().is_some_and(|port| port > 0);
    (!port_is_good).then(|| "must have a port from 1 to 65535, or none".into())
}

/// An address on the same host and port, as safe as `of`: `path` under the scheme of `schemes` that matches.
pub(super) fn derive(of: &Uri, schemes: Schemes, path: &str) -> Result<Uri, String> {
    let [plain, secure] = schemes;
    let scheme = if is_plain(of) { plain } else { secure };
    let authority = of.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    parse(&format!("{scheme}://{authority}{path}"), schemes)
}

/// Whether what is sent there can be read on the way.
pub(super) fn is_plain(uri: &Uri) -> bool {
    matches!(uri.scheme_str(), Some("ws" | "http"))
}

/// Whether the host is this machine, by its name or address and without asking anybody.
pub(super) fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    host.eq_ignore_ascii_case("localhost") || address(host).is_some_and(|address| address.is_loopback())
}

fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// Adds `name=value` to the query, the value percent-encoded.
pub(super) fn with_query(uri: &Uri, name: &str, value: &str) -> String {
    let before = match uri.query() {
        None => "?",
        Some("") => "",
        Some(query) if query.ends_with('&') => "",
        Some(_) => "&",
    };
    format!("{uri}{before}{name}={}", crate::net::url::percent_encode(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::url::{percent_encode, printable};

    fn ws(text: &str) -> Uri {
        parse(text, WEB_SOCKET).unwrap()
    }

    #[test]
    fn good_urls_are_kept() {
        let longest = format!("ws://h/{}", "a".repeat(LONGEST - 7));
        for text in ["ws://h/", "wss://h:1/a?b=c", "ws://[::1]:65535/x", "ws://127.0.0.1/", &longest] {
            assert_eq!(ws(text).to_string(), text);
        }
        assert_eq!(ws("WSS://h/").to_string(), "wss://h/");
    }

    #[test]
    fn bad_urls_say_what_would_be_right() {
        let long = format!("ws://h/{}", "a".repeat(LONGEST - 6));
        let cases = [
            ("", "must look like ws://"),
            ("h:80", "must look like ws://"),
            ("http://h/", "or wss://"),
            ("ws:///x", "must"),
            ("ws://", "must"),
            ("ws://:80/", "must name a host"),
            ("ws://h:/", "must have a port"),
            ("ws://h:0/", "must have a port"),
            ("ws://h:65536/", "must have a port"),
            ("ws://h:x/", "must"),
            ("ws://::1/", "must"),
            ("ws://[::1/", "must"),
            ("ws://[x]/", "must"),
            ("ws://u@h/", "user name"),
            ("ws://u:p@h/", "user name"),
            ("ws://h/#f", "fragment"),
            ("ws://h/ä", "ASCII"),
            ("ws://h/a b", "ASCII"),
            ("ws://h/\n", "ASCII"),
            (&long, "longer than 4096"),
        ];
        for (text, right) in cases {
            let error = parse(text, WEB_SOCKET).unwrap_err();
            assert!(error.contains(right), "{text}: {error}");
        }
    }

    #[test]
    fn one_address_is_made_from_the_other() {
        let cases = [
            ("ws://h/x", "http://h/"),
            ("wss://h:444/x?q=1", "https://h:444/"),
            ("ws://[::1]:8080/x", "http://[::1]:8080/"),
        ];
        for (from, to) in cases {
            assert_eq!(derive(&ws(from), HTTP, "/").unwrap().to_string(), to);
        }
        let root = parse("https://[fe80::1]:9/base", HTTP).unwrap();
        let derived = derive(&root, WEB_SOCKET, WORKER_PATH).unwrap();
        assert_eq!(derived.to_string(), "wss://[fe80::1]:9/api/v1/selfhosted/worker/ws");
    }

    #[test]
    fn loopback_is_known_by_name_and_number() {
        for host in ["localhost", "LocalHost", "127.0.0.1", "127.9.8.7", "[::1]", "[0:0::1]"] {
            assert!(is_loopback(&ws(&format!("ws://{host}:1/"))), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "[::2]", "127.0.0.1.example", "example"] {
            assert!(!is_loopback(&ws(&format!("ws://{host}:1/"))), "{host}");
        }
    }

    #[test]
    fn the_query_is_added_to_what_is_there() {
        let cases = [
            ("ws://h/x", "ws://h/x?w=a"),
            ("ws://h/x?", "ws://h/x?w=a"),
            ("ws://h/x?q=1", "ws://h/x?q=1&w=a"),
            ("ws://h/x?q=1&", "ws://h/x?q=1&w=a"),
            ("ws://h", "ws://h/?w=a"),
        ];
        for (url, expected) in cases {
            assert_eq!(with_query(&ws(url), "w", "a"), expected);
        }
    }

    #[test]
    fn only_unreserved_bytes_are_not_encoded() {
        assert_eq!(percent_encode("aZ09-._~"), "aZ09-._~");
        assert_eq!(percent_encode("a b&c=d/ö%+"), "a%20b%26c%3Dd%2F%C3%B6%25%2B");
    }

    #[test]
    fn what_is_shown_has_no_password_and_no_query() {
        let cases = [
            ("ws://h/x", "ws://h/x"),
            ("ws://u:p@h/x?t=p", "ws://...@h/x?..."),
            ("u:p@h", "...@h"),
            ("u@p://h", "...@p://h"),
            ("ws://u:p@q@h", "ws://...@h"),
            ("ws://h#p", "ws://h?..."),
        ];
        for (text, shown) in cases {
            assert_eq!(printable(text), shown);
        }
    }
}
