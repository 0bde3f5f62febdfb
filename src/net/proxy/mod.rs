//! The proxies that the environment names, which connections use them, and the request for a tunnel through one.

mod error;
mod exempt;
mod tunnel;

use std::ffi::OsStr;
use std::fmt;
use std::sync::Arc;

use data_encoding::BASE64;

pub(crate) use self::error::{ProxyError, ProxyProblem};
use self::exempt::Exempt;
pub(crate) use self::tunnel::tunnel;
use super::digits;
use super::url::{authority, percent_decode, redacted};
use crate::logging::value;
use crate::secret::Secret;
use crate::sys::environment::Environment;

/// What a proxy's URL must be.
const FORM: &str = "must be http://[USER:PASSWORD@]HOST[:PORT] or https://...";

/// What an entry of `NO_PROXY` must be.
const ENTRY: &str =
    "must be a host, a domain such as .example.com, an IP address, a network such as 10.0.0.0/8, or *";

/// A proxy that opens tunnels. `Display` shows its URL without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// A host name, or an IP address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Whether the connection to the proxy itself uses TLS.
    pub(crate) tls: bool,
    /// The variable that names it, for messages.
    pub(crate) variable: &'static str,
    /// The value of `Proxy-Authorization`.
    credentials: Option<Secret>,
}

/// The proxy for each kind of connection, and the hosts that are reached without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    plain: Option<Arc<Proxy>>,
    tls: Option<Arc<Proxy>>,
    exempt: Exempt,
}

impl Proxies {
    /// Reads `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`. Each may be in lower case; upper case comes first, and an empty
    /// value counts as unset. Also returns warnings about what cannot be used, one log line each.
    pub fn new(environment: &Environment) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let get = |name| Some((name, set(environment.get(name)?)?));
        let mut proxy = |given: Option<(&'static str, String)>| {
            let (variable, text) = given?;
            let proxy = Proxy::parse(variable, &text);
            let warning = |error| {
                let url = redacted(&text);
                format!("proxy not used variable={variable} url={} error={}", value(&url), value(error))
            };
            proxy.map_err(|error| warnings.push(warning(error))).ok().map(Arc::new)
        };
        let tls = proxy(get("HTTPS_PROXY").or_else(|| get("https_proxy")));
        let plain = proxy(get("HTTP_PROXY").or_else(|| get("http_proxy")));
        let all = proxy(get("ALL_PROXY").or_else(|| get("all_proxy")));
        let mut exempt = Exempt::default();
        if let Some((variable, text)) = get("NO_PROXY").or_else(|| get("no_proxy")) {
            let (found, unusable) = Exempt::parse(&text);
            exempt = found;
            warnings.extend(unusable.into_iter().map(|entry| {
                let entry = redacted(&entry);
                let (entry, error) = (value(&entry), value(ENTRY));
                format!("exception from the proxy not used variable={variable} entry={entry} error={error}")
            }));
        }
        (Self { plain: plain.or_else(|| all.clone()), tls: tls.or(all), exempt }, warnings)
    }

    /// Returns the proxy for a connection to `host` (an IP address without brackets). Loopback never has one.
    pub(crate) fn choose(&self, tls: bool, host: &str, port: u16) -> Option<&Arc<Proxy>> {
        let proxy = if tls { &self.tls } else { &self.plain };
        proxy.as_ref().filter(|_| !self.exempt.contains(host, port))
    }
}

/// Returns the trimmed value of a variable, unless it is blank.
fn set(value: &OsStr) -> Option<String> {
    let text = value.to_string_lossy().trim().to_owned();
    (!text.is_empty()).then_some(text)
}

impl Proxy {
    /// Parses a URL. Without a scheme it is `http`, without a port 80 or 443. The error says what would be valid.
    fn parse(variable: &'static str, text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err("only http:// and https:// proxies are supported"),
        };
        let (user_info, place) = match rest.rsplit_once('@') {
            Some((user_info, place)) => (Some(user_info), place),
            None => (None, rest),
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        let (host, port) = split_port(place).ok_or(FORM)?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_valid = match bare {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(is_host_byte),
        };
        if !is_valid {
            return Err(FORM);
        }
        let port = match port {
            Some(port) => digits::port(port).ok_or("must have a port from 1 to 65535, or none")?,
            None if tls => 443,
            None => 80,
        };
        let credentials = user_info.filter(|text| !text.is_empty()).map(basic);
        Ok(Self { host: bare.unwrap_or(host).to_owned(), port, tls, variable, credentials })
    }

    /// Whether the URL has a user name.
    fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", authority(&self.host, self.port))
    }
}

/// Splits `host:port`; the port is behind the last colon that is not in brackets.
fn split_port(place: &str) -> Option<(&str, Option<&str>)> {
    let end = place.rfind(']').map_or(0, |end| end + 1);
    let (before, after) = place.split_at_checked(end)?;
    if before.is_empty() {
        return Some(after.split_once(':').map_or((after, None), |(host, port)| (host, Some(port))));
    }
    match after.strip_prefix(':') {
        Some(port) => Some((before, Some(port))),
        None => after.is_empty().then_some((before, None)),
    }
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
}

