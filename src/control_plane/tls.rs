//! TLS to the control plane, for the WebSocket and for REST: the trusted certificates.
//!
//! native-tls trusts the first bundle that it finds in the usual places of Linux systems, and the certificates in every
//! usual folder. `SSL_CERT_FILE` replaces the bundle if the file exists; `SSL_CERT_DIR` adds folders. Both silently
//! ignore what they cannot use, so [`TrustEnv::warnings`] reports it. [`Trust`] adds the operator's files to these.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use native_tls::TlsConnector;
use openssl::asn1::Asn1Time;
use openssl::x509::X509;

use crate::logging::{SettingNames, value};
use crate::net::pem::{self, PemError, PemFile};
use crate::sys::environment::Environment;
use crate::sys::files;
use crate::sys::pool::alongside;

/// The largest bundle that is checked, in bytes. The usual ones have 250 KB.
const MAX_BUNDLE: usize = 16 * 1024 * 1024;
/// The settings that name files, for messages.
const CA_FILE: &str = "--ca-file";
const CLIENT_CERT: &str = "--client-cert";
const CLIENT_KEY: &str = "--client-key";

/// The certificates that the operator adds to the system's. The files are read for each connection, as they may have changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// A file of authorities that are trusted as well.
    pub ca_file: Option<PathBuf>,
    /// The client certificate and its key, for servers that ask for one.
    pub client: Option<(PathBuf, PathBuf)>,
    /// How errors name the settings.
    pub names: SettingNames,
}

/// Why a connection cannot use TLS.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file of the operator cannot be used.
    #[error("cannot use {setting} {path:?}: {problem}")]
    File {
        /// The setting, as it was set.
        setting: String,
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// OpenSSL cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}

impl Trust {
    /// Loads the trusted certificates and the client's.
    ///
    /// # Errors
    /// A file cannot be used, or OpenSSL cannot be set up.
    pub(crate) fn connector(&self) -> Result<TlsConnector, TrustError> {
        let mut builder = TlsConnector::builder();
        if let Some(path) = &self.ca_file {
            let file = self.read(CA_FILE, path)?;
            let unusable = |error: PemError| self.unusable(&error, CA_FILE);
            for certificate in file.certificates().map_err(unusable)? {
                let authority = pem::authority(&certificate).map_err(unusable)?;
                builder.add_root_certificate(authority);
            }
        }
        if let Some((certificate, key)) = &self.client {
            let (certificate, key) = (self.read(CLIENT_CERT, certificate)?, self.read(CLIENT_KEY, key)?);
            // Both may be in one file, so that a path does not tell which of them cannot be used.
            certificate.certificates().map_err(|error| self.unusable(&error, CLIENT_CERT))?;
            let identity = pem::identity(&certificate, &key);
            let (identity, _) = identity.map_err(|error| self.unusable(&error, CLIENT_KEY))?;
            builder.identity(identity);
        }
        builder.build().map_err(|error| TrustError::Setup(error.to_string()))
    }

    /// As [`Trust::connector`], on another thread while `work` runs on this one: loading takes 10 ms or more.
    pub(crate) fn connector_during<T>(
        &self,
        work: impl FnOnce() -> T,
    ) -> (T, Result<TlsConnector, TrustError>) {
        let trust = self.clone();
        alongside("oz-trust", move || trust.connector(), work)
    }

    /// Checks the operator's files.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn check(&self) -> Result<(), TrustError> {
        if self.ca_file.is_none() && self.client.is_none() { Ok(()) } else { self.connector().map(drop) }
    }

    /// Returns the reason why a certificate was refused: OpenSSL's, unless there is no authority that could have signed one.
    pub(crate) fn explain(&self, reason: &str) -> String {
        let lower = reason.to_ascii_lowercase();
        let is_about_the_issuer =
            ["issuer", "signed", "first certificate"].iter().any(|word| lower.contains(word));
        if is_about_the_issuer && self.ca_file.is_none() && !system_has_authorities() {
            return format!(
                "this host has no CA certificates: install the package ca-certificates, or set --ca-file; OpenSSL says {reason}"
            );
        }
        reason.to_owned()
    }

    fn read(&self, setting: &'static str, path: &Path) -> Result<PemFile, TrustError> {
        let bytes = files::read(path, MAX_BUNDLE).map_err(|error| TrustError::File {
            setting: self.names.of(setting),
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
        PemFile::new(path.to_owned(), bytes).map_err(|error| self.unusable(&error, setting))
    }

    fn unusable(&self, error: &PemError, setting: &'static str) -> TrustError {
        let (path, problem) = match error {
            PemError::Unusable { path, problem } => (path, (*problem).to_owned()),
            PemError::Encrypted { path } => (
                path,
                "the key is encrypted, which is not supported; decrypt it with `openssl pkey -in OLD -out NEW`"
                    .to_owned(),
            ),
            PemError::Mismatch { key, certificate } => {
                (key, format!("the key does not belong to the certificate {}", pem::display(certificate)))
            }
            PemError::Setup { problem } => return TrustError::Setup(problem.clone()),
        };
        TrustError::File { setting: self.names.of(setting), path: path.clone(), problem }
    }
}

/// Whether there is a file or a folder of authorities, as native-tls looks for them.
fn system_has_authorities() -> bool {
    let found = openssl_probe::probe();
    let has_file = found.cert_file.is_some_and(|path| path.metadata().is_ok_and(|file| file.len() > 0));
    has_file || found.cert_dir.iter().any(|folder| folder_error(folder).is_none())
}

/// What an operator wants to know about a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The name of its issuer.
    pub issuer: String,
    /// Since when it is valid.
    pub not_before: String,
    /// Until when it is valid.
    pub not_after: String,
    /// How many days it is still valid; negative if it has expired.
    pub days_left: i32,
}

impl CertificateFacts {
    /// Returns the facts about a certificate (DER); `None` if it cannot be parsed.
    pub fn of(der: &[u8]) -> Option<Self> {
        let certificate = X509::from_der(der).ok()?;
        let entry = |entry: &openssl::x509::X509NameEntryRef| {
            let name = entry.object().nid().short_name().ok()?;
            Some(format!("{name}={}", String::from_utf8_lossy(entry.data().as_slice())))
        };
        let issuer: Vec<_> = certificate.issuer_name().entries().filter_map(entry).collect();
        let left = Asn1Time::days_from_now(0).ok()?.diff(certificate.not_after()).ok()?;
        Some(Self {
            issuer: issuer.join(", "),
            not_before: certificate.not_before().to_string(),
            not_after: certificate.not_after().to_string(),
            days_left: left.days,
        })
    }
}

/// The variables that name trusted certificates. native-tls and OpenSSL read them themselves; this only checks them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustEnv {
    /// `SSL_CERT_FILE`.
    cert_file: Option<OsString>,
    /// `SSL_CERT_DIR`: folders, separated by colons.
    cert_dir: Option<OsString>,
}

