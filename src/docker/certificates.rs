//! The files that TLS to the engine needs: which there must be, and whether they belong together.
//!
//! Owns `ca.pem`, `cert.pem` and `key.pem`, the kinds of keys and what is said of each that cannot be used. Pure but for
//! OpenSSL's arithmetic and the clock for expiry dates. It must not know connections.
//!
//! native-tls takes a key only as PKCS#8, while Docker's own guides make PKCS#1 and SEC1. On this platform native-tls is
//! OpenSSL, so the same library turns one into the other, and compares the key with its certificate.

use std::fmt;
use std::path::{Path, PathBuf};

use native_tls::{Certificate, Identity};
use openssl::asn1::Asn1Time;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;

use super::discovery::Files;
use crate::logging::value;
use crate::secret::Secret;

/// How a key begins that needs a password.
const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY";

/// A file and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PemFile {
    pub(super) path: PathBuf,
    /// A key is one; a certificate is not, but may share its file with one.
    text: Secret,
}

/// What TLS was given. By default: encrypt, trust anybody, be nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    /// Whether the engine must prove who it is.
    pub(super) verify: bool,
    /// Trust the CA of the file and no other; a context does so, the variables add it to those of the system.
    pub(super) only_ca: bool,
    pub(super) ca: Option<PemFile>,
    /// Our certificate and its key.
    pub(super) client: Option<(PemFile, PemFile)>,
}

/// A file for TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file that must be there is not.
    #[error("{path} is missing, which TLS to the docker engine needs{why}; see DOCKER_CERT_PATH")]
    Missing {
        /// Which.
        path: String,
        /// Why it is needed.
        why: &'static str,
    },
    /// A file that is there cannot be read.
    #[error("{path} cannot be used for TLS to the docker engine: {problem}")]
    Unreadable {
        /// Which.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The key needs a password, for which there is no place.
    #[error(
        "the key {path} is encrypted, which docker does not support either; decrypt it with `openssl pkey -in {path} -out NEW`"
    )]
    Encrypted {
        /// Which.
        path: String,
    },
    /// The key is not that of the certificate.
    #[error(
        "the key {key} does not belong to the certificate {certificate}; use the pair that was made together"
    )]
    Mismatch {
        /// The key's file.
        key: String,
        /// The certificate's file.
        certificate: String,
    },
    /// TLS itself did not take them.
    #[error("TLS to the docker engine cannot be set up: {problem}")]
    Setup {
        /// OpenSSL's words.
        problem: String,
    },
}

impl TlsFiles {
    /// No files: whoever this machine trusts may be the engine, as with any web site.
    pub(super) fn verifying() -> Self {
        Self { verify: true, ..Self::default() }
    }

    /// The folder that the variables name. A certificate authority is needed to verify; without that, the only reason to
    /// name a folder (`named`) is the client's certificate.
    pub(super) fn of_folder(
        dir: &Path,
        files: Files<'_>,
        verify: bool,
        named: bool,
    ) -> Result<Self, CertificateError> {
        let mut found = Self { verify, ..Self::read(dir, files)? };
        if verify && found.ca.is_none() {
            let why = " to verify it (DOCKER_TLS_VERIFY is set)";
            return Err(CertificateError::Missing { path: shown(&dir.join("ca.pem")), why });
        }
        if named && !verify && found.client.is_none() {
            return Err(CertificateError::Missing { path: shown(&dir.join("cert.pem")), why: "" });
        }
        if !verify {
            found.ca = None;
        }
        Ok(found)
    }

    /// The folder of a context, where each file is optional.
    pub(super) fn of_context(dir: &Path, files: Files<'_>, verify: bool) -> Result<Self, CertificateError> {
        let found = Self::read(dir, files)?;
        Ok(Self { verify, only_ca: found.ca.is_some(), ..found })
    }

    /// Whether there was no file at all.
    pub(super) fn is_empty(&self) -> bool {
        self.ca.is_none() && self.client.is_none()
    }

    fn read(dir: &Path, files: Files<'_>) -> Result<Self, CertificateError> {
        let load = |name| PemFile::load(dir.join(name), files);
        let half = |name| {
            let why = ", since the other half of the client's certificate is there";
            Err(CertificateError::Missing { path: shown(&dir.join(name)), why })
        };
        let client = match (load("cert.pem")?, load("key.pem")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return half("key.pem"),
            (None, Some(_)) => return half("cert.pem"),
        };
        Ok(Self { ca: load("ca.pem")?, client, ..Self::default() })
    }
}

