//! Reads and checks the TLS files for the engine: `ca.pem`, `cert.pem` and `key.pem`.

use std::fmt;
use std::path::{Path, PathBuf};

use native_tls::{Certificate, Identity};

use super::discovery::Files;
use crate::logging::value;
use crate::net::pem::{PemError, PemFile, authority, display, expired, identity};

/// The TLS files of the engine. The default encrypts without verifying the engine, and without a client certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    /// Whether to verify the engine's certificate.
    pub(super) verify: bool,
    /// Whether to trust only the authorities in `ca`, as for a context. Otherwise they add to those of the system.
    pub(super) only_ca: bool,
    /// The trusted authorities.
    pub(super) ca: Option<PemFile>,
    /// The client certificate and its key.
    pub(super) client: Option<(PemFile, PemFile)>,
}

/// Why a TLS file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A required file does not exist.
    #[error("{path} is missing: TLS to the docker engine needs it{reason}; see DOCKER_CERT_PATH")]
    Missing {
        /// The file.
        path: String,
        /// Why the file is required, as the rest of a sentence; may be empty.
        reason: &'static str,
    },
    /// A file cannot be read or parsed.
    #[error("cannot use {path} for TLS to the docker engine: {problem}")]
    Unusable {
        /// The file.
        path: String,
        /// The problem.
        problem: String,
    },
    /// The key is encrypted, and there is no setting for its password.
    #[error(
        "the key {path} is encrypted, which neither this worker nor docker supports; decrypt it with `openssl pkey -in {path} -out NEW`"
    )]
    Encrypted {
        /// The key's file.
        path: String,
    },
    /// The key does not belong to the certificate.
    #[error(
        "the key {key} does not belong to the certificate {certificate}; use a key and certificate that were created together"
    )]
    Mismatch {
        /// The key's file.
        key: String,
        /// The certificate's file.
        certificate: String,
    },
    /// OpenSSL rejected the files.
    #[error("cannot set up TLS to the docker engine: {problem}")]
    Setup {
        /// OpenSSL's message.
        problem: String,
    },
}

impl TlsFiles {
    /// Returns settings without files, which verify the engine with the authorities of this machine.
    pub(super) fn verifying() -> Self {
        Self { verify: true, ..Self::default() }
    }

    /// Reads the folder for `DOCKER_HOST`. With `verify`, `ca.pem` is required. Without it, `cert.pem` is required if
    /// `DOCKER_CERT_PATH` names the folder (`named`): only a client certificate can be the purpose then.
    pub(super) fn of_folder(
        dir: &Path,
        files: Files<'_>,
        verify: bool,
        named: bool,
    ) -> Result<Self, CertificateError> {
        let mut found = Self { verify, ..Self::read(dir, files)? };
        if verify && found.ca.is_none() {
            return Err(CertificateError::Missing {
                path: display(&dir.join("ca.pem")),
                reason: " to verify the engine (DOCKER_TLS_VERIFY is set)",
            });
        }
        if named && !verify && found.client.is_none() {
            return Err(CertificateError::Missing { path: display(&dir.join("cert.pem")), reason: "" });
        }
        if !verify {
            found.ca = None;
        }
        Ok(found)
    }

    /// Reads the folder of a context. All files are optional.
    pub(super) fn of_context(dir: &Path, files: Files<'_>, verify: bool) -> Result<Self, CertificateError> {
        let found = Self::read(dir, files)?;
        Ok(Self { verify, only_ca: found.ca.is_some(), ..found })
    }

    /// Reads files by their names, which add to those of this machine.
    pub(super) fn named(
        ca: Option<&Path>,
        client: Option<&(PathBuf, PathBuf)>,
        files: Files<'_>,
    ) -> Result<Self, CertificateError> {
        let load = |path: &Path| {
            let missing = || CertificateError::Missing { path: display(path), reason: "" };
            load(path.to_owned(), files)?.ok_or_else(missing)
        };
        let client =
            client.map(|(certificate, key)| Ok::<_, CertificateError>((load(certificate)?, load(key)?)));
        let client = client.transpose()?;
        Ok(Self { ca: ca.map(load).transpose()?, client, ..Self::verifying() })
    }

