//! Readers: each checks the text of one setting and returns its value.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::settings::Echo;
use super::table::WORKER_ID_LIMIT;
use super::{ConfigError, units, url, volumes};
use crate::docker::Reference;
use crate::net::url::redacted;
use crate::policy::{MAX_STRING, VolumeBind};
use crate::secret::Secret;
use crate::sys::environment::Environment;

/// How no worker ID begins.
const RESERVED_IDS: &str = "warp";

/// The text of a setting.
pub(super) struct Given<'a> {
    /// The flag or the variable that it came from, with the line if a file sets it, as errors name it.
    pub(super) name: String,
    pub(super) value: &'a str,
    pub(super) echo: Echo,
    /// The worker's environment.
    pub(super) environment: &'a Environment,
}

impl Given<'_> {
    /// The error for this value. `right` says what would be valid, such as `must be ...`.
    pub(super) fn invalid(&self, right: impl Into<String>) -> ConfigError {
        match self.echo {
            Echo::Whole => ConfigError::invalid(&self.name, self.value, right),
            Echo::Url => ConfigError::invalid(&self.name, &redacted(self.value), right),
            Echo::Nothing => ConfigError::hidden(&self.name, right),
        }
    }

    /// A whole number within `bounds`.
    pub(super) fn number<T>(&self, bounds: RangeInclusive<T>) -> Result<T, ConfigError>
    where
        T: TryFrom<u64> + PartialOrd + Display,
    {
        units::number(self.value)
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| bounds.contains(number))
            .ok_or_else(|| {
                let (least, most) = (bounds.start(), bounds.end());
                self.invalid(format!("must be a whole number from {least} to {most}"))
            })
    }

    /// A duration of at most `most` seconds, which are whole days.
    pub(super) fn duration(&self, most: u64) -> Result<Duration, ConfigError> {
        let seconds = units::duration(self.value).filter(|seconds| *seconds <= most);
        seconds.map(Duration::from_secs).ok_or_else(|| {
            let days = most / (24 * 60 * 60);
            self.invalid(format!("must be a duration such as 90s, 15m, 8h or 1h30m, from 0 to {days}d"))
        })
    }

    /// A duration of at most `most` seconds, as written. It has a unit, because other programs take no bare number.
    pub(super) fn duration_as_written(&self, most: u64) -> Result<String, ConfigError> {
        let text = self.value.trim();
        let is_valid = text.ends_with(|c: char| c.is_ascii_alphabetic())
            && units::duration(text).is_some_and(|seconds| seconds <= most);
        let days = most / (24 * 60 * 60);
        is_valid.then(|| text.to_owned()).ok_or_else(|| {
            self.invalid(format!("must be a duration with units such as 45m or 1h30m, from 0s to {days}d"))
        })
    }

    /// A number of bytes.
    pub(super) fn size(&self) -> Result<u64, ConfigError> {
        units::size(self.value).ok_or_else(|| {
            self.invalid(format!(
                "must be a size from 0 to {} bytes, such as 65536, 512MiB or 1GiB",
                u64::MAX
            ))
        })
    }

    /// A number of bytes within `bounds`, of which the upper one is whole MiB.
    pub(super) fn size_within(&self, bounds: RangeInclusive<usize>) -> Result<usize, ConfigError> {
        let bytes = units::size(self.value).and_then(|bytes| usize::try_from(bytes).ok());
        bytes.filter(|bytes| bounds.contains(bytes)).ok_or_else(|| {
            let (least, most) = (bounds.start(), bounds.end() >> 20);
            self.invalid(format!("must be a size from {least} to {most}MiB, such as 65536, 512KiB or 4MiB"))
        })
    }

    /// The meaning of one of `words`, in upper or lower case.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(self.value.trim()));
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.invalid(format!("must be one of {}", words.join(", ")))
        })
    }
}

/// An API key that fits into a header: visible ASCII and spaces, not blank.
pub(super) fn api_key(given: &Given<'_>) -> Result<Secret, ConfigError> {
    // Some editors start a file with a byte order mark.
    let key = given.value.trim_start_matches('\u{feff}').trim();
    if key.is_empty() {
        return Err(given.invalid("must not be blank"));
    }
    if !key.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Err(given.invalid("must be ASCII without control characters"));
    }
    Ok(Secret::new(key))
}

