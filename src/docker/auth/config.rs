//! Finds a registry's credential helper or entry in Docker's `config.json`. Pure.
//!
//! The rules are those of the docker command line (`cli/config` in docker/cli), except that more spellings of a key match.

use std::collections::BTreeMap;
use std::io;

use data_encoding::BASE64_NOPAD;
use serde::Deserialize;
use serde_json::error::Category;

use super::credential::Credential;
use crate::secret::Secret;

/// Docker Hub in image names.
const HUB: &str = "docker.io";
/// Docker Hub in `config.json`, for helpers and in the header.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The hosts of Docker Hub in keys that other programs write.
const HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// The paths that may follow. Docker Desktop keeps its own tokens below other paths.
const HUB_PATHS: [&str; 3] = ["", "v1", "v2"];

/// The part of `config.json` about registries. It may hold passwords, so it has no `Debug`.
#[derive(Deserialize)]
pub(super) struct DockerConfig {
    #[serde(default)]
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, Option<String>>>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default, rename = "identitytoken")]
    identity_token: Option<String>,
    #[serde(default, rename = "registrytoken")]
    registry_token: Option<String>,
}

/// Why a `config.json` cannot be used. No value is quoted: it may be a secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum DockerConfigError {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("it is not JSON (line {line}, column {column})")]
    NotJson { line: usize, column: usize },
    #[error("it has an unexpected structure (line {line}, column {column})")]
    Structure { line: usize, column: usize },
    #[error("the entry {key:?} of auths has an invalid auth: not user:password in base64")]
    Auth { key: String },
    #[error("the entry {key:?} of auths is larger than 64 KiB")]
    TooLong { key: String },
}

impl DockerConfig {
    /// Parses the first JSON value of the file, like Docker. An empty file is valid.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DockerConfigError> {
        // serde would read a list as the fields in their order.
        if bytes.trim_ascii_start().starts_with(b"[") {
            return Err(DockerConfigError::Structure { line: 1, column: 1 });
        }
        let mut values = serde_json::Deserializer::from_slice(bytes).into_iter();
        values.next().unwrap_or(Ok(Self { auths: None, helpers: None, store: None })).map_err(|error| {
            let line = error.line();
            let column = error.column();
            match error.classify() {
                Category::Data => DockerConfigError::Structure { line, column },
                Category::Syntax | Category::Eof | Category::Io => {
                    DockerConfigError::NotJson { line, column }
                }
            }
        })
    }

    /// Returns the name of a registry's credential helper: its own, else the one for all registries. An empty own name means
    /// no helper.
    pub(super) fn helper(&self, host: &str) -> Option<&str> {
        let own = self.helpers.as_ref().and_then(|helpers| find(helpers, host, |_| true));
        let name = own.map_or(self.store.as_deref(), |(_, name)| name.as_deref());
        name.filter(|name| !name.is_empty())
    }

    /// Returns the credential of a registry's entry, or `None` if the entry is missing or empty. `docker login` leaves an
    /// empty one if a helper stores the password.
    pub(super) fn entry(&self, host: &str) -> Result<Option<Credential>, DockerConfigError> {
        let filled = |entry: &Option<Entry>| entry.as_ref().is_some_and(|entry| !entry.is_empty());
        let found = self.auths.as_ref().and_then(|auths| find(auths, host, filled));
        let Some((key, Some(entry))) = found else { return Ok(None) };
        let credential = entry.credential().ok_or_else(|| DockerConfigError::Auth { key: short(key) })?;
        if credential.is_too_long() {
            return Err(DockerConfigError::TooLong { key: short(key) });
        }
        Ok(Some(credential))
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        let fields = [&self.auth, &self.username, &self.password, &self.identity_token, &self.registry_token];
        fields.into_iter().all(|field| field.as_deref().unwrap_or_default().is_empty())
    }

    /// Returns the credential, or `None` if `auth` is malformed. `auth` takes precedence over `username` and `password`; tokens
    /// are added.
    fn credential(&self) -> Option<Credential> {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (username, password) = match self.auth.as_deref() {
            None | Some("") => (text(&self.username), Secret::new(text(&self.password))),
            Some(auth) => decode(auth)?,
        };
        Some(Credential {
            username,
            password,
            identity_token: Secret::new(text(&self.identity_token)),
            registry_token: Secret::new(text(&self.registry_token)),
        })
    }
}

