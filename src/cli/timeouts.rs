//! The part of the table of settings that is about time limits.

use std::time::Duration;

use super::settings::{Reader, Setting};
use super::table::DAY;

pub(super) const TASK_TIMEOUT: Reader<Duration> = Reader {
    setting: Setting {
        flag: Some("--task-timeout"),
        variable: Some("OZ_TASK_TIMEOUT"),
        value_name: Some("DURATION"),
        default: Some("8h"),
        help: "How long a task may run, at most 365d; 0 means no limit. The time counts from the start of \
               the task's container and continues while the worker restarts. Its preparation may take as long \
               again. A duration is a number with s, \
               m, h or d, such as 90s or 1h30m; a number without a unit is in seconds.",
        ..Setting::EMPTY
    },
    read: |given| given.duration(365 * DAY),
};

pub(super) const DRAIN_TIMEOUT: Reader<Duration> = Reader {
    setting: Setting {
        flag: Some("--drain-timeout"),
        variable: Some("OZ_DRAIN_TIMEOUT"),
        value_name: Some("DURATION"),
        default: Some("5m"),
        help: "How long running tasks may continue after the first signal, at most 7d. Meanwhile the \
               worker takes no new tasks. At the end of this time, or at the next signal, it stops them. \
               With 0 it stops them at once.",
        ..Setting::EMPTY
    },
    read: |given| given.duration(7 * DAY),
};

pub(super) const STOP_GRACE: Reader<Duration> = Reader {
    setting: Setting {
        flag: Some("--stop-grace"),
        variable: Some("OZ_STOP_GRACE"),
        value_name: Some("DURATION"),
        default: Some("10s"),
        help: "How long a task that is stopped may take to end, from SIGTERM to SIGKILL, at most 1d.",
        ..Setting::EMPTY
    },
    read: |given| given.duration(DAY),
};

pub(super) const ENGINE_TIMEOUT: Reader<Duration> = Reader {
    setting: Setting {
        flag: Some("--engine-timeout"),
        variable: Some("OZ_ENGINE_TIMEOUT"),
        value_name: Some("DURATION"),
        default: Some("5m"),
        help: "How long to wait for an engine that cannot be reached (a restart, an upgrade), at most 1d. \
               After that, the tasks that need it fail.",
        ..Setting::EMPTY
    },
    read: |given| given.duration(DAY),
};

pub(super) const ENGINE_START_TIMEOUT: Reader<Duration> = Reader {
    setting: Setting {
        flag: Some("--engine-start-timeout"),
        variable: Some("OZ_ENGINE_START_TIMEOUT"),
        value_name: Some("DURATION"),
        default: Some("no limit"),
        help: "How long to wait at start for an engine that does not answer yet, at most 365d; 0 means one \
               attempt. After that the worker ends with code 4.",
        ..Setting::EMPTY
    },
    read: |given| given.duration(365 * DAY),
};

pub(super) const RECONCILE_INTERVAL: Reader<Duration> = Reader {
    setting: Setting {
        flag: Some("--reconcile-interval"),
        variable: Some("OZ_RECONCILE_INTERVAL"),
        value_name: Some("DURATION"),
        default: Some("60s"),
        help: "How often to ask the control plane whether each running task is still wanted, at most 1d; 0 \
               means never. Unless it is 0, the worker also asks after each reconnect. Whether claims and \
               reports are stored is asked in any case.",
        ..Setting::EMPTY
    },
    read: |given| given.duration(DAY),
};
