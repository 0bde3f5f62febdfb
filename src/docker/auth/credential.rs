//! What a registry is shown: a user with a password, or a token, and its form in `X-Registry-Auth`.
//!
//! Owns that form and what a credential helper prints. Pure. It must not know where files and helpers are. The fields are
//! those of `AuthConfig` in the Engine API; a helper's are those of Docker's docker-credential-helpers.

use data_encoding::BASE64URL;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::secret::Secret;

/// The user name by which a helper says that its secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// The most bytes that one credential may have in all. The engine's limit for a whole head is 1 MiB; real tokens have
/// a few thousand bytes.
const MAX_BYTES: usize = 64 * 1024;

/// One credential; at least one of its fields has something in it when it is of use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Credential {
    pub(super) username: String,
    pub(super) password: Secret,
    /// An OAuth refresh token, which the engine trades for a registry's own.
    pub(super) identity_token: Secret,
    /// A bearer token that is shown to the registry as it is.
    pub(super) registry_token: Secret,
}

/// What a helper prints. Go's decoder, which Docker reads it with, does not mind the case of names.
#[derive(Deserialize)]
struct Printed {
    #[serde(rename = "Username", alias = "username", default)]
    username: String,
    #[serde(rename = "Secret", alias = "secret", default)]
    secret: String,
}

impl Credential {
    /// Whether there is nothing to show.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is larger than any that a registry takes.
    pub(super) fn is_too_long(&self) -> bool {
        self.len() > MAX_BYTES
    }

    fn len(&self) -> usize {
        let secrets = [&self.password, &self.identity_token, &self.registry_token];
        self.username.len() + secrets.iter().map(|secret| secret.expose().len()).sum::<usize>()
    }

    /// Reads what a helper printed on success; `None` when that is not JSON with the right fields. The reader's own error is
    /// not kept, since it may quote a secret.
    pub(super) fn from_helper(output: &[u8]) -> Option<Self> {
        // serde would take a list for the fields in their order.
        if !output.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        let mut values = serde_json::Deserializer::from_slice(output).into_iter::<Printed>();
        let Printed { username, secret } = values.next()?.ok()?;
        let secret = Secret::new(secret);
        Some(match username.as_str() {
            TOKEN_USER => Self { identity_token: secret, ..Self::default() },
            _ => Self { username, password: secret, ..Self::default() },
        })
    }

    /// The value of `X-Registry-Auth`: JSON as base64url *with* padding. The engine ignores one that it cannot decode, and
    /// pulls as anonymous.
    pub(super) fn header(&self, server: &str) -> Secret {
        let fields = [
            ("username", self.username.as_str()),
            ("password", self.password.expose()),
            ("identitytoken", self.identity_token.expose()),
            ("registrytoken", self.registry_token.expose()),
            ("serveraddress", server),
        ];
        let filled = fields.into_iter().filter(|(_, text)| !text.is_empty());
        let json: Map<String, Value> = filled.map(|(name, text)| (name.to_owned(), text.into())).collect();
        Secret::new(BASE64URL.encode(Value::Object(json).to_string().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decoded(header: &Secret) -> Value {
        serde_json::from_slice(&BASE64URL.decode(header.expose().as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn the_header_is_padded_base64url_of_what_there_is() {
        let credential =
            Credential { username: "u".into(), password: Secret::new("p"), ..Credential::default() };
        let expected = json!({"username": "u", "password": "p", "serveraddress": "h:1"});
        assert_eq!(decoded(&credential.header("h:1")), expected);
        let tokens = Credential {
            identity_token: Secret::new("i"),
            registry_token: Secret::new("r"),
            ..Credential::default()
        };
        let expected = json!({"identitytoken": "i", "registrytoken": "r", "serveraddress": "h"});
        assert_eq!(decoded(&tokens.header("h")), expected);
    }

    /// Bytes whose plain base64 would have `+` and `/`, and every length that padding depends on.
    #[test]
    fn every_header_decodes() {
        for length in 0..64 {
            let password = "~?>ÿ\u{10ffff}\"\\\n".chars().cycle().take(length).collect::<String>();
            let credential = Credential {
                username: "ü".into(),
                password: Secret::new(&password),
                ..Credential::default()
            };
            let header = credential.header("h");
            assert_eq!(decoded(&header)["password"].as_str().unwrap_or_default(), password);
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_=".contains(c);
            assert!(header.expose().len().is_multiple_of(4) && header.expose().chars().all(allowed));
        }
    }

    #[test]
    fn what_helpers_print() {
        let read = |text: &str| Credential::from_helper(text.as_bytes());
        let user = Credential { username: "u".into(), password: Secret::new("s"), ..Credential::default() };
        assert_eq!(read(r#"{"ServerURL":"h","Username":"u","Secret":"s"}"#).as_ref(), Some(&user));
        assert_eq!(read("{\"username\":\"u\",\"secret\":\"s\"}\nbye\n").as_ref(), Some(&user));
        let token = Credential { identity_token: Secret::new("t"), ..Credential::default() };
        assert_eq!(read(r#"{"Username":"<token>","Secret":"t"}"#), Some(token));
        assert_eq!(read(r#"{"Username":"","Secret":""}"#), Some(Credential::default()));
        for garbage in
            ["", "no", "[]", r#"["u","s"]"#, "7", r#"{"Username":7}"#, r#"{"Username":"u","Secret":"#]
        {
            assert_eq!(read(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn it_says_what_is_empty_or_too_long_and_shows_nothing() {
        let mut credential = Credential::default();
        assert!(credential.is_empty());
        credential.registry_token = Secret::new("x".repeat(MAX_BYTES));
        assert!(!credential.is_empty() && !credential.is_too_long());
        credential.username = "u".into();
        assert!(credential.is_too_long());
        assert!(!format!("{credential:?}").contains("xx"));
    }
}
