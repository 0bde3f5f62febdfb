//! Targets for `config.json` and the output of credential helpers: no secret is shown, and the header can be decoded.

use data_encoding::BASE64URL;
use serde_json::Value;

use super::config::{DockerConfig, server};
use super::credential::Credential;
use super::{Login, from_file};
use crate::fuzz::{Input, MARKER, assert_hidden, assert_one_line, marked};

/// Docker Hub, a plain name, a name with a port, and an IP address.
const HOSTS: [&str; 4] = ["docker.io", "ghcr.io", "localhost:5000", "[::1]:5000"];

/// A `config.json`.
pub fn config_json(bytes: &[u8]) {
    let data = Input::new(bytes).data;
    for login in logins(data) {
        if let Some(auth) = &login.auth {
            decoded(auth.expose());
        }
    }
    // Keys and helper names may be shown.
    let is_secret = |path: &str| path.starts_with("/auths/");
    if let Ok(value) = serde_json::from_slice::<Value>(data)
        && !value.to_string().contains(MARKER)
    {
        let logins = logins(marked(&value, "", &is_secret).to_string().as_bytes());
        assert_hidden(&logins.iter().map(|login| format!("{login:?}")).collect::<Vec<_>>());
    }
}

/// Returns the login for each registry, without helpers.
fn logins(data: &[u8]) -> Vec<Login> {
    let config = match DockerConfig::parse(data) {
        Ok(config) => config,
        Err(error) => {
            assert_one_line(&error.to_string(), 128);
            return Vec::new();
        }
    };
    let find = |host: &&str| {
        assert!(config.helper(host).is_none_or(|name| !name.is_empty()));
        let login = from_file(host, &config, "/f".to_owned());
        assert_one_line(&login.explain(host), 2048);
        login
    };
    HOSTS.iter().map(find).collect()
}

/// A helper's output.
pub fn helper_answer(bytes: &[u8]) {
    let data = Input::new(bytes).data;
    let Some(credential) = Credential::from_helper(data) else { return };
    let long = [&credential.password, &credential.identity_token];
    let shown = format!("{credential:?}").replace(&format!("{:?}", credential.username), "");
    let is_seen = |text: &str| text.len() > 24 && shown.contains(text);
    assert!(!long.into_iter().any(|secret| is_seen(secret.expose())), "a secret is shown");
    assert!(credential.identity_token.is_empty() || credential.username.is_empty());
    for host in HOSTS {
        let fields = decoded(credential.header(server(host)).expose());
        let field = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        assert_eq!((field("username"), field("serveraddress")), (credential.username.as_str(), server(host)));
        assert_eq!(field("password"), credential.password.expose());
        assert_eq!(field("identitytoken"), credential.identity_token.expose());
    }
}

fn decoded(header: &str) -> Value {
    let json = BASE64URL.decode(header.as_bytes()).unwrap_or_default();
    let value: Value = serde_json::from_slice(&json).unwrap_or_default();
    assert!(value.is_object() && header.is_ascii(), "the engine would pull anonymously");
    value
}
