//! The table of settings: the names, texts and reader of each in one place.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

pub(super) use super::agent::{
    BACKEND, DEFAULT_IMAGE, IDLE_ON_COMPLETE, SESSION_SHARING_SERVER_URL, SIDECAR_IMAGE,
};
pub(super) use super::connection::{
    CA_FILE, CLIENT_CERT, CLIENT_KEY, RECONNECT_MAX_ATTEMPTS, RECONNECT_SPREAD, RECONNECT_WINDOW,
};
use super::container_table as container;
pub(super) use super::logging::{LOG_FORMAT, LOG_LEVEL, LOG_OUTPUT_LINES};
use super::monitoring::METRICS_LISTEN;
pub(super) use super::policies::{ALLOW_ENV, ALLOW_IMAGE, ALLOW_MOUNT_PATH, DENY_ENV};
use super::read;
use super::settings::{Echo, Occurs, Reader, Setting, ValueHint};
use super::texts::{HELP, PRINT, VERSION};
pub(super) use super::timeouts::{
    DRAIN_TIMEOUT, ENGINE_START_TIMEOUT, ENGINE_TIMEOUT, RECONCILE_INTERVAL, STOP_GRACE, TASK_TIMEOUT,
};
use super::words::{LOST_RUNS_WORDS, PULL_POLICIES, SWITCH, names};
use crate::policy::{LostRuns, PullPolicy, VolumeBind};
use crate::secret::Secret;

/// The size limit of the key file, in bytes.
pub(crate) const KEY_FILE_LIMIT: usize = 64 * 1024;
/// The length limit of a worker ID, in bytes.
pub(crate) const WORKER_ID_LIMIT: usize = 256;
/// The largest pool.
pub(crate) const MAX_TASKS: usize = 1024;
/// The smallest limit of a task's output, in bytes.
pub(crate) const MIN_OUTPUT: usize = 1024;
/// The largest limit of a task's output, in bytes.
pub(crate) const MAX_OUTPUT: usize = 64 * 1024 * 1024;
/// The most versions of one sidecar image that can be kept.
const MAX_KEPT_VOLUMES: usize = 1000;
/// In seconds.
pub(super) const DAY: u64 = 24 * 60 * 60;

pub(super) const API_KEY: Reader<Secret> = Reader {
    setting: Setting {
        flag: Some("--api-key"),
        variable: Some("OZ_API_KEY"),
        value_name: Some("KEY"),
        required: true,
        echo: Echo::Nothing,
        help: "The control plane's API key for workers. Required, unless --api-key-file or OZ_API_KEY_FILE \
               is set. Other users of this host can read command lines, so prefer the variable or the \
               file.",
        ..Setting::EMPTY
    },
    read: read::api_key,
};

pub(super) const API_KEY_FILE: Setting = Setting {
    flag: Some("--api-key-file"),
    variable: Some("OZ_API_KEY_FILE"),
    value_name: Some("PATH"),
    values: ValueHint::Path,
    required: true,
    help: "A file with the API key on its first line, at most 64 KiB. Required, unless --api-key or \
           OZ_API_KEY is set.",
    ..Setting::EMPTY
};

pub(super) const WORKER_ID: Reader<String> = Reader {
    setting: Setting {
        flag: Some("--worker-id"),
        variable: Some("OZ_WORKER_ID"),
        value_name: Some("ID"),
        default: Some("the host's name"),
        required: true,
        help: "The name of this worker, at most 256 bytes, different for every worker; not warp... (reserved). Required, unless the host has a name that is not \
               localhost or the id of a container. {hostname} becomes the host's name, and {machine-id} 12 hexadecimal digits that \
               are made of /etc/machine-id; other names in braces are refused.",
        ..Setting::EMPTY
    },
    read: read::worker_id,
};

