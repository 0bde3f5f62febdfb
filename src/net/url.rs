//! URLs as text: percent-encoding, and a form that is safe to show.

/// Percent-encodes every byte but the unreserved ones (RFC 3986, 2.3).
pub(crate) fn percent_encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A URL as it may be shown: without what stands before an `@`, and without its query, which may hold a token.
pub(crate) fn printable(text: &str) -> String {
    let (text, query) = text.split_once(['?', '#']).map_or((text, ""), |(text, _)| (text, "?..."));
    match (text.rsplit_once('@'), text.split_once("://")) {
        (Some((_, host)), Some((scheme, _))) if !scheme.contains('@') => {
            format!("{scheme}://...@{host}{query}")
        }
        (Some((_, host)), _) => format!("...@{host}{query}"),
        (None, _) => format!("{text}{query}"),
    }
}