    /// Returns whether there are no files.
    pub(super) fn is_empty(&self) -> bool {
        self.ca.is_none() && self.client.is_none()
    }

    fn read(dir: &Path, files: Files<'_>) -> Result<Self, CertificateError> {
        let load = |name| load(dir.join(name), files);
        let missing =
            |name, reason| Err(CertificateError::Missing { path: display(&dir.join(name)), reason });
        let client = match (load("cert.pem")?, load("key.pem")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return missing("key.pem", " because cert.pem exists"),
            (None, Some(_)) => return missing("cert.pem", " because key.pem exists"),
        };
        Ok(Self { ca: load("ca.pem")?, client, ..Self::default() })
    }
}

/// Reads a file that may be missing.
fn load(path: PathBuf, files: Files<'_>) -> Result<Option<PemFile>, CertificateError> {
    let bytes = files.load(&path).map_err(|error| CertificateError::Unusable {
        path: display(&path),
        problem: format!("it cannot be read: {error}"),
    })?;
    Ok(bytes.map(|bytes| PemFile::new(path, bytes)).transpose()?)
}

/// The parsed and checked files.
pub(super) struct Checked {
    pub(super) authorities: Vec<Certificate>,
    pub(super) identity: Option<Identity>,
    /// For the messages of failed handshakes.
    pub(super) names: Names,
    /// One log line each.
    pub(super) warnings: Vec<String>,
}

/// The files' paths and expiry dates, for messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// The path of `ca.pem`.
    pub(super) ca: Option<String>,
    /// The expiry date of the last authority, if all of them have expired.
    pub(super) ca_expired: Option<String>,
    /// The path of `cert.pem`, followed by the expiry date if the certificate has expired.
    pub(super) client: Option<String>,
}

/// Parses the files, and checks that the key belongs to the client certificate.
pub(super) fn check(files: &TlsFiles) -> Result<Checked, CertificateError> {
    let mut checked =
        Checked { authorities: Vec::new(), identity: None, names: Names::default(), warnings: Vec::new() };
    if let Some(file) = &files.ca {
        let found = file.certificates()?;
        checked.names.ca = Some(display(&file.path));
        // One valid authority is enough.
        let dates: Option<Vec<String>> = found.iter().map(expired).collect();
        checked.names.ca_expired = dates.and_then(|dates| dates.into_iter().next_back());
        for certificate in &found {
            checked.authorities.push(authority(certificate)?);
        }
    }
    if let Some((certificate, key)) = &files.client {
        let (identity, leaf) = identity(certificate, key)?;
        checked.identity = Some(identity);
        let path = display(&certificate.path);
        checked.names.client = Some(match expired(&leaf) {
            None => path,
            Some(date) => {
                checked.warnings.push(format!(
                    "the client certificate has expired file={} since={}",
                    value(&path),
                    value(&date)
                ));
                format!("{path} (expired since {date})")
            }
        });
    }
    Ok(checked)
}

pub(super) fn setup(error: impl fmt::Display) -> CertificateError {
    CertificateError::Setup { problem: error.to_string() }
}

impl From<PemError> for CertificateError {
    fn from(error: PemError) -> Self {
        match error {
            PemError::Unusable { path, problem } => {
                Self::Unusable { path: display(&path), problem: problem.to_owned() }
            }
            PemError::Encrypted { path } => Self::Encrypted { path: display(&path) },
            PemError::Mismatch { key, certificate } => {
                Self::Mismatch { key: display(&key), certificate: display(&certificate) }
            }
            PemError::Setup { problem } => Self::Setup { problem },
        }
    }
}

#[cfg(test)]
#[path = "certificates_tests.rs"]
mod tests;