impl From<&Environment> for TrustEnv {
    fn from(environment: &Environment) -> Self {
        let get = |name| environment.get(name).filter(|value| !value.is_empty()).map(OsStr::to_owned);
        Self { cert_file: get("SSL_CERT_FILE"), cert_dir: get("SSL_CERT_DIR") }
    }
}

impl TrustEnv {
    /// Returns the keys and values of one log line for each file or folder that cannot be used.
    pub fn warnings(&self) -> Vec<String> {
        let file = self.cert_file.iter().filter_map(|path| {
            let error = bundle_error(Path::new(path))?;
            Some(warning("SSL_CERT_FILE", path, &error))
        });
        let folders = self.cert_dir.iter().flat_map(std::env::split_paths);
        let folders = folders.filter(|path| !path.as_os_str().is_empty()).filter_map(|path| {
            let error = folder_error(&path)?;
            Some(warning("SSL_CERT_DIR", path.as_os_str(), &error))
        });
        file.chain(folders).collect()
    }
}

fn warning(variable: &str, path: &OsStr, error: &str) -> String {
    format!("variable={variable} path={} error={}", value(&path.to_string_lossy()), value(error))
}

/// Returns why no certificate of a bundle is trusted. OpenSSL ignores all of them if one is broken.
fn bundle_error(path: &Path) -> Option<String> {
    let bytes = match files::read(path, MAX_BUNDLE) {
        Ok(bytes) => bytes,
        // Too large to check, but OpenSSL has no limit.
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Some("no such file, the system's bundle is used instead".into());
        }
        Err(error) => return Some(error.to_string()),
    };
    match X509::stack_from_pem(&bytes) {
        Ok(certificates) if certificates.is_empty() => Some("the file contains no certificate".into()),
        Ok(_) => None,
        Err(_) => Some("a certificate in the file cannot be parsed, so all of them are ignored".into()),
    }
}

