//! The JSON objects of the Engine API that this worker uses (API 1.41; field names as in the engine's swagger file).

use std::collections::BTreeMap;
use std::fmt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::json::own_labels;
use super::observe::Properties;
use crate::net::digits::number;

/// An API version such as 1.41, ordered numerically.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    /// The number before the dot.
    pub major: u16,
    /// The number after the dot.
    pub minor: u16,
}

impl ApiVersion {
    /// The oldest supported version, that of engine 20.10. The first with `platform` at create.
    pub const MIN: Self = Self { major: 1, minor: 41 };
    /// The newest version that this client was checked against.
    pub const MAX: Self = Self { major: 1, minor: 47 };

    /// Parses `MAJOR.MINOR`. Returns `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        let part = |text| number(text).and_then(|number| number.try_into().ok());
        Some(Self { major: part(major)?, minor: part(minor)? })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What the engine reported about itself when the client connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// The release, such as `20.10.24`.
    pub version: String,
    /// The API version that was agreed on when the client connected.
    pub api_version: ApiVersion,
    /// The operating system of its containers, such as `linux`.
    pub os: String,
    /// The architecture by its Go name, such as `amd64`.
    pub arch: String,
    /// Whether it runs its containers with containerd, and reached it.
    pub has_containerd: bool,
    /// The number of processors.
    pub cpus: u32,
    /// The name of its machine; empty if not reported.
    pub host: String,
    /// The data folder on that machine; empty if not reported.
    pub root: String,
    /// How it keeps images and logs, and which limits it enforces.
    pub properties: Properties,
}

/// An image on the engine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    /// `sha256:` and the digest.
    pub id: String,
    /// The operating system, such as `linux`.
    #[serde(default)]
    pub os: String,
    /// The architecture by its Go name.
    #[serde(default)]
    pub architecture: String,
}

/// The progress of a pull.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Layers seen so far.
    pub layers: usize,
    /// Layers that are complete.
    pub layers_done: usize,
    /// Bytes downloaded.
    pub bytes: u64,
    /// Bytes to download, for the layers whose size is known so far.
    pub bytes_total: u64,
}

/// A container as inspect shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "RawContainer")]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name, without the engine's leading slash.
    pub name: String,
    /// The id of its image, as an inspect of that image shows it; empty if the engine does not tell.
    pub image: String,
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
    /// The state of its process.
    pub state: State,
    /// The names of its mounted volumes.
    pub volumes: Vec<String>,
}

/// The state of a container's process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub status: String,
    /// Whether the process exists.
    pub running: bool,
    /// The last exit code; 0 before the first exit.
    pub exit_code: i64,
    /// Whether the kernel killed it for its memory. Some engines set this shortly after the exit.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// RFC 3339; in the year 1 if it was never started.
    pub started_at: String,
    /// RFC 3339; in the year 1 before the first exit.
    pub finished_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawContainer {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    image: String,
    #[serde(default, deserialize_with = "or_default")]
    config: RawConfig,
    #[serde(default, deserialize_with = "or_default")]
    state: State,
    #[serde(default, deserialize_with = "or_default")]
    mounts: Vec<RawMount>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawMount {
    /// Set for volumes only.
    #[serde(default)]
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    #[serde(deserialize_with = "own_labels")]
    labels: BTreeMap<String, String>,
}

impl From<RawContainer> for Container {
    fn from(raw: RawContainer) -> Self {
        Self {
            id: raw.id,
            name: raw.name.trim_start_matches('/').to_owned(),
            image: raw.image,
            labels: raw.config.labels,
            state: raw.state,
            volumes: volumes(raw.mounts),
        }
    }
}

fn volumes(mounts: Vec<RawMount>) -> Vec<String> {
    mounts.into_iter().map(|mount| mount.name).filter(|name| !name.is_empty()).collect()
}

/// A container as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerSummary {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The names, each with the engine's leading slash.
    #[serde(default, deserialize_with = "or_default")]
    pub names: Vec<String>,
    /// Labels of this program, by name.
    #[serde(default, deserialize_with = "own_labels")]
    pub labels: BTreeMap<String, String>,
    /// As [`Container::image`].
    #[serde(rename = "ImageID", default, deserialize_with = "or_default_if_other")]
    pub image: String,
    /// As [`State::status`]. Empty if the engine does not tell.
    #[serde(default, deserialize_with = "or_default_if_other")]
    pub state: String,
    /// When it was created, in seconds since 1970. 0 if the engine does not tell.
    #[serde(default, deserialize_with = "or_default_if_other")]
    pub created: i64,
    #[serde(default, deserialize_with = "or_default_if_other")]
    mounts: Vec<RawMount>,
}

