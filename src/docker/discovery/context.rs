//! Docker's contexts: the current one in `config.json`, and their files in the store beside it. Pure.
//!
//! The layout is that of the docker command line (`cli/context/store`): a context's folder is the SHA-256 of its name.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The most bytes read of any of Docker's own files.
pub const FILE_LIMIT: usize = 1024 * 1024;

/// Access to the file system, so that tests can replace it.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    /// Returns whether a path exists.
    pub exists: &'a dyn Fn(&Path) -> bool,
    /// Returns the contents of a regular file of at most [`FILE_LIMIT`] bytes.
    pub read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
}

impl fmt::Debug for Files<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Files")
    }
}

impl Files<'_> {
    /// Returns the contents of a file, or `None` if it does not exist.
    pub(in crate::docker) fn load(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match (self.read)(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Why a file of Docker's settings cannot be used. Nothing of the file is quoted: `config.json` holds passwords.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The file exists, but cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// The file is not JSON.
    #[error("it is not JSON (line {line}, column {column})")]
    NotJson {
        /// The line of the error, from 1.
        line: usize,
        /// The column of the error.
        column: usize,
    },
    /// The file is JSON, but a field is missing or has the wrong type.
    #[error("it has an unexpected structure (line {line}, column {column})")]
    Structure {
        /// The line of the error, from 1.
        line: usize,
        /// The column of the error.
        column: usize,
    },
    /// The context has no Docker endpoint.
    #[error("it has no Endpoints.docker")]
    NoEndpoint,
    /// The context's endpoint has no address.
    #[error("its Endpoints.docker.Host is empty")]
    NoHost,
}

/// The part of `config.json` that concerns contexts.
#[derive(Deserialize)]
struct ConfigFile {
    #[serde(rename = "currentContext", default)]
    current_context: Option<String>,
}

/// Returns the name of the current context in a `config.json`.
pub(in crate::docker) fn current_context(json: &[u8]) -> Result<Option<String>, ContextError> {
    let file: ConfigFile = parse(json)?;
    Ok(file.current_context)
}

#[derive(Deserialize)]
struct MetaFile {
    #[serde(rename = "Endpoints", alias = "endpoints")]
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: Option<Meta>,
}

/// A context's Docker endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::docker) struct Meta {
    /// An address in the form of `DOCKER_HOST`.
    #[serde(rename = "Host", alias = "host", default)]
    pub(in crate::docker) host: String,
    /// Whether to encrypt without checking the engine's certificate.
    #[serde(rename = "SkipTLSVerify", alias = "skipTLSVerify", default)]
    pub(in crate::docker) skip_tls_verify: bool,
}

/// Parses a context's `meta.json`.
pub(in crate::docker) fn meta(json: &[u8]) -> Result<Meta, ContextError> {
    let file: MetaFile = parse(json)?;
    let meta = file.endpoints.docker.ok_or(ContextError::NoEndpoint)?;
    if meta.host.trim().is_empty() { Err(ContextError::NoHost) } else { Ok(meta) }
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, ContextError> {
    serde_json::from_slice(json).map_err(|error| {
        // The error's own text may quote a value.
        let line = error.line();
        let column = error.column();
        if error.is_data() {
            ContextError::Structure { line, column }
        } else {
            ContextError::NotJson { line, column }
        }
    })
}

/// Returns the path of a context's `meta.json`; `config_dir` is the folder of Docker's settings.
pub(in crate::docker) fn meta_path(config_dir: &Path, name: &str) -> PathBuf {
    config_dir.join("contexts/meta").join(id(name)).join("meta.json")
}

/// Returns the folder of a context's certificates.
pub(in crate::docker) fn tls_dir(config_dir: &Path, name: &str) -> PathBuf {
    config_dir.join("contexts/tls").join(id(name)).join("docker")
}

fn id(name: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: &str = r#"{"Name":"build","Metadata":{"Description":"é"},"Endpoints":{"docker":{"Host":"tcp://h:1","SkipTLSVerify":true},"kubernetes":{"x":[1]}}}"#;
    const CONFIG: &str =
        r#"{"auths":{"h":{"auth":"c2VjcmV0"}},"currentContext":"build","proxies":{"default":null}}"#;

    #[test]
    fn paths_match_those_of_the_docker_command_line() {
        // As created by `docker context create local`.
        let id = "25bf8e1a2393f1108d37029b3df5593236c755742ec93465bbafa9b290bddcf6";
        let dir = Path::new("/c");
        let name = "local";
        assert_eq!(meta_path(dir, name), PathBuf::from(format!("/c/contexts/meta/{id}/meta.json")));
        assert_eq!(tls_dir(dir, name), PathBuf::from(format!("/c/contexts/tls/{id}/docker")));
        assert!(meta_path(dir, "../../etc").starts_with("/c/contexts/meta"));
    }

    #[test]
    fn files_written_by_docker_are_parsed() {
        assert_eq!(meta(META.as_bytes()).unwrap(), Meta { host: "tcp://h:1".into(), skip_tls_verify: true });
        let small = br#"{"endpoints":{"docker":{"host":"unix:///s"}}}"#;
        assert_eq!(meta(small).unwrap(), Meta { host: "unix:///s".into(), skip_tls_verify: false });
        assert_eq!(current_context(CONFIG.as_bytes()).unwrap().as_deref(), Some("build"));
        assert_eq!(current_context(b"{}").unwrap(), None);
        assert_eq!(current_context(br#"{"currentContext":null}"#).unwrap(), None);
    }

    #[test]
    fn errors_are_one_line_and_quote_no_value() {
        let cases = [
            (r#"{"Name":"x"}"#, "unexpected structure"),
            (r#"{"Endpoints":[]}"#, "unexpected structure"),
            (r#"{"Endpoints":{}}"#, "no Endpoints.docker"),
            (r#"{"Endpoints":{"docker":null}}"#, "no Endpoints.docker"),
            (r#"{"Endpoints":{"docker":{"SkipTLSVerify":false}}}"#, "Host is empty"),
            (r#"{"Endpoints":{"docker":{"Host":["hunter2"]}}}"#, "unexpected structure"),
            (r#"{"Endpoints":{"docker":{"Host":"h","SkipTLSVerify":"hunter2"}}}"#, "unexpected structure"),
            ("hunter2", "not JSON"),
            ("", "not JSON"),
            ("null", "unexpected structure"),
        ];
        for (json, problem) in cases {
            let error = meta(json.as_bytes()).unwrap_err().to_string();
            assert!(
                error.contains(problem) && !error.contains("hunter2") && !error.contains('\n'),
                "{json}: {error}"
            );
        }
        for json in [r#"{"currentContext":7}"#, "[]x", "hunter2", "\u{0}"] {
            let error = current_context(json.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let deep = "[".repeat(100_000);
        assert!(meta(deep.as_bytes()).is_err() && current_context(deep.as_bytes()).is_err());
        assert!(meta(b"{\"Endpoints\":\xff}").is_err());
    }

    #[test]
    fn every_truncated_file_is_an_error() {
        for end in 0..META.len() {
            assert!(meta(&META.as_bytes()[..end]).is_err(), "{end} bytes");
        }
        for end in 0..CONFIG.len() {
            assert!(current_context(&CONFIG.as_bytes()[..end]).is_err(), "{end} bytes");
        }
    }
}
