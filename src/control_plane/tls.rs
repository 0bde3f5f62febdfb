//! Whom we take for the control plane: the one place where TLS to it is made, for the WebSocket and for REST.
//!
//! Owns the trust and what a broken one looks like. It must not know what is sent.
//!
//! native-tls takes the first bundle that it finds in the usual places of Linux systems, and every usual folder of
//! certificates by their hash. `SSL_CERT_FILE` takes the bundle's place when there is such a file; the folders count all
//! the same. `SSL_CERT_DIR` adds folders. Neither says a word about what it cannot use, so [`TrustEnv::warnings`] does.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use native_tls::TlsConnector;
use openssl::x509::X509;

use crate::logging::value;
use crate::sys::environment::Environment;
use crate::sys::files;

/// The largest bundle that is looked into, in bytes; the usual ones have a quarter of a megabyte.
const LARGEST_BUNDLE: usize = 16 * 1024 * 1024;

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

/// The variables that say whom we trust. They are heeded by native-tls and OpenSSL themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustEnv {
    /// `SSL_CERT_FILE`.
    cert_file: Option<OsString>,
    /// `SSL_CERT_DIR`: folders, with colons between them.
    cert_dir: Option<OsString>,
}

impl From<&Environment> for TrustEnv {
    fn from(environment: &Environment) -> Self {
        let get = |name| environment.get(name).filter(|value| !value.is_empty()).map(OsStr::to_owned);
        Self { cert_file: get("SSL_CERT_FILE"), cert_dir: get("SSL_CERT_DIR") }
    }
}

impl TrustEnv {
    /// What they name that cannot be used, one line for the log each.
    pub fn warnings(&self) -> Vec<String> {
        let file = self.cert_file.iter().filter_map(|path| {
            let problem = bundle_problem(Path::new(path))?;
            Some(warning("SSL_CERT_FILE", path, &problem))
        });
        let folders = self.cert_dir.iter().flat_map(std::env::split_paths);
        let folders = folders.filter(|path| !path.as_os_str().is_empty()).filter_map(|path| {
            let problem = folder_problem(&path)?;
            Some(warning("SSL_CERT_DIR", path.as_os_str(), &problem))
        });
        file.chain(folders).collect()
    }
}

fn warning(variable: &str, path: &OsStr, problem: &str) -> String {
    format!("variable={variable} path={} problem={}", value(&path.to_string_lossy()), value(problem))
}

/// Why no certificate comes out of a bundle. One that is broken costs all others in it, too.
fn bundle_problem(path: &Path) -> Option<String> {
    let bytes = match files::read(path, LARGEST_BUNDLE) {
        Ok(bytes) => bytes,
        // OpenSSL has no such bound.
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Some("it is missing, so the system's file is used".into());
        }
        Err(error) => return Some(error.to_string()),
    };
    match X509::stack_from_pem(&bytes) {
        Ok(certificates) if certificates.is_empty() => Some("there is no certificate in it".into()),
        Ok(_) => None,
        Err(_) => Some("a certificate in it cannot be read, so none of them is used".into()),
    }
}

/// Why no certificate is found in a folder: they are looked for by names such as `1a2b3c4d.0`.
fn folder_problem(path: &Path) -> Option<String> {
    match files::names(path) {
        Ok(names) if names.iter().any(|name| is_hashed(name)) => None,
        Ok(_) => Some("there is no certificate in it under its hash, see `openssl rehash`".into()),
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

    /// A certificate that nobody has signed, made for this test.
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
        builder.set_not_before(&openssl::asn1::Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&openssl::asn1::Asn1Time::days_from_now(1).unwrap()).unwrap();
        builder.sign(&key, openssl::hash::MessageDigest::sha256()).unwrap();
        builder.build().to_pem().unwrap()
    }

    #[test]
    fn a_variable_that_is_empty_is_unset() {
        let environment = Environment::from_iter([("SSL_CERT_FILE", ""), ("SSL_CERT_DIR", "")]);
        assert_eq!(TrustEnv::from(&environment), TrustEnv::default());
        let environment = Environment::from_iter([("SSL_CERT_FILE", "/f"), ("SSL_CERT_DIR", "/d")]);
        let expected = TrustEnv { cert_file: Some("/f".into()), cert_dir: Some("/d".into()) };
        assert_eq!(TrustEnv::from(&environment), expected);
        assert_eq!(TrustEnv::default().warnings(), Vec::<String>::new());
    }

    #[test]
    fn a_bundle_that_cannot_be_used_is_warned_about() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pem");
        let told = |words: &str| {
            let warnings = warnings(Some(&path), None);
            assert_eq!(warnings.len(), 1, "{words}: {warnings:?}");
            let start = format!("variable=SSL_CERT_FILE path={} problem=", path.display());
            assert!(warnings[0].starts_with(&start) && warnings[0].contains(words), "{words}: {warnings:?}");
        };
        told("it is missing");
        std::fs::write(&path, "").unwrap();
        told("no certificate in it");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        told("cannot be read");
        let good = certificate();
        std::fs::write(&path, &good).unwrap();
        assert_eq!(warnings(Some(&path), None), Vec::<String>::new());
        std::fs::write(&path, [&good[..], &good[..good.len() / 2]].concat()).unwrap();
        told("cannot be read");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        told("not a regular file");
    }

    #[test]
    fn each_folder_that_cannot_be_used_is_warned_about() {
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
        let start = format!("variable=SSL_CERT_DIR path={} problem=", place("bare"));
        assert!(found[0].starts_with(&start) && found[0].contains("openssl rehash"), "{found:?}");
        assert!(found[1].contains(&place("gone")) && found[1].contains("No such file"), "{found:?}");
    }

    #[test]
    fn only_a_certificate_is_distrusted() {
        let text = "error:0A000086:SSL routines:tls_post_process_server_certificate:certificate verify failed:ssl/statem.c:1889: \
                    (self-signed certificate)";
        assert_eq!(distrust(text).unwrap(), "self-signed certificate");
        assert_eq!(distrust("unexpected EOF"), None);
    }
}
