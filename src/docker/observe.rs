//! Calls that show what containers do, for people.

use std::collections::BTreeMap;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::api::or_default;
use super::containers::container;
use super::json::own_labels;
use super::{Docker, Error, Log, LogConfig, Request, RequestTarget};
use crate::sys::cancel::CancelToken;

/// How an engine keeps images, limits and logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// Such as `overlay2`.
    #[serde(rename = "Driver", deserialize_with = "or_default")]
    pub storage_driver: String,
    /// `1` or `2`; empty if not reported.
    #[serde(rename = "CgroupVersion", deserialize_with = "or_default")]
    pub cgroup_version: String,
    /// Such as `json-file`.
    #[serde(rename = "LoggingDriver", deserialize_with = "or_default")]
    pub log_driver: String,
    /// Whether the memory of containers can be limited; `None` if not reported, as in the next three.
    #[serde(rename = "MemoryLimit")]
    pub memory_limit: Option<bool>,
    /// Whether their swap can be limited.
    #[serde(rename = "SwapLimit")]
    pub swap_limit: Option<bool>,
    /// Whether their processors can be limited.
    #[serde(rename = "CpuCfsQuota")]
    pub cpu_limit: Option<bool>,
    /// Whether their processes can be limited.
    #[serde(rename = "PidsLimit")]
    pub pids_limit: Option<bool>,
    /// Such as `name=rootless`.
    #[serde(rename = "SecurityOptions", deserialize_with = "or_default")]
    pub security_options: Vec<String>,
}

/// A container as a list shows it to people.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListedContainer {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The names, each with the engine's leading slash.
    #[serde(default, deserialize_with = "or_default")]
    pub names: Vec<String>,
    /// Labels of this program, by name.
    #[serde(default, deserialize_with = "own_labels")]
    pub labels: BTreeMap<String, String>,
    /// The name or id from which it was created.
    #[serde(default)]
    pub image: String,
    /// As [`State::status`](super::State::status).
    #[serde(default)]
    pub state: String,
    /// In seconds since 1970; 0 if not reported.
    #[serde(default)]
    pub created: i64,
}

/// What a container has used up to a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The moment, by the engine's clock; `None` if the engine does not tell.
    pub read_at: Option<OffsetDateTime>,
    /// Processor time since its start, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory without the page cache that can be dropped, in bytes.
    pub memory: u64,
}

impl Usage {
    /// Returns the processors that were busy since `before`, in percent of one; `None` without two different moments.
    pub fn cpu_percent(&self, before: &Self) -> Option<f64> {
        let time = (self.read_at? - before.read_at?).as_seconds_f64();
        let used = self.cpu_ns.checked_sub(before.cpu_ns)?;
        (time > 0.0).then(|| used as f64 / 1e9 / time * 100.0)
    }
}

#[derive(Deserialize)]
struct RawUsage {
    #[serde(default)]
    read: String,
    #[serde(default, deserialize_with = "or_default")]
    cpu_stats: RawCpu,
    #[serde(default, deserialize_with = "or_default")]
    memory_stats: RawMemory,
}

#[derive(Default, Deserialize)]
struct RawCpu {
    #[serde(default, deserialize_with = "or_default")]
    cpu_usage: RawCpuUsage,
}

#[derive(Default, Deserialize)]
struct RawCpuUsage {
    #[serde(default)]
    total_usage: u64,
}

#[derive(Default, Deserialize)]
struct RawMemory {
    #[serde(default)]
    usage: u64,
    #[serde(default, deserialize_with = "or_default")]
    stats: RawMemoryStats,
}

/// The first is that of cgroup v1, the second that of v2.
#[derive(Default, Deserialize)]
struct RawMemoryStats {
    total_inactive_file: Option<u64>,
    inactive_file: Option<u64>,
}

