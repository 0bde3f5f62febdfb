//! Errors in settings, each on one line without a secret.

/// How much of an invalid value is shown, in characters.
const SHOWN: usize = 100;

/// Why the settings cannot be used. Names the flag or the variable that was set, with its line if a file sets it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// No API key.
    #[error("missing API key: set OZ_API_KEY or OZ_API_KEY_FILE")]
    MissingApiKey,
    /// No worker ID.
    #[error(
        "missing worker ID: set --worker-id or OZ_WORKER_ID to a name that no other worker uses; the host's name is empty, localhost or \
         the id of a container"
    )]
    MissingWorkerId,
    /// Only one of two settings that need each other.
    #[error("{given} can only be used together with {missing}; set both")]
    HalfClient {
        /// The one that is set.
        given: String,
        /// The other.
        missing: String,
    },
    /// A value is out of bounds or not understood.
    #[error("invalid {setting} {value}: {right}")]
    Invalid {
        /// The flag or variable.
        setting: String,
        /// The value, quoted and cut; never a secret.
        value: String,
        /// What would be valid.
        right: String,
    },
    /// The same for a value that must not be shown.
    #[error("invalid {setting}: {right}")]
    Hidden {
        /// The flag or variable.
        setting: String,
        /// What would be valid.
        right: String,
    },
    /// The key file cannot be read.
    #[error("cannot read {setting} {path}: {right}")]
    KeyFile {
        /// The flag or variable.
        setting: String,
        /// The path, quoted and cut.
        path: String,
        /// What would be valid.
        right: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}

/// Every error in the settings, at least one.
#[derive(Debug)]
pub(crate) struct ConfigErrors(pub(crate) Vec<ConfigError>);

impl ConfigError {
    pub(super) fn invalid(setting: &str, value: &str, right: impl Into<String>) -> Self {
        Self::Invalid { setting: setting.into(), value: quoted(value), right: right.into() }
    }

    pub(super) fn hidden(setting: &str, right: impl Into<String>) -> Self {
        Self::Hidden { setting: setting.into(), right: right.into() }
    }

    pub(super) fn key_file(setting: &str, path: &str, source: std::io::Error) -> Self {
        let right = if path.starts_with("/run/secrets/") {
            "must be a file that this user may read, in a Swarm a secret of the service"
        } else {
            "must be a file that this user may read"
        };
        Self::KeyFile { setting: setting.into(), path: quoted(path), right, source }
    }
}

/// A value in quotes on one line, cut after [`SHOWN`] characters.
fn quoted(value: &str) -> String {
    let end = value.char_indices().nth(SHOWN).map(|(index, _)| index);
    match end.and_then(|end| value.split_at_checked(end)) {
        Some((start, _)) => format!("{start:?}..."),
        None => format!("{value:?}"),
    }
}
