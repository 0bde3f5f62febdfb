//! TLS with the engine, over a non-blocking socket, and the causes of its failures.
//!
//! native-tls reports a failure only as OpenSSL's text, so the causes are recognised in it. The texts have been stable since
//! OpenSSL 1.1.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use native_tls::{HandshakeError, MidHandshakeTlsStream, Protocol, TlsConnector, TlsStream};

use super::certificates::{CertificateError, Names, TlsFiles, check, setup};
use super::discovery::Files;
use super::error::one_line;
use crate::net::tls::{is_not_tls, reason, verification_failure};

/// The TLS settings for any number of connections.
#[derive(Clone)]
pub struct TlsClient(Arc<Inner>);

struct Inner {
    connector: TlsConnector,
    names: Names,
}

/// Why TLS with the engine failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The engine's certificate is signed by an unknown authority.
    #[error("its certificate is not signed by {trusted} ({reason})")]
    UnknownCa {
        /// The trusted authorities.
        trusted: String,
        /// OpenSSL's reason.
        reason: String,
    },
    /// The engine's certificate is for another host.
    #[error("its certificate is not for the host {host:?} ({reason})")]
    OtherHost {
        /// The requested host.
        host: String,
        /// OpenSSL's reason.
        reason: String,
    },
    /// A certificate has expired or is not yet valid.
    #[error("{whose} certificate is not valid now ({reason})")]
    NotNow {
        /// The owner of the certificate, such as `its`.
        whose: String,
        /// OpenSSL's reason.
        reason: String,
    },
    /// The engine's certificate is rejected for another reason.
    #[error("its certificate is not accepted ({reason})")]
    Certificate {
        /// OpenSSL's reason.
        reason: String,
    },
    /// The engine refused the client.
    #[error("it refused {what} ({reason})")]
    Refused {
        /// The refused certificate's file, or that there is none.
        what: String,
        /// OpenSSL's text for the alert.
        reason: String,
    },
    /// The peer does not speak TLS.
    #[error("it does not speak TLS on that port ({reason})")]
    NotTls {
        /// OpenSSL's reason.
        reason: String,
    },
    /// The connection ended without `close_notify`, so data may be missing.
    #[error("the connection was truncated: it ended without a TLS close_notify")]
    Truncated,
    /// Any other failure.
    #[error("TLS failed: {reason}")]
    Other {
        /// OpenSSL's reason.
        reason: String,
    },
}

impl TlsError {
    /// Returns a remedy for the operator.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::UnknownCa { .. } => "use the ca.pem of the authority that signed the engine's certificate",
            Self::OtherHost { .. } => {
                "use a host name from the engine's certificate, or add this one to the certificate"
            }
            Self::NotNow { .. } => "renew the certificate, or correct this machine's clock",
            Self::Certificate { .. } => "check the engine's certificate",
            Self::Refused { .. } => {
                "use a cert.pem and key.pem from the authority that the engine trusts (its option --tlscacert)"
            }
            Self::NotTls { .. } => {
                "use the engine's TLS port (2376 by default), or unset DOCKER_TLS_VERIFY, DOCKER_TLS and DOCKER_CERT_PATH if it \
                 has no TLS"
            }
            Self::Truncated | Self::Other { .. } => "check the engine's log",
        }
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Truncated => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        }
    }

    /// Returns the TLS error in an [`io::Error`], if any.
    pub fn within(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// The state of a handshake.
pub(super) enum Handshake<S> {
    Done(TlsStream<S>),
    /// The socket would block.
    Pending(MidHandshakeTlsStream<S>),
}

impl TlsClient {
    /// Loads the files. Also returns warnings about them, one log line each.
    pub(super) fn new(files: &TlsFiles) -> Result<(Self, Vec<String>), CertificateError> {
        let checked = check(files)?;
        let mut builder = TlsConnector::builder();
        // Like Docker's own client.
        builder.min_protocol_version(Some(Protocol::Tlsv12));
        builder.danger_accept_invalid_certs(!files.verify).danger_accept_invalid_hostnames(!files.verify);
        builder.disable_built_in_roots(files.only_ca);
        for authority in checked.authorities {
            builder.add_root_certificate(authority);
        }
        if let Some(identity) = checked.identity {
            builder.identity(identity);
        }
        let connector = builder.build().map_err(setup)?;
        Ok((Self(Arc::new(Inner { connector, names: checked.names })), checked.warnings))
    }

    /// Loads the files for a proxy with TLS: authorities in addition to the system's, and a client certificate with its key.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn for_proxy(
        ca_file: Option<&Path>,
        client: Option<&(PathBuf, PathBuf)>,
        files: Files<'_>,
    ) -> Result<Self, CertificateError> {
        let found = TlsFiles::named(ca_file, client, files)?;
        Ok(Self::new(&found)?.0)
    }

    /// Starts a handshake with `host`.
    pub(super) fn begin<S: Read + Write>(&self, host: &str, stream: S) -> io::Result<Handshake<S>> {
        self.classify(host, self.0.connector.connect(host, stream))
    }

    /// Continues a handshake once the socket is ready.
    pub(super) fn resume<S: Read + Write>(
        &self,
        host: &str,
        pending: MidHandshakeTlsStream<S>,
    ) -> io::Result<Handshake<S>> {
        self.classify(host, pending.handshake())
    }

    fn classify<S: Read + Write>(
        &self,
        host: &str,
        result: Result<TlsStream<S>, HandshakeError<S>>,
    ) -> io::Result<Handshake<S>> {
        match result {
            Ok(stream) => Ok(Handshake::Done(stream)),
            Err(HandshakeError::WouldBlock(pending)) => Ok(Handshake::Pending(pending)),
            Err(HandshakeError::Failure(error)) => Err(self.explain(host, &error.to_string()).into()),
        }
    }

    /// Returns the error for OpenSSL's text.
    pub(super) fn explain(&self, host: &str, text: &str) -> TlsError {
        self.0.names.explain(host, text)
    }
}