impl From<RawUsage> for Usage {
    fn from(raw: RawUsage) -> Self {
        let RawMemory { usage, stats } = raw.memory_stats;
        let cache = stats.total_inactive_file.or(stats.inactive_file).unwrap_or_default();
        Self {
            read_at: OffsetDateTime::parse(&raw.read, &Rfc3339).ok(),
            cpu_ns: raw.cpu_stats.cpu_usage.total_usage,
            memory: usage.saturating_sub(cache),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImageNames {
    #[serde(default, deserialize_with = "or_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    repo_digests: Vec<String>,
}

impl Docker {
    /// As [`Docker::container_list`], with what people want to know.
    pub fn container_statuses(
        &self,
        cancel: &CancelToken,
        labels: &[(&str, &str)],
    ) -> Result<Vec<ListedContainer>, Error> {
        let target = RequestTarget::of("containers/json").query("all", "1").labelled(labels);
        let request = Request::get(target).within(self.timeouts().list);
        self.call(cancel, request)?.long_json()
    }

    /// Returns the engine's properties.
    pub fn properties(&self, cancel: &CancelToken) -> Result<Properties, Error> {
        self.call(cancel, Request::get(RequestTarget::of("info")))?.json()
    }

    /// Returns where the log of a container goes.
    pub fn container_log_config(&self, cancel: &CancelToken, id: &str) -> Result<LogConfig, Error> {
        #[derive(Deserialize)]
        struct Inspected {
            #[serde(rename = "HostConfig", default)]
            host_config: Configured,
        }
        #[derive(Default, Deserialize)]
        struct Configured {
            #[serde(rename = "LogConfig", default)]
            log_config: LogConfig,
        }
        let inspected: Inspected = self.call(cancel, Request::get(container(id)?.then("json")))?.json()?;
        Ok(inspected.host_config.log_config)
    }

    /// Returns what a running container has used so far.
    pub fn container_usage(&self, cancel: &CancelToken, id: &str) -> Result<Usage, Error> {
        let target = container(id)?.then("stats").query("stream", "0").query("one-shot", "1");
        let usage: RawUsage = self.call(cancel, Request::get(target))?.json()?;
        Ok(usage.into())
    }

    /// Returns a name of an image; `None` if it has none or does not exist.
    pub fn image_name(&self, cancel: &CancelToken, image: &str) -> Result<Option<String>, Error> {
        let target = RequestTarget::of("images").image(image)?.then("json");
        let response = self.exchange(cancel, Request::get(target))?;
        if response.status == 404 {
            return Ok(None);
        }
        let names: ImageNames = response.success()?.long_json()?;
        Ok(names.repo_tags.into_iter().chain(names.repo_digests).next())
    }

    /// Returns everything that the container has written, and what it writes until it ends. Waits for that without a limit.
    pub fn container_follow(&self, cancel: &CancelToken, id: &str) -> Result<Log, Error> {
        let target =
            container(id)?.then("logs").query("follow", "1").query("stdout", "1").query("stderr", "1");
        let request = Request::get(target).head_within(self.timeouts().head);
        let mut body = self.call(cancel, request)?.body;
        body.comes_late();
        Ok(Log::new(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(json: &str) -> Usage {
        serde_json::from_str::<RawUsage>(json).unwrap().into()
    }

    #[test]
    fn the_usage_of_both_cgroup_versions_is_read() {
        let v1 = usage(
            r#"{"read":"2026-11-26T12:00:00.5Z","cpu_stats":{"cpu_usage":{"total_usage":250000000}},
                "memory_stats":{"usage":1000,"stats":{"total_inactive_file":300,"inactive_file":1}}}"#,
        );
        let v2 = usage(
            r#"{"read":"2026-11-26T12:00:01Z","cpu_stats":{"cpu_usage":{"total_usage":1000000000}},
                "memory_stats":{"usage":1000,"stats":{"inactive_file":400}}}"#,
        );
        assert_eq!((v1.memory, v2.memory), (700, 600));
        assert_eq!(v2.cpu_percent(&v1), Some(150.0));
        assert_eq!((v1.cpu_percent(&v2), v1.cpu_percent(&v1)), (None, None));
    }

    #[test]
    fn a_container_that_has_ended_has_no_usage() {
        let ended =
            usage(r#"{"read":"0001-01-01T00:00:00Z","cpu_stats":{"cpu_usage":null},"memory_stats":{}}"#);
        assert_eq!((ended.cpu_ns, ended.memory), (0, 0));
        assert_eq!(usage("{}").read_at, None);
    }
}