pub(super) const WEB_SOCKET_URL: Reader<Uri> = Reader {
    setting: Setting {
        flag: Some("--web-socket-url"),
        variable: Some("OZ_WS_URL"),
        value_name: Some("URL"),
        default: Some("ws://localhost:8080/api/v1/selfhosted/worker/ws"),
        required: true,
        echo: Echo::Url,
        help: "The control plane's WebSocket URL for workers: ws:// or wss://. If only --server-root-url \
               is set, the worker uses that host and port, or oz.warp.dev for app.warp.dev. Required, unless --server-root-url is set or \
               the control plane runs on this host.",
        ..Setting::EMPTY
    },
    read: read::web_socket_url,
};

pub(super) const SERVER_ROOT_URL: Reader<Uri> = Reader {
    setting: Setting {
        flag: Some("--server-root-url"),
        variable: Some("OZ_SERVER_ROOT_URL"),
        value_name: Some("URL"),
        default: Some("http://localhost:8080"),
        required: true,
        echo: Echo::Url,
        help: "The control plane's root URL as tasks reach it: http:// or https://. If only \
               --web-socket-url is set, the worker uses that host and port, or app.warp.dev for oz.warp.dev. Required, unless \
               --web-socket-url is set or the control plane runs on this host.",
        ..Setting::EMPTY
    },
    read: read::server_root_url,
};

pub(super) const SHARED_ID: Reader<bool> = Reader {
    setting: Setting {
        flag: Some("--shared-id"),
        variable: Some("OZ_SHARED_ID"),
        default: Some("false"),
        help: "Run even if another process on this host has the same worker ID. Some control planes send a \
               cancel to one of them only, and fail the tasks of all when one disconnects. The variable \
               is true or false.",
        ..Setting::EMPTY
    },
    read: |given| given.word(&SWITCH),
};

pub(super) const REST_URL: Reader<Uri> = Reader {
    setting: Setting {
        flag: Some("--rest-url"),
        variable: Some("OZ_REST_URL"),
        value_name: Some("URL"),
        default: Some("the value of --server-root-url"),
        echo: Echo::Url,
        help: "The control plane's root URL as this worker reaches it: http:// or https://. The worker asks \
               here whether claims and reports are stored, and running tasks still wanted.",
        ..Setting::EMPTY
    },
    read: read::server_root_url,
};

pub(super) const NO_CLEANUP: Setting = Setting {
    flag: Some("--no-cleanup"),
    variable: Some("OZ_NO_CLEANUP"),
    help: "Keep task containers after they have ended, for debugging. The variable is true or false.",
    ..Setting::EMPTY
};

pub(super) const KEEP_FAILED: Reader<Duration> = Reader {
    setting: Setting {
        flag: Some("--keep-failed"),
        variable: Some("OZ_KEEP_FAILED"),
        value_name: Some("DURATION"),
        default: Some("0"),
        help: "How long to keep the containers of failed tasks, at most 30d; 0 means not at all. At most 20 \
               are kept.",
        ..Setting::EMPTY
    },
    read: |given| given.duration(30 * DAY),
};

pub(super) const VOLUMES: Reader<VolumeBind> = Reader {
    setting: Setting {
        flag: Some("--volumes"),
        short: Some("-v"),
        variable: Some("OZ_VOLUMES"),
        value_name: Some("HOST:CONTAINER[:MODE]"),
        values: ValueHint::PathFirst,
        occurs: Occurs::Many,
        help: "Mount a directory of the host, or a named volume, into every task container. MODE is a \
               comma-separated list such as ro or rw,z. May be repeated. In the variable, white space separates mounts and quotes \
               group.",
        ..Setting::EMPTY
    },
    read: read::volume,
};

pub(super) const ENV: Reader<(String, Secret)> = Reader {
    setting: Setting {
        flag: Some("--env"),
        short: Some("-e"),
        variable: Some("OZ_ENV"),
        value_name: Some("KEY[=VALUE]"),
        occurs: Occurs::Many,
        echo: Echo::Nothing,
        help: "Set a variable in every task container. KEY alone copies the variable from the worker's \
               environment. May be repeated; the last value of a variable is used. In the variable, white space separates entries \
               and quotes group.",
        ..Setting::EMPTY
    },
    read: read::variable,
};

