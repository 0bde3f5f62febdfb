//! The two URLs of the control plane: which are valid, and how one is derived from the other.

use std::net::{IpAddr, Ipv4Addr};

use http::Uri;

/// The path at which the control plane accepts workers.
pub(super) const WORKER_PATH: &str = "/api/v1/selfhosted/worker/ws";
/// The length limit of a URL, in bytes; far below the 64 KiB limit of [`Uri`].
const LONGEST: usize = 4096;

/// The WebSocket URL and the root URL of the public Oz control plane. Neither can be derived from the other.
pub(super) const PUBLIC_WEB_SOCKET: &str = "wss://oz.warp.dev/api/v1/selfhosted/worker/ws";
pub(super) const PUBLIC_ROOT: &str = "https://app.warp.dev";
/// The hosts in them.
const PUBLIC_HOSTS: [&str; 2] = ["oz.warp.dev", "app.warp.dev"];

/// The schemes of the WebSocket URL, the unencrypted one first.
pub(super) const WEB_SOCKET: [&str; 2] = ["ws", "wss"];
/// The schemes of the root URL, the unencrypted one first.
pub(super) const HTTP: [&str; 2] = ["http", "https"];

/// Parses a URL of one of `schemes`. The error says what would be valid, as `must ...`.
pub(super) fn parse(text: &str, schemes: [&'static str; 2]) -> Result<Uri, String> {
    let [plain, secure] = schemes;
    let form = || format!("must look like {plain}://HOST[:PORT]/PATH or {secure}://...");
    if text.len() > LONGEST {
        return Err(format!("must not be longer than {LONGEST} bytes"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("must be ASCII without spaces; percent-encode other characters".into());
    }
    let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
    let scheme = schemes.into_iter().find(|s| s.eq_ignore_ascii_case(scheme)).ok_or_else(form)?;
    if rest.contains('#') {
        return Err("must not have a fragment (#...)".into());
    }
    let uri: Uri = format!("{scheme}://{rest}").parse().map_err(|_| form())?;
    check_authority(&uri)?;
    Ok(uri)
}

fn check_authority(uri: &Uri) -> Result<(), String> {
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    if authority.contains('@') {
        return Err("must not contain a user name or password; the API key has its own setting".into());
    }
    if host.is_empty() {
        return Err("must name a host".into());
    }
    if host.starts_with('[') && address(host).is_none() {
        return Err("must have an IPv6 address between the brackets".into());
    }
    if authority.len() != host.len() && uri.port_u16().is_none_or(|port| port == 0) {
        return Err("must have a port from 1 to 65535, or none".into());
    }
    Ok(())
}

/// The URL of `path` on the host and port of `of`, with the one of `schemes` that is encrypted if `of` is.
pub(super) fn derive(of: &Uri, schemes: [&'static str; 2], path: &str) -> Result<Uri, String> {
    let [plain, secure] = schemes;
    let scheme = if is_plain(of) { plain } else { secure };
    let authority = of.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    parse(&format!("{scheme}://{authority}{path}"), schemes)
}

/// Whether the host is one of the public control plane's.
pub(super) fn is_public(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_end_matches('.');
    PUBLIC_HOSTS.iter().any(|known| known.eq_ignore_ascii_case(host))
}

/// Whether the connection is not encrypted.
pub(super) fn is_plain(uri: &Uri) -> bool {
    matches!(uri.scheme_str(), Some("ws" | "http"))
}

/// Whether the host is `localhost` or a loopback address. Names are not resolved.
pub(super) fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    host.eq_ignore_ascii_case("localhost") || address(host).is_some_and(|address| address.is_loopback())
}

/// The IP address in the host of a URL; IPv6 is in brackets.
fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// The URL with `name=value` added to its query, the value percent-encoded.
pub(super) fn with_query(uri: &Uri, name: &str, value: &str) -> String {
    let before = match uri.query() {
        None => "?",
        Some("") => "",
        Some(query) if query.ends_with('&') => "",
        Some(_) => "&",
    };
    format!("{uri}{before}{name}={}", crate::net::url::percent_encode(value, b""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ws(text: &str) -> Uri {
        parse(text, WEB_SOCKET).unwrap()
    }

    #[test]
    fn a_valid_url_stays_as_it_is() {
        let longest = format!("ws://h/{}", "a".repeat(LONGEST - 7));
        for text in ["ws://h/", "wss://h:1/a?b=c", "ws://[::1]:65535/x", "ws://127.0.0.1/", &longest] {
            assert_eq!(ws(text).to_string(), text);
        }
        assert_eq!(ws("WSS://h/").to_string(), "wss://h/");
    }

    #[test]
    fn an_invalid_url_is_an_error_that_says_what_is_valid() {
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
    fn a_url_is_derived_with_the_same_host_port_and_encryption() {
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
    fn loopback_is_recognised_by_name_and_address() {
        for host in ["localhost", "LocalHost", "127.0.0.1", "127.9.8.7", "[::1]", "[0:0::1]"] {
            assert!(is_loopback(&ws(&format!("ws://{host}:1/"))), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "[::2]", "127.0.0.1.example", "example"] {
            assert!(!is_loopback(&ws(&format!("ws://{host}:1/"))), "{host}");
        }
    }

    #[test]
    fn a_parameter_is_added_to_an_existing_query() {
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
}
