//! A string that must not be seen: the API key, values of environment variables, registry passwords.
//!
//! Owns the one type that keeps such a string out of logs, errors and panic messages. It must not know what the
//! secret is for.

use std::fmt;

/// A string whose `Debug` and `Display` print `«redacted»`. It reaches the outside only through [`Secret::expose`],
/// so a search for that name finds every place where one can leak.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a string.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The string itself, for the wire only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("«redacted»")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("«redacted»")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn neither_debug_nor_display_shows_it() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)),
            "«redacted» «redacted» Some(«redacted»)"
        );
        assert_eq!(secret.expose(), "hunter2");
    }
}