/// A worker ID: not blank, no control characters, at most [`WORKER_ID_LIMIT`] bytes, and not one that the public control plane
/// reserves.
pub(super) fn worker_id(given: &Given<'_>) -> Result<String, ConfigError> {
    let id = given.value.trim();
    if id.is_empty() || id.len() > WORKER_ID_LIMIT {
        return Err(given.invalid(format!("must be 1 to {WORKER_ID_LIMIT} bytes and not blank")));
    }
    if id.chars().any(char::is_control) {
        return Err(given.invalid("must not contain control characters"));
    }
    if id.starts_with(RESERVED_IDS) {
        return Err(
            given.invalid("must not begin with warp: the public Oz control plane reserves such names")
        );
    }
    Ok(id.into())
}

/// A text that is not blank. `right` says what would be valid.
pub(super) fn not_blank(given: &Given<'_>, right: &str) -> Result<String, ConfigError> {
    if given.value.trim().is_empty() { Err(given.invalid(right)) } else { Ok(given.value.to_owned()) }
}

/// The path of a file.
pub(super) fn path(given: &Given<'_>) -> Result<PathBuf, ConfigError> {
    if given.value.trim().is_empty() || given.value.chars().any(char::is_control) {
        return Err(given.invalid("must be a path, not blank and without control characters"));
    }
    Ok(PathBuf::from(given.value))
}

/// The URL of the WebSocket.
pub(super) fn web_socket_url(given: &Given<'_>) -> Result<Uri, ConfigError> {
    let text = given.value.trim();
    if url::parse(text, url::HTTP).is_ok() {
        let right =
            "must begin with ws:// or wss://; for the root URL of the control plane set --server-root-url";
        return Err(given.invalid(right));
    }
    let uri = url::parse(text, url::WEB_SOCKET).map_err(|right| given.invalid(right))?;
    let names_worker = |query: &str| query.split('&').any(|part| part.starts_with("worker_id="));
    if uri.query().is_some_and(names_worker) {
        return Err(given.invalid("must not have worker_id in its query; --worker-id sets it"));
    }
    Ok(uri)
}

/// A URL of a WebSocket, as written.
pub(super) fn web_socket_text(given: &Given<'_>) -> Result<String, ConfigError> {
    let text = given.value.trim();
    url::parse(text, url::WEB_SOCKET).map_err(|right| given.invalid(right))?;
    Ok(text.to_owned())
}

/// The name of an image.
pub(super) fn image(given: &Given<'_>) -> Result<Reference, ConfigError> {
    Reference::parse(given.value.trim()).map_err(|error| {
        let problem = error.problem;
        given
            .invalid(format!("must be the name of an image, such as registry.example.com/agent:1; {problem}"))
    })
}

/// The root URL of the control plane.
pub(super) fn server_root_url(given: &Given<'_>) -> Result<Uri, ConfigError> {
    let uri = url::parse(given.value.trim(), url::HTTP).map_err(|right| given.invalid(right))?;
    if uri.query().is_some() {
        return Err(given.invalid("must not have a query (?...)"));
    }
    Ok(uri)
}

/// A mount: `HOST:CONTAINER[:MODE]`.
pub(super) fn volume(given: &Given<'_>) -> Result<VolumeBind, ConfigError> {
    volumes::parse(given.value).map_err(|right| given.invalid(right))
}

/// Whether a word without an equals sign is a name of the usual form. Another may be the rest of a value with a space.
pub(super) fn is_usual_name(word: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    word.bytes().all(is_part) && !word.starts_with(|c: char| c.is_ascii_digit())
}

/// A variable for tasks: `NAME=VALUE`, or `NAME` for the value that it has in the worker's environment.
pub(super) fn variable(given: &Given<'_>) -> Result<(String, Secret), ConfigError> {
    let (name, value) = match given.value.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (given.value, None),
    };
    let invalid = |right: &str| ConfigError::invalid(&given.name, name, right);
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let right = "must be KEY=VALUE or KEY, with a name without spaces or control characters";
        // Without an equals sign this may be a name and a value.
        return Err(if value.is_some() { invalid(right) } else { ConfigError::hidden(&given.name, right) });
    }
    let value = match (value, given.environment.get(name)) {
        (Some(value), _) => value,
        (None, Some(own)) => {
            own.to_str().ok_or_else(|| invalid("must be valid UTF-8 in the worker's environment"))?
        }
        (None, None) => {
            let right = "must be KEY=VALUE, or the name of a variable that is set for the worker";
            return Err(if is_usual_name(name) {
                invalid(right)
            } else {
                ConfigError::hidden(&given.name, right)
            });
        }
    };
    if value.contains('\0') {
        return Err(invalid("must not have a NUL in its value"));
    }
    if name.len() + 1 + value.len() > MAX_STRING {
        return Err(invalid(&format!(
            "must have at most {MAX_STRING} bytes with its name, the limit of Linux"
        )));
    }
    Ok((name.to_owned(), Secret::new(value)))
}
