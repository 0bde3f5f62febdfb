//! What is wrong with a setting, in one line.
//!
//! Owns the wording. It must never hold a secret: those who make an error about one leave its value out.

/// The most of a wrong value that is shown, in characters.
const SHOWN: usize = 100;

/// Why there is no configuration. Names the setting as it was given: the flag, or the variable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A required setting was not given.
    #[error("{setting} is missing: {right}")]
    Missing {
        /// The flags and variables that set it.
        setting: String,
        /// What would be right.
        right: String,
    },
    /// A value is out of bounds or not understood.
    #[error("{setting} is {value}: {right}")]
    Invalid {
        /// The flag or variable it came from.
        setting: String,
        /// The value, quoted and cut; never a secret.
        value: String,
        /// What would be right.
        right: String,
    },
    /// The same, for a value that must not be shown.
    #[error("{setting} {right}")]
    Hidden {
        /// The flag or variable it came from.
        setting: String,
        /// What would be right, as a sentence about the setting.
        right: String,
    },
    /// The key file cannot be read.
    #[error("{setting} is {path}, which cannot be read")]
    KeyFile {
        /// The flag or variable it came from.
        setting: String,
        /// The path, quoted and cut.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl ConfigError {
    pub(super) fn invalid(setting: &str, value: &str, right: impl Into<String>) -> Self {
        Self::Invalid { setting: setting.into(), value: shown(value), right: right.into() }
    }

    pub(super) fn hidden(setting: &str, right: impl Into<String>) -> Self {
        Self::Hidden { setting: setting.into(), right: right.into() }
    }

    pub(super) fn missing(setting: &str, right: impl Into<String>) -> Self {
        Self::Missing { setting: setting.into(), right: right.into() }
    }

    pub(super) fn key_file(setting: &str, path: &str, source: std::io::Error) -> Self {
        Self::KeyFile { setting: setting.into(), path: shown(path), source }
    }
}

/// A value on one line and not too long.
fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", value.get(..end).unwrap_or_default()),
        None => format!("{value:?}"),
    }
}
