//! Whom we take for the control plane: the one place where TLS to it is made, for the WebSocket and for REST.
//!
//! Owns the trust (the system's authorities and those in `SSL_CERT_FILE` and `SSL_CERT_DIR`) and what a broken one looks
//! like. It must not know what is sent.

use native_tls::TlsConnector;

/// OpenSSL's reason when the peer's certificate is at fault.
const DISTRUST: &str = "certificate verify failed";

/// A fresh one for each connection: the files of trusted certificates may have changed.
pub(crate) fn connector() -> Result<TlsConnector, native_tls::Error> {
    TlsConnector::new()
}

/// What is wrong with the peer's certificate, if that is what the error of a handshake is about. OpenSSL's text for it
/// has been the same since 0.9; native-tls puts the result of the verification behind it, in brackets.
pub(crate) fn distrust(error: &str) -> Option<String> {
    if !error.contains(DISTRUST) {
        return None;
    }
    let result = error.rsplit_once(" (").and_then(|(_, rest)| rest.strip_suffix(')'));
    Some(result.unwrap_or(DISTRUST).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_certificate_is_distrusted() {
        let text = "error:0A000086:SSL routines:tls_post_process_server_certificate:certificate verify failed:ssl/statem.c:1889: \
                    (self-signed certificate)";
        assert_eq!(distrust(text).unwrap(), "self-signed certificate");
        assert_eq!(distrust("unexpected EOF"), None);
    }
}
