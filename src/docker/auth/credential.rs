//! A registry credential: parsed from a helper's output, and encoded for the header `X-Registry-Auth`. Pure.
//!
//! The header's fields are those of `AuthConfig` in the Engine API, the output's those of docker-credential-helpers.

use data_encoding::BASE64URL;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::secret::Secret;

/// The user name that marks a helper's secret as an identity token.
const TOKEN_USER: &str = "<token>";
/// The most bytes of a credential. Real tokens have a few thousand bytes; the engine's limit for a head is 1 MiB.
const MAX_BYTES: usize = 64 * 1024;

/// One credential. Unused fields are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Credential {
    pub(super) username: String,
    pub(super) password: Secret,
    /// An OAuth refresh token, which the engine exchanges for a token of the registry.
    pub(super) identity_token: Secret,
    /// A bearer token, sent to the registry as is.
    pub(super) registry_token: Secret,
}

/// A helper's output. Docker's decoder (Go) ignores the case of names.
#[derive(Deserialize)]
struct Printed {
    #[serde(rename = "Username", alias = "username", default)]
    username: String,
    #[serde(rename = "Secret", alias = "secret", default)]
    secret: String,
}

impl Credential {
    /// Returns whether all fields are empty.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether it has more than 64 KiB.
    pub(super) fn is_too_long(&self) -> bool {
        self.len() > MAX_BYTES
    }

    fn len(&self) -> usize {
        let secrets = [&self.password, &self.identity_token, &self.registry_token];
        self.username.len() + secrets.iter().map(|secret| secret.expose().len()).sum::<usize>()
    }

    /// Parses the output of a successful helper. Returns `None` if it is malformed, without the parser's error, which may
    /// quote a secret.
    pub(super) fn from_helper(output: &[u8]) -> Option<Self> {
        // serde would read a list as the fields in their order.
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

    /// Returns the value of `X-Registry-Auth`: JSON as base64url with padding. The engine ignores a value that it cannot
    /// decode and pulls anonymously.
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
    fn the_header_is_padded_base64url_of_the_filled_fields() {
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

    /// With bytes whose plain base64 has `+` and `/`, and all lengths of padding.
    #[test]
    fn the_header_decodes_for_any_password() {
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
    fn helper_output_is_parsed() {
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
    fn debug_hides_secrets_and_sizes_are_checked() {
        let mut credential = Credential::default();
        assert!(credential.is_empty());
        credential.registry_token = Secret::new("x".repeat(MAX_BYTES));
        assert!(!credential.is_empty() && !credential.is_too_long());
        credential.username = "u".into();
        assert!(credential.is_too_long());
        assert!(!format!("{credential:?}").contains("xx"));
    }
}
