//! Docker's own settings: the current context in `config.json`, and the store of contexts beside it.
//!
//! Owns the files' places and shapes (from the Docker command line's `cli/context/store`; a context's folder is the
//! SHA-256 of its name). Pure: whoever calls hands in how a file is read. It must not know which context is wanted.

use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The most bytes of any file that is read here.
pub const FILE_LIMIT: usize = 1024 * 1024;

/// The two questions to the file system.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    /// Whether there is anything at a path.
    pub exists: &'a dyn Fn(&Path) -> bool,
    /// The bytes of a regular file; an error beyond [`FILE_LIMIT`].
    pub read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
}

impl std::fmt::Debug for Files<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Files")
    }
}

impl Files<'_> {
    /// A file's bytes, `None` when there is none; the error is one line.
    pub(in crate::docker) fn load(&self, path: &Path) -> Result<Option<Vec<u8>>, String> {
        match (self.read)(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("it cannot be read: {error}")),
        }
    }
}

/// `config.json`, as far as it is about contexts.
#[derive(Deserialize)]
struct ConfigFile {
    #[serde(rename = "currentContext", default)]
    current_context: Option<String>,
}

/// The name of the current context in a `config.json`.
pub(in crate::docker) fn current_context(json: &[u8]) -> Result<Option<String>, String> {
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

/// What a context says of its engine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::docker) struct Meta {
    /// In the forms of `DOCKER_HOST`.
    #[serde(rename = "Host", alias = "host", default)]
    pub(in crate::docker) host: String,
    /// Encrypt, but take any certificate.
    #[serde(rename = "SkipTLSVerify", alias = "skipTLSVerify", default)]
    pub(in crate::docker) skip_tls_verify: bool,
}

/// Reads a context's `meta.json`.
pub(in crate::docker) fn meta(json: &[u8]) -> Result<Meta, String> {
    let file: MetaFile = parse(json)?;
    let meta = file.endpoints.docker.ok_or("it has no Endpoints.docker")?;
    if meta.host.trim().is_empty() { Err("its Endpoints.docker.Host is empty".to_owned()) } else { Ok(meta) }
}

/// Only the place of an error: its text may quote a value, and `config.json` holds passwords.
fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|error| {
        let what = if error.is_data() { "it has another shape than expected" } else { "it is not JSON" };
        format!("{what} (line {}, column {})", error.line(), error.column())
    })
}

/// Where a context's description is, below the folder of Docker's settings.
pub(in crate::docker) fn meta_path(config_dir: &Path, name: &str) -> PathBuf {
    config_dir.join("contexts/meta").join(id(name)).join("meta.json")
}

/// Where a context's certificates are.
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
    fn the_store_is_where_docker_keeps_it() {
        // From a store that the command line made for a context of that name.
        let id = "25bf8e1a2393f1108d37029b3df5593236c755742ec93465bbafa9b290bddcf6";
        let (dir, name) = (Path::new("/c"), "local");
        assert_eq!(meta_path(dir, name), PathBuf::from(format!("/c/contexts/meta/{id}/meta.json")));
        assert_eq!(tls_dir(dir, name), PathBuf::from(format!("/c/contexts/tls/{id}/docker")));
        assert!(meta_path(dir, "../../etc").starts_with("/c/contexts/meta"));
    }

    #[test]
    fn what_docker_writes_is_read() {
        assert_eq!(meta(META.as_bytes()), Ok(Meta { host: "tcp://h:1".into(), skip_tls_verify: true }));
        let small = br#"{"endpoints":{"docker":{"host":"unix:///s"}}}"#;
        assert_eq!(meta(small), Ok(Meta { host: "unix:///s".into(), skip_tls_verify: false }));
        assert_eq!(current_context(CONFIG.as_bytes()), Ok(Some("build".into())));
        assert_eq!(current_context(b"{}"), Ok(None));
        assert_eq!(current_context(br#"{"currentContext":null}"#), Ok(None));
    }

    #[test]
    fn other_shapes_are_one_line_without_their_values() {
        let cases = [
            (r#"{"Name":"x"}"#, "another shape"),
            (r#"{"Endpoints":[]}"#, "another shape"),
            (r#"{"Endpoints":{}}"#, "no Endpoints.docker"),
            (r#"{"Endpoints":{"docker":null}}"#, "no Endpoints.docker"),
            (r#"{"Endpoints":{"docker":{"SkipTLSVerify":false}}}"#, "Host is empty"),
            (r#"{"Endpoints":{"docker":{"Host":["hunter2"]}}}"#, "another shape"),
            (r#"{"Endpoints":{"docker":{"Host":"h","SkipTLSVerify":"hunter2"}}}"#, "another shape"),
            ("hunter2", "not JSON"),
            ("", "not JSON"),
            ("null", "another shape"),
        ];
        for (json, problem) in cases {
            let error = meta(json.as_bytes()).unwrap_err();
            assert!(
                error.contains(problem) && !error.contains("hunter2") && !error.contains('\n'),
                "{json}: {error}"
            );
        }
        for json in [r#"{"currentContext":7}"#, "[]x", "hunter2", "\u{0}"] {
            let error = current_context(json.as_bytes()).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let deep = "[".repeat(100_000);
        assert!(meta(deep.as_bytes()).is_err() && current_context(deep.as_bytes()).is_err());
        assert!(meta(b"{\"Endpoints\":\xff}").is_err());
    }

    #[test]
    fn no_prefix_is_taken_for_the_whole() {
        for end in 0..META.len() {
            assert!(meta(&META.as_bytes()[..end]).is_err(), "{end} bytes");
        }
        for end in 0..CONFIG.len() {
            assert!(current_context(&CONFIG.as_bytes()[..end]).is_err(), "{end} bytes");
        }
    }
}
