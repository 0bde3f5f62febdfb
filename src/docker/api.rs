//! The engine's objects, as far as this worker uses them.
//!
//! Owns the field names of the Engine API (its reference is the swagger file of the engine, API 1.41) and the shapes
//! that other rooms see. It must not know HTTP.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::secret::Secret;

/// An API version such as 1.41; ordered by its numbers, not as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    /// The number before the dot.
    pub major: u16,
    /// The number after it.
    pub minor: u16,
}

impl ApiVersion {
    /// The oldest that has all we call (`platform` at create), as in engine 20.10.
    pub const MIN: Self = Self { major: 1, minor: 41 };
    /// The newest that we have read the reference of.
    pub const MAX: Self = Self { major: 1, minor: 47 };

    /// Reads `1.41`; `None` for everything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        let number = |part: &str| {
            let digits = !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
            if digits { part.parse().ok() } else { None }
        };
        Some(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What is known of the engine since the connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Its release, such as `20.10.24`.
    pub version: String,
    /// The API version that all calls use.
    pub api_version: ApiVersion,
    /// The operating system of its containers, such as `linux`.
    pub os: String,
    /// The architecture in Go's names: `amd64`, `arm64`.
    pub arch: String,
    /// Processors that the engine may use.
    pub cpus: u32,
    /// Bytes of memory of its machine.
    pub memory: u64,
    /// The name of its machine; empty when it does not say.
    pub host: String,
    /// Its data folder on that machine; empty when it does not say.
    pub root: String,
}

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    /// `sha256:` and its digest.
    pub id: String,
    /// Such as `linux`.
    #[serde(default)]
    pub os: String,
    /// In Go's names.
    #[serde(default)]
    pub architecture: String,
    /// Such as `v8`; empty when the image does not say.
    #[serde(default)]
    pub variant: String,
}

/// How far a pull is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Layers that the engine has named so far.
    pub layers: usize,
    /// Those that are there.
    pub layers_done: usize,
    /// Bytes downloaded.
    pub bytes: u64,
    /// Bytes to download, of the layers whose size is known by now.
    pub bytes_total: u64,
}

/// What a new container is to be. `Debug` shows neither its environment nor its arguments.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateContainer {
    /// Image name or id.
    pub image: String,
    /// Replaces the image's own; `Some(vec![])` clears it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The arguments after the entrypoint; some of them may be secrets.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "exposed")]
    pub cmd: Vec<Secret>,
    /// `KEY=VALUE` each; the values are secrets.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "exposed")]
    pub env: Vec<Secret>,
    /// An absolute path; made when it does not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// For finding it again.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The part that concerns the engine's machine.
    pub host_config: HostConfig,
}

impl fmt::Debug for CreateContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateContainer")
            .field("image", &self.image)
            .field("entrypoint", &self.entrypoint)
            .field("cmd", &format_args!("{} arguments", self.cmd.len()))
            .field("env", &format_args!("{} variables", self.env.len()))
            .field("working_dir", &self.working_dir)
            .field("labels", &self.labels)
            .field("host_config", &self.host_config)
            .finish()
    }
}

fn exposed<S: Serializer>(secrets: &[Secret], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(Secret::expose))
}

/// Limits and mounts of a container. There is no `AutoRemove` on purpose: it acts only after an exit and takes the
/// logs along.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostConfig {
    /// `HOST:CONTAINER[:MODE]`; only for what the operator wrote in that form.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<String>,
    /// Everything else: no colon can add a part here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Billionths of a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nano_cpus: Option<i64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
    /// Bytes of memory and swap together; the same as `memory` means no swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<i64>,
    /// An init process that reaps orphans and passes signals on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// The most processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// Such as `none` or a network's name; the engine's default otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<String>,
}

/// One mount of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Mount {
    /// What `source` names.
    #[serde(rename = "Type")]
    pub kind: MountKind,
    /// A volume's name, or a path on the engine's machine; empty for a tmpfs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// An absolute path in the container.
    pub target: String,
    /// Whether the container may not write.
    pub read_only: bool,
    /// Only for volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
}

/// Kinds of mounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A named volume, made when it does not exist.
    #[default]
    Volume,
    /// A path that must exist on the engine's machine.
    Bind,
    /// Memory.
    Tmpfs,
}

/// How a volume is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeOptions {
    /// Do not fill an empty volume from the image's folder of that path.
    pub no_copy: bool,
    /// For a volume that this mount makes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Created {
    /// 64 hexadecimal digits.
    pub id: String,
    /// What the engine would not or could not do as asked.
    #[serde(default, deserialize_with = "or_default")]
    pub warnings: Vec<String>,
}

/// A container as inspect shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "RawContainer")]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the engine's leading slash.
    pub name: String,
    /// The image's name as it was given at the create.
    pub image: String,
    /// RFC 3339, as the engine wrote it.
    pub created: String,
    /// For finding it again.
    pub labels: BTreeMap<String, String>,
    /// What it is doing.
    pub state: State,
    /// The names of the volumes that it has mounted.
    pub volumes: Vec<String>,
}

