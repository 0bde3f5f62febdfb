//! The hosts of `NO_PROXY`.

use std::net::IpAddr;

use crate::net::digits;

/// The hosts that are reached without a proxy: those of a list, and loopback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Exempt(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    hosts: Hosts,
    /// `None` for every port.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    /// The addresses that have the same first bits.
    Network(IpAddr, u32),
    /// A name in lower case, and the names below it.
    Domain(String),
    /// The names below one.
    Below(String),
}

impl Exempt {
    /// Parses entries that commas or blanks separate: `*`, a host, `.suffix` or `*.suffix`, an IP address or a network, each but `*` and
    /// networks with `:port` if it is for one port only. Also returns the entries that are none of these.
    pub(super) fn parse(list: &str) -> (Self, Vec<String>) {
        let (mut entries, mut unusable) = (Vec::new(), Vec::new());
        for text in list.split([',', ' ', '\t']).filter(|text| !text.is_empty()) {
            match entry(text) {
                Some(entry) => entries.push(entry),
                None => unusable.push(text.to_owned()),
            }
        }
        (Self(entries), unusable)
    }

    /// Whether `host` is reached without a proxy. Names are not resolved, so a network only contains addresses.
    pub(super) fn contains(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        let is_loopback = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        is_loopback
            || self.0.iter().any(|entry| {
                entry.port.is_none_or(|only| only == port) && entry.hosts.contains(&host, address)
            })
    }
}

impl Hosts {
    fn contains(&self, host: &str, address: Option<IpAddr>) -> bool {
        let is_below = |domain: &str| {
            host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        };
        match self {
            Self::All => true,
            Self::Network(network, bits) => address.is_some_and(|address| shares(*network, address, *bits)),
            Self::Domain(name) => host == name || is_below(name),
            Self::Below(name) => is_below(name),
        }
    }
}

fn entry(text: &str) -> Option<Entry> {
    if text == "*" {
        return Some(Entry { hosts: Hosts::All, port: None });
    }
    if let Some((address, bits)) = text.split_once('/') {
        let address: IpAddr = unbracketed(address).parse().ok()?;
        let bits = u32::try_from(digits::number(bits)?).ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        return (bits <= longest).then_some(Entry { hosts: Hosts::Network(address, bits), port: None });
    }
    if let Some(hosts) = address(unbracketed(text)) {
        return Some(Entry { hosts, port: None });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(digits::port(port)?)),
        None => (text, None),
    };
    Some(Entry { hosts: address(unbracketed(host)).or_else(|| domain(host))?, port })
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

fn address(host: &str) -> Option<Hosts> {
    let address = host.parse::<IpAddr>().ok()?.to_canonical();
    Some(Hosts::Network(address, if address.is_ipv4() { 32 } else { 128 }))
}

fn domain(name: &str) -> Option<Hosts> {
    let below = name.strip_prefix("*.").or_else(|| name.strip_prefix('.'));
    let domain = below.unwrap_or(name).trim_end_matches('.').to_ascii_lowercase();
    let is_name = !domain.is_empty()
        && domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let hosts = if below.is_some() { Hosts::Below } else { Hosts::Domain };
    is_name.then(|| hosts(domain))
}

/// Whether two addresses are of one family and have the same first `bits` bits.
fn shares(network: IpAddr, address: IpAddr, bits: u32) -> bool {
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_exempts_the_hosts_that_it_names() {
        // The list, the hosts that are in it, and those that are not.
        let cases: [(&str, &[&str], &[&str]); 15] = [
            (
                "",
                &["localhost", "127.0.0.1", "127.9.8.7", "::1", "LocalHost."],
                &["h", "0.0.0.0", "localhost.example"],
            ),
            ("*", &["h", "1.2.3.4", "::2"], &[]),
            ("example.com", &["example.com", "a.b.Example.COM", "example.com."], &["xexample.com", "com"]),
            (".example.com", &["a.example.com"], &["example.com", "xexample.com", ".example.com"]),
            ("*.example.com", &["a.example.com"], &["example.com"]),
            ("a, b c,,\td", &["a", "b", "c", "d"], &["e"]),
            ("h:443", &["h", "x.h"], &[]),
            ("h:80", &[], &["h"]),
            ("1.2.3.4", &["1.2.3.4", "::ffff:1.2.3.4"], &["1.2.3.5", "x.1.2.3.4"]),
            ("10.0.0.0/8", &["10.255.0.1"], &["11.0.0.1", "10.example", "::a00:1"]),
            ("0.0.0.0/0", &["8.8.8.8"], &["::2", "h"]),
            ("1.2.3.4/32,1.2.3.6/31", &["1.2.3.4", "1.2.3.7"], &["1.2.3.5", "1.2.3.8"]),
            (
                "fd00::/8,[fe80::1],[::3]:443,::4",
                &["fd12::1", "fe80::1", "::3", "::4"],
                &["fe80::2", "fc00::1"],
            ),
            ("::/0", &["::2"], &["1.2.3.4"]),
            ("[::3]:80,1.2.3.4:80", &[], &["::3", "1.2.3.4"]),
        ];
        for (list, inside, outside) in cases {
            let (exempt, unusable) = Exempt::parse(list);
            assert_eq!(unusable, Vec::<String>::new(), "{list}");
            assert!(inside.iter().all(|host| exempt.contains(host, 443)), "{list}: {inside:?}");
            assert!(!outside.iter().any(|host| exempt.contains(host, 443)), "{list}: {outside:?}");
        }
    }

    #[test]
    fn an_entry_that_names_no_host_is_returned() {
        for text in
            ["10.0.0.0/33", "::/129", "h/8", "10.0.0.0/", "http://h", "h:0", "h:x", "a*b", ".", "[::1"]
        {
            let (exempt, unusable) = Exempt::parse(text);
            assert_eq!((exempt, unusable), (Exempt::default(), vec![text.to_owned()]), "{text}");
        }
    }
}