/// Returns a registry's name in keys, for helpers and in the header.
pub(super) fn server(host: &str) -> &str {
    if host == HUB { HUB_KEY } else { host }
}

/// Returns the entry under a registry's exact key, else under the shortest key that is another spelling of it.
fn find<'a, T>(
    map: &'a BTreeMap<String, T>,
    host: &str,
    wanted: impl Fn(&T) -> bool,
) -> Option<(&'a str, &'a T)> {
    let exact = map.get_key_value(server(host)).filter(|(_, entry)| wanted(entry));
    let others = || map.iter().filter(|(key, entry)| is_for(key, host) && wanted(entry));
    let (key, entry) = exact.or_else(|| others().min_by_key(|(key, _)| key.len()))?;
    Some((key, entry))
}

/// Returns whether a key, with or without a scheme and a path, names a registry.
fn is_for(key: &str, host: &str) -> bool {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    match host {
        HUB => {
            HUB_PATHS.contains(&path.trim_end_matches('/'))
                && HUB_HOSTS.iter().any(|hub| hub.eq_ignore_ascii_case(name))
        }
        _ => name.eq_ignore_ascii_case(host),
    }
}

/// Decodes `user:password` from base64. Whitespace and missing padding are accepted.
fn decode(auth: &str) -> Option<(String, Secret)> {
    let digits: String = auth.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = BASE64_NOPAD.decode(digits.trim_end_matches('=').as_bytes()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':').filter(|(user, _)| !user.is_empty())?;
    // Old versions of Docker padded with NULs.
    Some((user.to_owned(), Secret::new(password.trim_matches('\0'))))
}