/// Returns the value of `Proxy-Authorization` for a percent-encoded `USER[:PASSWORD]`.
fn basic(user_info: &str) -> Secret {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let pair = [&percent_decode(user)[..], b":", &percent_decode(password)].concat();
    Secret::new(format!("Basic {}", BASE64.encode(&pair)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> (Proxies, Vec<String>) {
        Proxies::new(&Environment::from_iter(variables.iter().copied()))
    }

    fn chosen(variables: &[(&str, &str)], tls: bool) -> Option<String> {
        let (proxies, warnings) = proxies(variables);
        assert_eq!(warnings, Vec::<String>::new());
        proxies.choose(tls, "cp.example", 443).map(|proxy| format!("{proxy} {}", proxy.variable))
    }

    #[test]
    fn each_kind_of_connection_has_its_variable() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(chosen(&[], true), None);
        let both = [("HTTPS_PROXY", "http://s:1"), ("HTTP_PROXY", "http://p:2"), ("ALL_PROXY", "http://a:3")];
        assert_eq!(chosen(&both, true), some("http://s:1 HTTPS_PROXY"));
        assert_eq!(chosen(&both, false), some("http://p:2 HTTP_PROXY"));
        for tls in [true, false] {
            assert_eq!(chosen(&both[2..], tls), some("http://a:3 ALL_PROXY"));
            assert_eq!(chosen(&[("all_proxy", "a:3")], tls), some("http://a:3 all_proxy"));
        }
        assert_eq!(chosen(&both[..1], false), None);
        let cases = [("https_proxy", "http://l:1"), ("HTTPS_PROXY", "http://u:1")];
        assert_eq!(chosen(&cases, true), some("http://u:1 HTTPS_PROXY"));
        assert_eq!(chosen(&[("HTTPS_PROXY", " "), cases[0]], true), some("http://l:1 https_proxy"));
    }

    #[test]
    fn a_url_gives_host_port_tls_and_credentials() {
        let cases = [
            ("http://h", "http://h:80", None),
            ("https://h/", "https://h:443", None),
            ("HTTP://H.example:3128/", "http://H.example:3128", None),
            ("h_1:8080", "http://h_1:8080", None),
            ("http://[::1]", "http://[::1]:80", None),
            ("http://u@[fe80::1]:3", "http://[fe80::1]:3", Some("u:")),
            ("http://us%40er:p%3Aw%2f%25@h:1", "http://h:1", Some("us@er:p:w/%")),
            ("http://u:p@w/%@h:1", "http://h:1", Some("u:p@w/%")),
            ("http://:p@h:1", "http://h:1", Some(":p")),
            ("http://@h:1", "http://h:1", None),
        ];
        for (text, shown, pair) in cases {
            let proxy = Proxy::parse("HTTP_PROXY", text).unwrap();
            assert_eq!(proxy.to_string(), shown, "{text}");
            let expected = pair.map(|pair| format!("Basic {}", BASE64.encode(pair.as_bytes())));
            assert_eq!(proxy.credentials.as_ref().map(Secret::expose), expected.as_deref(), "{text}");
            assert!(!format!("{proxy:?}").contains("Basic"), "{proxy:?}");
        }
    }

    #[test]
    fn an_unusable_url_is_warned_about_without_its_password() {
        let cases = [
            ("socks5://u:hunter2@h:1", "only http:// and https://"),
            ("http://u:hunter2@", "must be http://"),
            ("http://u:hunter2@h:0", "a port from 1"),
            ("http://h:", "a port from 1"),
            ("http://h:65536", "a port from 1"),
            ("http://h/path", "must be http://"),
            ("http://h:1/path", "a port from 1"),
            ("http://h?hunter2", "must be http://"),
            ("http://::1", "must be http://"),
            ("http://[::1", "must be http://"),
            ("http://[x]:1", "must be http://"),
            ("http://h h:1", "must be http://"),
            ("http://", "must be http://"),
        ];
        for (text, right) in cases {
            let (found, warnings) = proxies(&[("https_proxy", text), ("ALL_PROXY", "http://a:3")]);
            assert_eq!(warnings.len(), 1, "{text}");
            let warning = &warnings[0];
            assert!(warning.starts_with("proxy not used variable=https_proxy url="), "{warning}");
            assert!(warning.contains(right) && !warning.contains("hunter2"), "{text}: {warning}");
            // The rest of the variables are used.
            assert_eq!(found.choose(true, "h", 1).unwrap().to_string(), "http://a:3");
        }
    }

    #[test]
    fn an_exempt_host_has_no_proxy() {
        let (found, warnings) =
            proxies(&[("ALL_PROXY", "http://a:3"), ("no_proxy", "h, 10.0.0.0/33 http://u:hunter2@h")]);
        assert!(warnings.len() == 2 && warnings[1].contains("entry=http://...@h "), "{warnings:?}");
        assert!(warnings[0].contains("variable=no_proxy entry=10.0.0.0/33 "), "{warnings:?}");
        assert!(found.choose(true, "h", 1).is_none() && found.choose(true, "g", 1).is_some());
    }
}