pub(super) const MAX_CONCURRENT_TASKS: Reader<usize> = Reader {
    setting: Setting {
        flag: Some("--max-concurrent-tasks"),
        variable: Some("OZ_MAX_CONCURRENT_TASKS"),
        value_name: Some("COUNT"),
        default: Some("twice the cores, at least 4"),
        help: "The maximum number of tasks that run at the same time, 1 to 1024; 0 means 1024.",
        ..Setting::EMPTY
    },
    read: |given| given.number(0..=MAX_TASKS).map(|count| if count == 0 { MAX_TASKS } else { count }),
};

pub(super) const PULL: Reader<PullPolicy> = Reader {
    setting: Setting {
        flag: Some("--pull"),
        variable: Some("OZ_PULL"),
        value_name: Some("POLICY"),
        values: ValueHint::Words(&names(&PULL_POLICIES)),
        default: Some("auto"),
        help: "When to pull images. auto: for every task, but use a local image if the pull fails; always: \
               for every task, and fail if the pull fails; missing: only if there is no local image; never: \
               do not pull.",
        ..Setting::EMPTY
    },
    read: |given| given.word(&PULL_POLICIES),
};

pub(super) const MAX_OUTPUT_SIZE: Reader<usize> = Reader {
    setting: Setting {
        flag: Some("--max-output"),
        variable: Some("OZ_MAX_OUTPUT"),
        value_name: Some("BYTES"),
        default: Some("4MiB"),
        help: "The maximum size of a task's reported output, 1024 bytes to 64 MiB; the middle of longer \
               output is left out. A number of bytes, or a number with KiB (or k) or MiB (or m).",
        ..Setting::EMPTY
    },
    read: |given| given.size_within(MIN_OUTPUT..=MAX_OUTPUT),
};

pub(super) const LOST_RUNS: Reader<LostRuns> = Reader {
    setting: Setting {
        flag: Some("--lost-runs"),
        variable: Some("OZ_LOST_RUNS"),
        value_name: Some("WHAT"),
        values: ValueHint::Words(&names(&LOST_RUNS_WORDS)),
        default: Some("stop"),
        help: "What to do with a running task whose run the control plane has failed, as it does when the \
               connection is lost. stop: stop the task; finish: let it finish, and report it. A task whose \
               run was cancelled is always stopped.",
        ..Setting::EMPTY
    },
    read: |given| given.word(&LOST_RUNS_WORDS),
};

pub(super) const KEEP_SIDECAR_VOLUMES: Reader<usize> = Reader {
    setting: Setting {
        flag: Some("--keep-sidecar-volumes"),
        variable: Some("OZ_KEEP_SIDECAR_VOLUMES"),
        value_name: Some("COUNT"),
        default: Some("2"),
        help: "How many unpacked versions of each sidecar image to keep, including the newest, 1 to 1000. \
               Older versions that no container uses are removed.",
        ..Setting::EMPTY
    },
    read: |given| given.number(1..=MAX_KEPT_VOLUMES),
};

pub(super) const MIN_FREE_DISK: Reader<u64> = Reader {
    setting: Setting {
        flag: Some("--min-free-disk"),
        variable: Some("OZ_MIN_FREE_DISK"),
        value_name: Some("BYTES"),
        default: Some("1GiB"),
        help: "Refuse new tasks while the engine's disk has less free space than this; 0 means no check. \
               Disks of engines on other hosts are not checked. A number of bytes, or a number with KiB, \
               MiB, GiB or TiB (or k, m, g or t).",
        ..Setting::EMPTY
    },
    read: |given| given.size(),
};

pub(super) const SETTINGS_FILE: Reader<PathBuf> = Reader {
    setting: Setting {
        flag: Some("--settings-file"),
        variable: Some("OZ_SETTINGS_FILE"),
        value_name: Some("PATH"),
        values: ValueHint::Path,
        help: "A file with variables, one NAME=VALUE per line, in the syntax of systemd's EnvironmentFile=. A variable of the \
               environment has precedence over the file.",
        ..Setting::EMPTY
    },
    read: read::path,
};