impl Names {
    fn explain(&self, host: &str, text: &str) -> TlsError {
        if let Some(reason) = verification_failure(text) {
            return self.rejected(host, one_line(reason));
        }
        let reason = one_line(reason(text));
        if text.contains(" alert ") {
            let what = match &self.client {
                Some(path) => format!("the client certificate {path}"),
                None => "this client, which has no certificate to show".to_owned(),
            };
            return TlsError::Refused { what, reason };
        }
        if is_not_tls(text) {
            return TlsError::NotTls { reason };
        }
        TlsError::Other { reason }
    }

    /// Returns the error for a rejected certificate of the engine.
    fn rejected(&self, host: &str, reason: String) -> TlsError {
        let lower = reason.to_ascii_lowercase();
        if lower.contains("mismatch") {
            return TlsError::OtherHost { host: host.to_owned(), reason };
        }
        if lower.contains("expired") || lower.contains("not yet valid") {
            let whose = match (&self.ca, &self.ca_expired) {
                (Some(path), Some(date)) => format!("the authority {path}'s (until {date})"),
                _ => "its".to_owned(),
            };
            return TlsError::NotNow { whose, reason };
        }
        if lower.contains("self") && lower.contains("signed")
            || lower.contains("issuer")
            || lower.contains("first certificate")
        {
            let trusted =
                self.ca.clone().unwrap_or_else(|| "an authority that this machine trusts".to_owned());
            return TlsError::UnknownCa { trusted, reason };
        }
        TlsError::Certificate { reason }
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsClient").field(&self.0.names).finish()
    }
}

/// Clones are equal; separately created clients are not.
impl PartialEq for TlsClient {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TlsClient {}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let path = |name: &str| Some(format!("/c/{name}.pem"));
        Names { ca: path("ca"), ca_expired: None, client: path("cert") }
    }

    fn verify(reason: &str) -> String {
        let text = format!(
            "error:0A000086:SSL routines:tls_post_process_server_certificate:certificate verify failed:ssl/statem/statem_clnt.c:1889: \
             ({reason})"
        );
        names().explain("build.example", &text).to_string()
    }

    #[test]
    fn each_reason_for_a_rejected_certificate_has_its_own_error() {
        let cases = [
            ("self-signed certificate in certificate chain", "not signed by /c/ca.pem"),
            ("self signed certificate", "not signed by /c/ca.pem"),
            ("unable to get local issuer certificate", "not signed by /c/ca.pem"),
            ("unable to verify the first certificate", "not signed by /c/ca.pem"),
            ("certificate has expired", "its certificate is not valid now"),
            ("certificate is not yet valid", "its certificate is not valid now"),
            ("hostname mismatch", "not for the host \"build.example\""),
            ("Hostname mismatch", "not for the host \"build.example\""),
            ("IP address mismatch", "not for the host \"build.example\""),
            ("unsuitable certificate purpose", "not accepted (unsuitable certificate purpose)"),
        ];
        for (reason, words) in cases {
            let text = verify(reason);
            assert!(text.contains(words) && text.ends_with(&format!("({reason})")), "{reason}: {text}");
        }
        let old = Names { ca_expired: Some("2001".into()), ..names() };
        let text = old.explain("h", "certificate verify failed: (certificate has expired)").to_string();
        assert!(text.contains("/c/ca.pem") && text.contains("2001"), "{text}");
        let unnamed = Names::default().explain("h", "certificate verify failed: (self-signed certificate)");
        assert!(unnamed.to_string().contains("this machine trusts"), "{unnamed}");
    }

    #[test]
    fn a_refusal_names_the_client_certificate() {
        let text = "error:0A00045C:SSL routines:ssl3_read_bytes:tlsv13 alert certificate required:ssl/record/rec_layer_s3.c:1605:SSL \
                    alert number 116";
        let error = names().explain("h", text);
        let expected = "it refused the client certificate /c/cert.pem (tlsv13 alert certificate required)";
        assert_eq!(error.to_string(), expected);
        assert!(Names::default().explain("h", text).to_string().contains("no certificate to show"));
    }

    #[test]
    fn a_peer_without_tls_and_an_unknown_text_are_recognised() {
        let text =
            "error:0A00010B:SSL routines:ssl3_get_record:wrong version number:ssl/record/ssl3_record.c:354:";
        assert!(
            matches!(names().explain("h", text), TlsError::NotTls { reason } if reason == "wrong version number")
        );
        let other = names().explain("h", "something\nelse");
        assert_eq!(other, TlsError::Other { reason: "something else".into() });
    }
}