/// What a container is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub status: String,
    /// Whether its process is there.
    pub running: bool,
    /// Of the last exit; 0 before.
    pub exit_code: i64,
    /// The kernel killed it for memory. The engine sets it a moment after the exit.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Why it could not be started.
    pub error: String,
    /// RFC 3339; the year 1 when it never was.
    pub started_at: String,
    /// RFC 3339; the year 1 when it never was.
    pub finished_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawContainer {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    created: String,
    #[serde(default, deserialize_with = "or_default")]
    config: RawConfig,
    #[serde(default, deserialize_with = "or_default")]
    state: State,
    #[serde(default, deserialize_with = "or_default")]
    mounts: Vec<RawMount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawMount {
    /// Only volumes have one.
    #[serde(default)]
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    image: String,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
}

impl From<RawContainer> for Container {
    fn from(raw: RawContainer) -> Self {
        Self {
            id: raw.id,
            name: raw.name.trim_start_matches('/').to_owned(),
            image: raw.config.image,
            created: raw.created,
            labels: raw.config.labels,
            state: raw.state,
            volumes: raw.mounts.into_iter().map(|mount| mount.name).filter(|name| !name.is_empty()).collect(),
        }
    }
}

/// A container as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerSummary {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Each with a leading slash, as the engine writes them.
    #[serde(default, deserialize_with = "or_default")]
    pub names: Vec<String>,
    /// All of its labels.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// As [`State::status`].
    #[serde(default)]
    pub state: String,
    /// The image's name.
    #[serde(default)]
    pub image: String,
}

/// A named volume.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// All of its labels.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// RFC 3339, to the second; when files were last put into its top folder. Empty when the engine does not say.
    #[serde(default)]
    pub created_at: String,
}

/// What is at a path in a container (the header `X-Docker-Container-Path-Stat`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PathStat {
    /// The last part of the path.
    pub name: String,
    /// Bytes.
    #[serde(default)]
    pub size: i64,
    /// Bits of Go's `os.FileMode`, which are not those of stat(2).
    pub mode: u32,
    /// Where a symbolic link points to; else empty.
    #[serde(default, rename = "linkTarget")]
    pub link_target: String,
}

impl PathStat {
    const DIR: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    /// Every bit of `os.ModeType`: dir, symlink, device, pipe, socket, character device, irregular.
    const TYPE: u32 = Self::DIR | Self::SYMLINK | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;

    /// A folder.
    pub fn is_dir(&self) -> bool {
        self.mode & Self::DIR != 0
    }

    /// A regular file.
    pub fn is_file(&self) -> bool {
        self.mode & Self::TYPE == 0
    }

    /// A symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.mode & Self::SYMLINK != 0
    }
}

/// Where a piece of a log came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// The container's standard output.
    Stdout,
    /// Its standard error.
    Stderr,
    /// The engine's own words about a failure to read the log.
    Engine,
}

/// Go writes an empty list or map as `null`.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let version = |text| ApiVersion::parse(text).unwrap();
        assert!(version("1.9") < version("1.41"));
        assert!(version("2.0") > version("1.99"));
        assert_eq!(version(" 1.41 ").to_string(), "1.41");
        for bad in ["", "1", "1.", ".1", "v1.41", "1.41.0", "1.+4", "1.99999"] {
            assert_eq!(ApiVersion::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_create_has_the_engines_names_and_no_empty_fields() {
        let mount = Mount {
            source: "v".into(),
            target: "/agent".into(),
            read_only: true,
            volume_options: Some(VolumeOptions { no_copy: true, ..VolumeOptions::default() }),
            ..Mount::default()
        };
        let create = CreateContainer {
            image: "i".into(),
            entrypoint: Some(Vec::new()),
            env: vec![Secret::new("K=hunter2")],
            host_config: HostConfig { mounts: vec![mount], nano_cpus: Some(5), ..HostConfig::default() },
            ..CreateContainer::default()
        };
        let json = serde_json::to_string(&create).unwrap();
        assert_eq!(
            json,
            r#"{"Image":"i","Entrypoint":[],"Env":["K=hunter2"],"HostConfig":{"Mounts":[{"Type":"volume","Source":"v","Target":"/agent","ReadOnly":true,"VolumeOptions":{"NoCopy":true}}],"NanoCpus":5}}"#
        );
        assert!(!format!("{create:?}").contains("hunter2"));
    }

    #[test]
    fn an_inspected_container_with_nulls() {
        let json = r#"{"Id":"a","Name":"/n","Created":"2020","Image":"sha256:1","Config":{"Image":"busybox","Labels":null},
            "State":{"Status":"exited","Running":false,"OOMKilled":true,"ExitCode":137,"Error":"e","StartedAt":"s","FinishedAt":"f"},
            "Mounts":[{"Type":"bind","Source":"/x"},{"Type":"volume","Name":"v","Source":"/y"}]}"#;
        let container: Container = serde_json::from_str(json).unwrap();
        assert_eq!((container.name.as_str(), container.image.as_str()), ("n", "busybox"));
        assert!(container.labels.is_empty() && container.state.oom_killed);
        assert_eq!((container.state.exit_code, container.volumes), (137, vec!["v".to_owned()]));
    }

    #[test]
    fn modes_are_those_of_go() {
        let stat = |mode| PathStat { name: String::new(), size: 0, mode, link_target: String::new() };
        assert!(stat(0o644).is_file() && !stat(0o644).is_dir());
        assert!(stat(2_147_484_141).is_dir() && !stat(2_147_484_141).is_file());
        assert!(stat(134_218_239).is_symlink() && !stat(134_218_239).is_file());
        assert!(!stat(1 << 25).is_file() && !stat(1 << 26 | 1 << 21).is_file());
    }
}