/// Every setting, in the order of the help text: required ones first.
pub const SETTINGS: &[Setting] = &[
    API_KEY.setting,
    API_KEY_FILE,
    WORKER_ID.setting,
    WEB_SOCKET_URL.setting,
    SERVER_ROOT_URL.setting,
    SHARED_ID.setting,
    REST_URL.setting,
    LOG_LEVEL.setting,
    LOG_FORMAT.setting,
    LOG_OUTPUT_LINES.setting,
    NO_CLEANUP,
    KEEP_FAILED.setting,
    VOLUMES.setting,
    ENV.setting,
    MAX_CONCURRENT_TASKS.setting,
    PULL.setting,
    DEFAULT_IMAGE.setting,
    SIDECAR_IMAGE.setting,
    ALLOW_IMAGE.setting,
    ALLOW_ENV.setting,
    DENY_ENV.setting,
    ALLOW_MOUNT_PATH.setting,
    IDLE_ON_COMPLETE.setting,
    SESSION_SHARING_SERVER_URL.setting,
    MAX_OUTPUT_SIZE.setting,
    TASK_TIMEOUT.setting,
    DRAIN_TIMEOUT.setting,
    STOP_GRACE.setting,
    ENGINE_TIMEOUT.setting,
    ENGINE_START_TIMEOUT.setting,
    RECONCILE_INTERVAL.setting,
    LOST_RUNS.setting,
    KEEP_SIDECAR_VOLUMES.setting,
    MIN_FREE_DISK.setting,
    METRICS_LISTEN.setting,
    container::HARDENED,
    container::MEMORY.setting,
    container::DEFAULT_MEMORY.setting,
    container::MEMORY_RESERVATION.setting,
    container::CPUS.setting,
    container::DEFAULT_CPUS.setting,
    container::PIDS_LIMIT.setting,
    container::SHM_SIZE.setting,
    container::ULIMIT.setting,
    container::NETWORK.setting,
    container::ALLOW_HOST_NETWORK,
    container::DNS.setting,
    container::DNS_SEARCH.setting,
    container::ADD_HOST.setting,
    container::CAP_DROP.setting,
    container::CAP_ADD.setting,
    container::SECURITY_OPT.setting,
    container::USER.setting,
    container::READ_ONLY,
    container::TMPFS.setting,
    container::LABEL.setting,
    container::INIT,
    container::GPUS.setting,
    container::RUNTIME.setting,
    container::LOG_OPT.setting,
    RECONNECT_MAX_ATTEMPTS.setting,
    RECONNECT_WINDOW.setting,
    RECONNECT_SPREAD.setting,
    CA_FILE.setting,
    CLIENT_CERT.setting,
    CLIENT_KEY.setting,
    BACKEND.setting,
    SETTINGS_FILE.setting,
    PRINT.setting,
    HELP,
    VERSION,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_each_setting_has_one() {
        let mut names: Vec<_> =
            SETTINGS.iter().flat_map(|s| [s.flag, s.short, s.variable]).flatten().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(SETTINGS.iter().all(|s| s.flag.is_some() || s.variable.is_some()));
    }

    #[test]
    fn required_settings_come_first_and_have_variables() {
        let first = SETTINGS.iter().take_while(|setting| setting.required).count();
        assert_eq!((first, SETTINGS.iter().filter(|setting| setting.required).count()), (5, 5));
        assert!(SETTINGS.iter().take(first).all(|setting| setting.variable.is_some()));
    }

    #[test]
    fn the_help_explains_each_word_and_the_default_is_one_of_them() {
        for setting in SETTINGS {
            let ValueHint::Words(words) = setting.values else { continue };
            let in_help: Vec<_> = setting.help.split(|c: char| !c.is_ascii_lowercase()).collect();
            assert!(words.iter().all(|word| in_help.contains(word)), "{setting:?}");
            assert!(setting.default.is_none_or(|default| words.contains(&default)), "{setting:?}");
        }
    }
}
