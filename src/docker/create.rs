//! The JSON objects with which a container is created (API 1.41; field names as in the engine's swagger file).

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Not;

use serde::{Deserialize, Serialize, Serializer};

use super::api::or_default;
use crate::secret::Secret;

/// The definition of a new container. `Debug` hides the environment and the arguments.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateContainer {
    /// The image's name or id.
    pub image: String,
    /// Replaces the image's entrypoint; `Some(vec![])` clears it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The arguments after the entrypoint. Some may be secrets.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "exposed")]
    pub cmd: Vec<Secret>,
    /// The environment as `KEY=VALUE`. Values may be secrets.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "exposed")]
    pub env: Vec<Secret>,
    /// An absolute path, created if missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The signal of a stop by the engine, instead of the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// `USER[:GROUP]`, instead of the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Labels by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Limits and mounts.
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
            .field("stop_signal", &self.stop_signal)
            .field("user", &self.user)
            .field("labels", &self.labels)
            .field("host_config", &self.host_config)
            .finish()
    }
}

fn exposed<S: Serializer>(secrets: &[Secret], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(Secret::expose))
}

/// Limits and mounts of a container. `AutoRemove` is left out on purpose: the logs would be removed with the container.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostConfig {
    /// `HOST:CONTAINER[:MODE]`, only as the operator wrote them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<String>,
    /// All other mounts. Unlike in `binds`, a colon in a name has no meaning here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Billionths of a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nano_cpus: Option<i64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
    /// Bytes of memory plus swap; equal to `memory` to forbid swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<i64>,
    /// Bytes that the kernel leaves to the container when memory is short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<i64>,
    /// Processes and threads; -1 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// The size of `/dev/shm` in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<i64>,
    /// Resource limits of each process.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<ProcessLimit>,
    /// A network by name or id, `host`, `none`, or `container:` and a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<String>,
    /// Addresses of DNS servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Domains in which names are looked up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// Each is `HOST:IP`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<String>,
    /// Names of capabilities, or `ALL`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Names of capabilities, or `ALL`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// Such as `no-new-privileges`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_opt: Vec<String>,
    /// Whether the root file system is read-only.
    #[serde(skip_serializing_if = "Not::not")]
    pub readonly_rootfs: bool,
    /// The options of each file system in memory, by path.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, String>,
    /// Whether an init process reaps zombies; `None` is the engine's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// The OCI runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// GPUs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_requests: Vec<DeviceRequest>,
    /// Where the log goes; `None` is the engine's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_config: Option<LogConfig>,
}

/// A resource limit of each process in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProcessLimit {
    /// Such as `nofile`.
    pub name: String,
    /// -1 for no limit.
    pub soft: i64,
    /// -1 for no limit.
    pub hard: i64,
}

/// A request for devices, of which the engine's driver chooses those that match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeviceRequest {
    /// How many; -1 for all. 0 with `device_ids`.
    pub count: i64,
    /// Indexes or ids.
    #[serde(rename = "DeviceIDs", skip_serializing_if = "Vec::is_empty")]
    pub device_ids: Vec<String>,
    /// One of these lists of capabilities must be complete.
    pub capabilities: Vec<Vec<String>>,
}

/// Where the log of a container goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    /// The driver; empty for the engine's default.
    #[serde(rename = "Type")]
    pub driver: String,
    /// The driver's options. The engine adds those of its default that are not set.
    #[serde(rename = "Config", deserialize_with = "or_default")]
    pub options: BTreeMap<String, String>,
}

/// A named volume in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase", tag = "Type", rename = "volume")]
pub struct Mount {
    /// The volume's name. The engine creates a missing volume.
    pub source: String,
    /// An absolute path in the container.
    pub target: String,
    /// Whether the container is denied writing.
    pub read_only: bool,
    /// How the volume is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
}

/// How a volume is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeOptions {
    /// Keeps an empty volume empty, instead of filling it from the image's folder at the same path.
    pub no_copy: bool,
    /// The labels if this mount creates the volume.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The answer to a create.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Created {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The engine's warnings, such as a limit that it cannot enforce.
    #[serde(default, deserialize_with = "or_default")]
    pub warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_uses_the_engines_field_names_and_omits_empty_fields() {
        let mount = Mount {
            source: "v".into(),
            target: "/agent".into(),
            read_only: true,
            volume_options: Some(VolumeOptions { no_copy: true, ..VolumeOptions::default() }),
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
    fn limits_have_the_engines_names() {
        let host_config = HostConfig {
            pids_limit: Some(-1),
            ulimits: vec![ProcessLimit { name: "nofile".into(), soft: 1, hard: 2 }],
            readonly_rootfs: true,
            device_requests: vec![DeviceRequest {
                device_ids: vec!["0".into()],
                capabilities: vec![vec!["gpu".into()]],
                ..DeviceRequest::default()
            }],
            log_config: Some(LogConfig {
                driver: String::new(),
                options: [("max-size".into(), "1m".into())].into(),
            }),
            ..HostConfig::default()
        };
        let json = serde_json::to_string(&host_config).unwrap();
        assert_eq!(
            json,
            r#"{"PidsLimit":-1,"Ulimits":[{"Name":"nofile","Soft":1,"Hard":2}],"ReadonlyRootfs":true,"DeviceRequests":[{"Count":0,"DeviceIDs":["0"],"Capabilities":[["gpu"]]}],"LogConfig":{"Type":"","Config":{"max-size":"1m"}}}"#
        );
    }
}
