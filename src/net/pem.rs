//! Certificates and keys in PEM files.
//!
//! native-tls accepts keys as PKCS#8 only, while many guides create PKCS#1 and SEC1. On Linux native-tls is OpenSSL, so the same
//! library converts the key and compares it with its certificate.

use std::fmt;
use std::path::{Path, PathBuf};

use native_tls::{Certificate, Identity};
use openssl::asn1::Asn1Time;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;

use crate::secret::Secret;

/// The first line of an encrypted PKCS#8 key.
const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY";

/// A PEM file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PemFile {
    pub(crate) path: PathBuf,
    /// The contents. A certificate's file is secret too: it may also contain the key.
    text: Secret,
}

/// Why a PEM file cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PemError {
    /// A file cannot be parsed.
    Unusable {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: &'static str,
    },
    /// The key is encrypted, and there is no setting for its password.
    Encrypted {
        /// The key's file.
        path: PathBuf,
    },
    /// The key does not belong to the certificate.
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// OpenSSL rejected the files.
    Setup {
        /// OpenSSL's message.
        problem: String,
    },
}

impl PemFile {
    /// Takes the contents of the file at `path`.
    ///
    /// # Errors
    /// They are not text.
    pub(crate) fn new(path: PathBuf, bytes: Vec<u8>) -> Result<Self, PemError> {
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { text: Secret::new(text), path }),
            Err(_) => Err(PemError::Unusable { path, problem: "it is binary, not PEM" }),
        }
    }

    /// Returns its certificates, at least one.
    ///
    /// # Errors
    /// It has none, or one is broken.
    pub(crate) fn certificates(&self) -> Result<Vec<X509>, PemError> {
        let found = X509::stack_from_pem(self.text.expose().as_bytes()).unwrap_or_default();
        if found.is_empty() { Err(self.unusable("it contains no readable certificate")) } else { Ok(found) }
    }

    fn unusable(&self, problem: &'static str) -> PemError {
        PemError::Unusable { path: self.path.clone(), problem }
    }

    fn key(&self) -> Result<PKey<Private>, PemError> {
        // Never passes an encrypted PKCS#8 key to OpenSSL: it would try the empty password, for as many rounds as the file
        // says, which can take hours. Older encrypted keys have no rounds and are recognised by the password callback.
        let text = self.text.expose();
        let (text, encrypted) =
            text.split_once(ENCRYPTED).map_or((text, false), |(before, _)| (before, true));
        let mut asked = false;
        let key = PKey::private_key_from_pem_callback(text.as_bytes(), |_| {
            asked = true;
            Ok(0)
        });
        match key {
            Ok(key) if !asked => Ok(key),
            _ if asked || encrypted => Err(PemError::Encrypted { path: self.path.clone() }),
            _ => Err(self.unusable("it contains no readable private key")),
        }
    }
}

/// Returns the identity for TLS, and the first certificate of the file.
///
/// # Errors
/// A file cannot be used, or the key does not belong to the certificate.
pub(crate) fn identity(certificate: &PemFile, key: &PemFile) -> Result<(Identity, X509), PemError> {
    let chain = certificate.certificates()?;
    let private = key.key()?;
    let leaf = chain.into_iter().next().ok_or_else(|| certificate.unusable("it is empty"))?;
    let public = leaf.public_key().map_err(setup)?;
    if !public.public_eq(&private) {
        return Err(PemError::Mismatch { key: key.path.clone(), certificate: certificate.path.clone() });
    }
    let pkcs8 = private.private_key_to_pem_pkcs8().map_err(setup)?;
    let identity = Identity::from_pkcs8(certificate.text.expose().as_bytes(), &pkcs8).map_err(setup)?;
    Ok((identity, leaf))
}

/// Converts a certificate for native-tls.
///
/// # Errors
/// OpenSSL's.
pub(crate) fn authority(certificate: &X509) -> Result<Certificate, PemError> {
    let der = certificate.to_der().map_err(setup)?;
    Certificate::from_der(&der).map_err(setup)
}

/// Returns the expiry date of a certificate that has expired.
pub(crate) fn expired(certificate: &X509) -> Option<String> {
    let now = Asn1Time::days_from_now(0).ok()?;
    (certificate.not_after() < now).then(|| certificate.not_after().to_string())
}

/// Returns a path as text.
pub(crate) fn display(path: &Path) -> String {
    path.display().to_string()
}

fn setup(error: impl fmt::Display) -> PemError {
    PemError::Setup { problem: error.to_string() }
}