/// Returns why OpenSSL finds no certificate in a folder: it opens only names such as `1a2b3c4d.0`.
fn folder_error(path: &Path) -> Option<String> {
    match files::names(path) {
        Ok(names) if names.iter().any(|name| is_hashed(name)) => None,
        Ok(_) => Some("no certificate has its hash as its name; run `openssl rehash` on the folder".into()),
        Err(error) => Some(error.to_string()),
    }
}

fn is_hashed(name: &OsStr) -> bool {
    let parts = name.to_str().and_then(|name| name.split_once('.'));
    parts.is_some_and(|(hash, number)| {
        hash.len() == 8
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(file: Option<&Path>, folders: Option<&str>) -> Vec<String> {
        let owned = |path: &Path| path.as_os_str().to_owned();
        TrustEnv { cert_file: file.map(owned), cert_dir: folders.map(OsString::from) }.warnings()
    }

    /// Makes a self-signed certificate.
    fn certificate() -> Vec<u8> {
        let key = openssl::pkey::PKey::from_ec_key(
            openssl::ec::EcKey::generate(
                &openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap(),
            )
            .unwrap(),
        )
        .unwrap();
        let mut builder = X509::builder().unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        builder.sign(&key, openssl::hash::MessageDigest::sha256()).unwrap();
        builder.build().to_pem().unwrap()
    }

    #[test]
    fn the_facts_of_a_certificate_are_its_issuer_and_its_dates() {
        let der = X509::from_pem(&certificate()).unwrap().to_der().unwrap();
        let facts = CertificateFacts::of(&der).unwrap();
        assert!((0..=1).contains(&facts.days_left) && facts.not_after.ends_with("GMT"), "{facts:?}");
        assert_eq!(CertificateFacts::of(b"x"), None);
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let environment = Environment::from_iter([("SSL_CERT_FILE", ""), ("SSL_CERT_DIR", "")]);
        assert_eq!(TrustEnv::from(&environment), TrustEnv::default());
        let environment = Environment::from_iter([("SSL_CERT_FILE", "/f"), ("SSL_CERT_DIR", "/d")]);
        let expected = TrustEnv { cert_file: Some("/f".into()), cert_dir: Some("/d".into()) };
        assert_eq!(TrustEnv::from(&environment), expected);
        assert_eq!(TrustEnv::default().warnings(), Vec::<String>::new());
    }

    #[test]
    fn an_unusable_bundle_is_warned_about() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pem");
        let warns = |error: &str| {
            let warnings = warnings(Some(&path), None);
            assert_eq!(warnings.len(), 1, "{error}: {warnings:?}");
            let start = format!("variable=SSL_CERT_FILE path={} error=", path.display());
            assert!(warnings[0].starts_with(&start) && warnings[0].contains(error), "{error}: {warnings:?}");
        };
        warns("no such file");
        std::fs::write(&path, "").unwrap();
        warns("contains no certificate");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        warns("cannot be parsed");
        let good = certificate();
        std::fs::write(&path, &good).unwrap();
        assert_eq!(warnings(Some(&path), None), Vec::<String>::new());
        std::fs::write(&path, [&good[..], &good[..good.len() / 2]].concat()).unwrap();
        warns("cannot be parsed");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        warns("not a regular file");
    }

    #[test]
    fn each_unusable_folder_is_warned_about() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for name in ["good", "bare"] {
            std::fs::create_dir(place(name)).unwrap();
        }
        for name in ["good/ca.pem", "good/0a1b2c3d.0", "bare/ca.pem", "bare/0a1b2c3.0", "bare/0a1b2c3d."] {
            std::fs::write(place(name), "").unwrap();
        }
        assert_eq!(warnings(None, Some(&place("good"))), Vec::<String>::new());
        let list = [place("good"), String::new(), place("bare"), place("gone")].join(":");
        let found = warnings(None, Some(&list));
        assert_eq!(found.len(), 2, "{found:?}");
        let start = format!("variable=SSL_CERT_DIR path={} error=", place("bare"));
        assert!(found[0].starts_with(&start) && found[0].contains("openssl rehash"), "{found:?}");
        assert!(found[1].contains(&place("gone")) && found[1].contains("No such file"), "{found:?}");
    }
}