impl PemFile {
    fn load(path: PathBuf, files: Files<'_>) -> Result<Option<Self>, CertificateError> {
        let unreadable = |problem| CertificateError::Unreadable { path: shown(&path), problem };
        let Some(bytes) = files.load(&path).map_err(unreadable)? else { return Ok(None) };
        let text =
            String::from_utf8(bytes).map_err(|_| unreadable("it is not PEM, but binary".to_owned()))?;
        Ok(Some(Self { text: Secret::new(text), path }))
    }

    fn unusable(&self, problem: &str) -> CertificateError {
        CertificateError::Unreadable { path: shown(&self.path), problem: problem.to_owned() }
    }

    fn certificates(&self) -> Result<Vec<X509>, CertificateError> {
        let found = X509::stack_from_pem(self.text.expose().as_bytes()).unwrap_or_default();
        if found.is_empty() {
            Err(self.unusable("there is no certificate in it that can be read"))
        } else {
            Ok(found)
        }
    }

    fn key(&self) -> Result<PKey<Private>, CertificateError> {
        // OpenSSL would try the empty password, for as many rounds as the file says: that can take for ever. So it gets
        // what comes before. A key of the older kind has no rounds, and no other mark that is as plain.
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
            _ if asked || encrypted => Err(CertificateError::Encrypted { path: shown(&self.path) }),
            _ => Err(self.unusable("there is no private key in it that can be read")),
        }
    }
}

/// Certificates that were read and fit together.
pub(super) struct Checked {
    pub(super) authorities: Vec<Certificate>,
    pub(super) identity: Option<Identity>,
    /// What is said of the files when the other side objects.
    pub(super) names: Names,
    pub(super) warnings: Vec<String>,
}

/// The files' names with what is odd about them, for messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// `ca.pem`'s path.
    pub(super) ca: Option<String>,
    /// Since when the authority's certificate is of no use.
    pub(super) ca_expired: Option<String>,
    /// `cert.pem`'s path, and its expiry when that has been.
    pub(super) client: Option<String>,
}

/// Reads the files' contents and compares them.
pub(super) fn check(files: &TlsFiles) -> Result<Checked, CertificateError> {
    let mut checked =
        Checked { authorities: Vec::new(), identity: None, names: Names::default(), warnings: Vec::new() };
    if let Some(file) = &files.ca {
        let found = file.certificates()?;
        checked.names.ca = Some(shown(&file.path));
        // One that is still good is enough.
        let dates: Option<Vec<String>> = found.iter().map(expired).collect();
        checked.names.ca_expired = dates.and_then(|dates| dates.into_iter().next_back());
        for certificate in &found {
            checked.authorities.push(authority(certificate)?);
        }
    }
    if let Some((certificate, key)) = &files.client {
        let (identity, leaf) = identity(certificate, key)?;
        checked.identity = Some(identity);
        let path = shown(&certificate.path);
        checked.names.client = Some(match expired(&leaf) {
            None => path,
            Some(date) => {
                let (file, since) = (value(&path), value(&date));
                checked
                    .warnings
                    .push(format!("the client certificate has expired file={file} since={since}"));
                format!("{path} (expired since {date})")
            }
        });
    }
    Ok(checked)
}

fn identity(certificate: &PemFile, key: &PemFile) -> Result<(Identity, X509), CertificateError> {
    let chain = certificate.certificates()?;
    let private = key.key()?;
    let leaf = chain.into_iter().next().ok_or_else(|| certificate.unusable("it is empty"))?;
    let public = leaf.public_key().map_err(setup)?;
    if !public.public_eq(&private) {
        let (key, certificate) = (shown(&key.path), shown(&certificate.path));
        return Err(CertificateError::Mismatch { key, certificate });
    }
    let pkcs8 = private.private_key_to_pem_pkcs8().map_err(setup)?;
    let identity = Identity::from_pkcs8(certificate.text.expose().as_bytes(), &pkcs8).map_err(setup)?;
    Ok((identity, leaf))
}

fn authority(certificate: &X509) -> Result<Certificate, CertificateError> {
    let der = certificate.to_der().map_err(setup)?;
    Certificate::from_der(&der).map_err(setup)
}

/// The date when it expired, if it has.
fn expired(certificate: &X509) -> Option<String> {
    let now = Asn1Time::days_from_now(0).ok()?;
    (certificate.not_after() < now).then(|| certificate.not_after().to_string())
}

pub(super) fn setup(error: impl fmt::Display) -> CertificateError {
    CertificateError::Setup { problem: error.to_string() }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
#[path = "certificates_tests.rs"]
mod tests;