impl ContainerSummary {
    /// Returns its names, without the engine's leading slash.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| name.trim_start_matches('/'))
    }

    /// Returns the first name. Empty if it has none.
    pub fn name(&self) -> &str {
        self.names().next().unwrap_or_default()
    }

    /// Returns what the list tells of the container, for one that the engine fails to inspect. It counts as started when it was
    /// created, and its exit is unknown.
    pub fn into_container(self) -> Container {
        // Empty would mean never.
        let created = OffsetDateTime::from_unix_timestamp(self.created).ok().filter(|_| self.created > 0);
        let started_at = created.and_then(|time| time.format(&Rfc3339).ok());
        let started_at = started_at.unwrap_or_else(|| "unknown".to_owned());
        let running = ["running", "paused", "restarting"].contains(&self.state.as_str());
        Container {
            name: self.name().to_owned(),
            id: self.id,
            image: self.image,
            labels: self.labels,
            state: State { status: self.state, running, started_at, ..State::default() },
            volumes: volumes(self.mounts),
        }
    }
}

/// A named volume.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// The name.
    pub name: String,
    /// Labels of this program, by name.
    #[serde(default, deserialize_with = "own_labels")]
    pub labels: BTreeMap<String, String>,
    /// RFC 3339 in seconds: when the top folder last changed. Empty if not reported.
    #[serde(default)]
    pub created_at: String,
}

/// The source of a piece of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// The container's standard output.
    Stdout,
    /// The container's standard error.
    Stderr,
    /// A message of the engine about a log that it cannot read.
    Engine,
}

/// Reads `null` as the default: Go writes an empty list or map that way.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a value of another type as the default: the field is worth less than the answer that it is in.
fn or_default_if_other<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Lenient<T> {
        Expected(T),
        Other(IgnoredAny),
    }
    Ok(match Lenient::deserialize(deserializer)? {
        Lenient::Expected(value) => value,
        Lenient::Other(IgnoredAny) => T::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_numerically() {
        let version = |text| ApiVersion::parse(text).unwrap();
        assert!(version("1.9") < version("1.41"));
        assert!(version("2.0") > version("1.99"));
        assert_eq!(version(" 1.41 ").to_string(), "1.41");
        for bad in ["", "1", "1.", ".1", "v1.41", "1.41.0", "1.+4", "1.99999"] {
            assert_eq!(ApiVersion::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn null_fields_of_an_inspected_container_read_as_empty() {
        let json = r#"{"Id":"a","Name":"/n","Created":"2020","Image":"sha256:1","Config":{"Image":"busybox","Labels":null},
            "State":{"Status":"exited","Running":false,"OOMKilled":true,"ExitCode":137,"Error":"e","StartedAt":"s","FinishedAt":"f"},
            "Mounts":[{"Type":"bind","Source":"/x"},{"Type":"volume","Name":"v","Source":"/y"}]}"#;
        let container: Container = serde_json::from_str(json).unwrap();
        assert_eq!(container.name, "n");
        assert!(container.labels.is_empty() && container.state.oom_killed);
        assert_eq!((container.state.exit_code, container.volumes), (137, vec!["v".to_owned()]));
    }
}
