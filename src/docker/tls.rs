//! TLS to the engine: whom we trust, who we are, and what went wrong in plain words.
//!
//! Owns the handshake's settings and the reading of OpenSSL's error texts (they are all that native-tls gives; they have
//! been stable since OpenSSL 1.1). It must not wait: it is told of a socket that never blocks, and says when it would.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use native_tls::{HandshakeError, MidHandshakeTlsStream, Protocol, TlsConnector, TlsStream};

use super::certificates::{CertificateError, Names, TlsFiles, check, setup};
use super::error::one_line;

/// OpenSSL's reason when the peer's certificate is at fault.
const DISTRUST: &str = "certificate verify failed";

/// The client's side of TLS, ready to be used for any number of connections.
#[derive(Clone)]
pub struct TlsClient(Arc<Inner>);

struct Inner {
    connector: TlsConnector,
    names: Names,
}

/// Why TLS with the engine failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// Its certificate is signed by somebody unknown.
    #[error("its certificate is not signed by {trusted} ({reason})")]
    UnknownCa {
        /// Whom we trust.
        trusted: String,
        /// OpenSSL's words.
        reason: String,
    },
    /// Its certificate is for another host.
    #[error("its certificate is not for the host {host:?} ({reason})")]
    OtherHost {
        /// The host that was asked for.
        host: String,
        /// OpenSSL's words.
        reason: String,
    },
    /// A certificate is of another time.
    #[error("{whose} certificate is not valid now ({reason})")]
    NotNow {
        /// The engine's, or that of an authority.
        whose: String,
        /// OpenSSL's words.
        reason: String,
    },
    /// Its certificate is no good for another reason.
    #[error("its certificate is not accepted ({reason})")]
    Certificate {
        /// OpenSSL's words.
        reason: String,
    },
    /// It does not take us.
    #[error("it refused {what} ({reason})")]
    Refused {
        /// Our certificate's file, or that there is none.
        what: String,
        /// OpenSSL's words for the alert.
        reason: String,
    },
    /// It speaks something else.
    #[error("it does not speak TLS there ({reason})")]
    NotTls {
        /// OpenSSL's words.
        reason: String,
    },
    /// It closed the connection without the end that TLS has, so what came may not be all.
    #[error("truncated: the connection ended without the end that TLS has")]
    Truncated,
    /// Anything else.
    #[error("TLS failed: {reason}")]
    Other {
        /// OpenSSL's words.
        reason: String,
    },
}

impl TlsError {
    /// What an operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::UnknownCa { .. } => "use the ca.pem that the engine's certificate was signed with",
            Self::OtherHost { .. } => {
                "use a host name that the engine's certificate has, or renew it with this one"
            }
            Self::NotNow { .. } => "renew the certificate, or correct this machine's clock",
            Self::Certificate { .. } => "check the engine's certificate",
            Self::Refused { .. } => {
                "use a cert.pem and key.pem from the authority that the engine trusts (its --tlscacert)"
            }
            Self::NotTls { .. } => {
                "unset DOCKER_TLS_VERIFY, DOCKER_TLS and DOCKER_CERT_PATH if the engine really has no TLS, or use its TLS port \
                 (2376)"
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

    /// The TLS error inside of an [`io::Error`], if there is one.
    pub fn within(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// A handshake that is not over.
pub(super) type Pending<S> = MidHandshakeTlsStream<S>;

/// How far a handshake is.
pub(super) enum Step<S> {
    Done(TlsStream<S>),
    Wait(Pending<S>),
}

impl TlsClient {
    /// Checks the files; gives what is odd about them as lines for the log.
    pub(super) fn new(files: &TlsFiles) -> Result<(Self, Vec<String>), CertificateError> {
        let checked = check(files)?;
        let mut builder = TlsConnector::builder();
        // As Docker's own client.
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

    /// Begins a handshake with `host`.
    pub(super) fn begin<S: Read + Write>(&self, host: &str, stream: S) -> io::Result<Step<S>> {
        self.classify(host, self.0.connector.connect(host, stream))
    }

    /// Goes on with a handshake once the socket is ready.
    pub(super) fn resume<S: Read + Write>(&self, host: &str, pending: Pending<S>) -> io::Result<Step<S>> {
        self.classify(host, pending.handshake())
    }

    fn classify<S: Read + Write>(
        &self,
        host: &str,
        result: Result<TlsStream<S>, HandshakeError<S>>,
    ) -> io::Result<Step<S>> {
        match result {
            Ok(stream) => Ok(Step::Done(stream)),
            Err(HandshakeError::WouldBlock(pending)) => Ok(Step::Wait(pending)),
            Err(HandshakeError::Failure(error)) => Err(self.explain(host, &error.to_string()).into()),
        }
    }

    /// What OpenSSL's text means.
    pub(super) fn explain(&self, host: &str, text: &str) -> TlsError {
        self.0.names.explain(host, text)
    }
}

impl Names {
    fn explain(&self, host: &str, text: &str) -> TlsError {
        let reason = reason(text);
        if text.contains(DISTRUST) {
            return self.distrust(host, reason);
        }
        if text.contains(" alert ") {
            let what = match &self.client {
                Some(path) => format!("the client certificate {path}"),
                None => "this client, which has no certificate to show".to_owned(),
            };
            return TlsError::Refused { what, reason };
        }
        let foreign =
            ["wrong version number", "packet length too long", "http request", "record layer failure"];
        if foreign.iter().any(|words| text.contains(words)) {
            return TlsError::NotTls { reason };
        }
        TlsError::Other { reason }
    }

    fn distrust(&self, host: &str, reason: String) -> TlsError {
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

/// The words that mean something: the result of the verification, which native-tls puts in brackets at the end, else the
/// reason of `error:CODE:LIBRARY:FUNCTION:REASON:FILE:LINE:DETAIL`.
fn reason(text: &str) -> String {
    let verified = text.contains(DISTRUST).then(|| text.rsplit_once(" (")).flatten();
    let verified = verified.and_then(|(_, rest)| rest.strip_suffix(')'));
    let reason = text.split(':').nth(4).filter(|_| text.starts_with("error:"));
    one_line(verified.or(reason).unwrap_or(text))
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsClient").field(&self.0.names).finish()
    }
}

/// Two are the same when they were made as one.
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
    fn a_certificate_that_is_not_trusted_is_told_apart() {
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
        let nobody = Names::default().explain("h", "certificate verify failed: (self-signed certificate)");
        assert!(nobody.to_string().contains("this machine trusts"), "{nobody}");
    }

    #[test]
    fn a_refusal_names_our_certificate() {
        let text = "error:0A00045C:SSL routines:ssl3_read_bytes:tlsv13 alert certificate required:ssl/record/rec_layer_s3.c:1605:SSL \
                    alert number 116";
        let error = names().explain("h", text);
        let expected = "it refused the client certificate /c/cert.pem (tlsv13 alert certificate required)";
        assert_eq!(error.to_string(), expected);
        assert!(Names::default().explain("h", text).to_string().contains("no certificate to show"));
    }

    #[test]
    fn what_is_not_tls_and_what_is_not_known() {
        let text =
            "error:0A00010B:SSL routines:ssl3_get_record:wrong version number:ssl/record/ssl3_record.c:354:";
        assert!(
            matches!(names().explain("h", text), TlsError::NotTls { reason } if reason == "wrong version number")
        );
        let other = names().explain("h", "something\nelse");
        assert_eq!(other, TlsError::Other { reason: "something else".into() });
    }
}