/// Shortens a key to 100 characters, for messages.
fn short(key: &str) -> String {
    key.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;
    use serde_json::{Value, json};

    use super::*;

    fn config(value: &Value) -> DockerConfig {
        DockerConfig::parse(value.to_string().as_bytes()).unwrap_or_else(|error| panic!("{value}: {error}"))
    }

    fn auth(text: &str) -> Value {
        json!({ "auth": BASE64.encode(text.as_bytes()) })
    }

    fn entry(value: &Value, host: &str) -> Option<Credential> {
        config(value).entry(host).unwrap()
    }

    fn user(name: &str, password: &str) -> Credential {
        let username = name.to_owned();
        let password = Secret::new(password);
        Credential { username, password, ..Credential::default() }
    }

    #[test]
    fn keys_match_every_spelling_of_a_registry() {
        let cases = [
            ("ghcr.io", "ghcr.io", true),
            ("GHCR.io", "ghcr.io", true),
            ("https://ghcr.io", "ghcr.io", true),
            ("http://ghcr.io/", "ghcr.io", true),
            ("https://ghcr.io/v2/", "ghcr.io", true),
            ("ghcr.io/org", "ghcr.io", true),
            ("ghcr.io:443", "ghcr.io", false),
            ("ghcr.io", "ghcr.io:443", false),
            ("notghcr.io", "ghcr.io", false),
            ("https://", "ghcr.io", false),
            ("", "ghcr.io", false),
            ("localhost:5000", "localhost:5000", true),
            ("http://localhost:5000/v1/", "localhost:5000", true),
            ("localhost", "localhost:5000", false),
            ("[::1]:5000", "[::1]:5000", true),
            ("https://[::1]:5000/v2", "[::1]:5000", true),
            ("https://index.docker.io/v1/", "docker.io", true),
            ("https://index.docker.io/v1", "docker.io", true),
            ("index.docker.io", "docker.io", true),
            ("docker.io", "docker.io", true),
            ("https://registry-1.docker.io/v2/", "docker.io", true),
            ("https://index.docker.io/v1/access-token", "docker.io", false),
            ("https://index.docker.io/v1/refresh-token", "docker.io", false),
            ("hub.docker.io", "docker.io", false),
            ("https://index.docker.io/v1/", "index.docker.io.example", false),
        ];
        for (key, host, found) in cases {
            let file = json!({"auths": {key: auth("u:p")}, "credHelpers": {key: "h"}});
            assert_eq!(entry(&file, host).is_some(), found, "{key} for {host}");
            assert_eq!(config(&file).helper(host).is_some(), found, "{key} for {host}");
        }
    }

    #[test]
    fn the_exact_key_wins_and_an_empty_entry_is_skipped() {
        let file = json!({"auths": {
            "https://h.io/v1/": auth("long:x"), "h.io/": auth("short:x"), "h.io": auth("own:x"),
            "e.io": {}, "https://e.io": auth("full:x"), "n.io": null, "b.io": {"auth": "", "email": "x"},
        }});
        assert_eq!(entry(&file, "h.io"), Some(user("own", "x")));
        assert_eq!(entry(&file, "e.io"), Some(user("full", "x")));
        assert_eq!((entry(&file, "n.io"), entry(&file, "b.io"), entry(&file, "z.io")), (None, None, None));
        let file = json!({"auths": {"https://h.io/v1/": auth("long:x"), "h.io/": auth("short:x")}});
        assert_eq!(entry(&file, "h.io"), Some(user("short", "x")));
    }

    #[test]
    fn entries_are_parsed() {
        let token = Credential { identity_token: Secret::new("t"), ..Credential::default() };
        let bearer = Credential { registry_token: Secret::new("r"), ..Credential::default() };
        let both = Credential { identity_token: Secret::new("t"), ..user("0000", "") };
        let unpadded = BASE64.encode(b"u:pa").trim_end_matches('=').to_owned();
        let cases = [
            (auth("u:p"), user("u", "p")),
            (auth("u:p:q"), user("u", "p:q")),
            (auth("u:"), user("u", "")),
            (auth("u:p\0\0"), user("u", "p")),
            (auth("ü:ß"), user("ü", "ß")),
            (json!({"auth": format!("{}\n", BASE64.encode(b"u:p"))}), user("u", "p")),
            (json!({ "auth": unpadded }), user("u", "pa")),
            (json!({"username": "u", "password": "p"}), user("u", "p")),
            (json!({"auth": "", "username": "u", "password": "p"}), user("u", "p")),
            (json!({"auth": BASE64.encode(b"a:b"), "username": "u", "password": "p"}), user("a", "b")),
            (json!({"identitytoken": "t"}), token),
            (json!({"auth": BASE64.encode(b"0000:"), "identitytoken": "t"}), both),
            (json!({"registrytoken": "r", "email": null, "more": [1]}), bearer),
        ];
        for (value, expected) in cases {
            assert_eq!(entry(&json!({"auths": {"h": value}}), "h"), Some(expected), "{value}");
        }
    }

    #[test]
    fn a_malformed_entry_is_named_but_not_quoted() {
        for bad in ["MARKER!", "MARKERxxx", &BASE64.encode(b"MARKER"), &BASE64.encode(b":MARKER"), "/w=="] {
            let file = json!({"auths": {"h": {"auth": bad}, "other": auth("u:p")}});
            let error = config(&file).entry("h").unwrap_err();
            assert!(matches!(&error, DockerConfigError::Auth { key } if key == "h"), "{error}");
            assert!(!error.to_string().contains("MARKER"));
            assert_eq!(entry(&file, "other"), Some(user("u", "p")), "other entries still work");
        }
        let file = json!({"auths": {"h": auth(&format!("u:{}", "p".repeat(70_000)))}});
        let error = config(&file).entry("h").unwrap_err();
        assert!(matches!(&error, DockerConfigError::TooLong { key } if key == "h"), "{error}");
    }

    #[test]
    fn a_registrys_own_helper_takes_precedence() {
        let file = json!({"credsStore": "all", "credHelpers":
            {"h:1": "own", "off.io": "", "null.io": null, "https://index.docker.io/v1/": "hub"}});
        let file = config(&file);
        assert_eq!(file.helper("h:1"), Some("own"));
        assert_eq!(file.helper("docker.io"), Some("hub"));
        assert_eq!(file.helper("other"), Some("all"));
        assert_eq!((file.helper("off.io"), file.helper("null.io")), (None, None));
        assert_eq!(config(&json!({"credsStore": ""})).helper("h"), None);
        assert_eq!(config(&json!({})).helper("h"), None);
    }

    #[test]
    fn docker_hub_has_its_own_server_name() {
        assert_eq!((server("docker.io"), server("h:1")), ("https://index.docker.io/v1/", "h:1"));
    }

    #[test]
    fn a_malformed_file_is_an_error_that_quotes_nothing() {
        for text in ["MARKER", "{\"MARKER", "{,}", "\u{feff}{}", "\0"] {
            let error = DockerConfig::parse(text.as_bytes()).err().unwrap();
            assert!(matches!(error, DockerConfigError::NotJson { .. }), "{text}: {error}");
            assert!(!error.to_string().contains("MARKER"), "{error}");
        }
        let values = [
            json!("MARKER"),
            json!([]),
            json!([1]),
            json!({"auths": ["MARKER"]}),
            json!({"auths": {"h": "MARKER"}}),
            json!({"auths": {"h": {"auth": ["MARKER"]}}}),
            json!({"credHelpers": "MARKER"}),
            json!({"credHelpers": {"h": ["MARKER"]}}),
            json!({"credsStore": {"MARKER": 1}}),
        ];
        for value in values {
            let error = DockerConfig::parse(value.to_string().as_bytes()).err().unwrap();
            assert!(matches!(error, DockerConfigError::Structure { line: 1, .. }), "{value}: {error}");
            assert!(!error.to_string().contains("MARKER"), "{error}");
        }
        assert!(DockerConfig::parse(&[0xff, 0xfe]).is_err());
        let deep = format!("{{\"x\":{}", "[".repeat(100_000));
        assert!(DockerConfig::parse(deep.as_bytes()).is_err());
        for nothing in ["", " \n", "{}", "{\"auths\":null,\"credHelpers\":null,\"credsStore\":null}", "{} x"]
        {
            let file =
                DockerConfig::parse(nothing.as_bytes()).unwrap_or_else(|error| panic!("{nothing}: {error}"));
            assert!(file.helper("h").is_none() && file.entry("h").unwrap().is_none());
        }
    }

    #[test]
    fn truncated_and_corrupt_files_are_handled() {
        let whole =
            json!({"auths": {"h": auth("u:p"), "https://index.docker.io/v1/": {"identitytoken": "t"}},
            "credHelpers": {"g": "x"}, "credsStore": "y", "HttpHeaders": {"a": "ü"}})
            .to_string();
        let try_all = |bytes: &[u8]| {
            if let Ok(file) = DockerConfig::parse(bytes) {
                for host in ["h", "g", "docker.io", ""] {
                    let _ = (file.helper(host), file.entry(host));
                }
            }
        };
        for end in 0..=whole.len() {
            try_all(&whole.as_bytes()[..end]);
            assert_eq!(DockerConfig::parse(&whole.as_bytes()[..end]).is_ok(), end == 0 || end == whole.len());
        }
        for index in 0..whole.len() {
            for flip in [0x01, 0x20, 0x80, 0xff] {
                let mut bytes = whole.clone().into_bytes();
                bytes[index] ^= flip;
                try_all(&bytes);
            }
        }
    }
}
