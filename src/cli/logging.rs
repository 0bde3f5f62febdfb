//! The settings of the log.

use log::LevelFilter;

use super::settings::{Reader, Setting, ValueHint};
use super::words::{LEVELS, LOG_FORMATS, names};
use crate::logging::Format;

/// The most lines of a failed task's output that are logged.
const MAX_OUTPUT_LINES: usize = 100;

pub(super) const LOG_LEVEL: Reader<LevelFilter> = Reader {
    setting: Setting {
        flag: Some("--log-level"),
        variable: Some("OZ_LOG_LEVEL"),
        value_name: Some("LEVEL"),
        values: ValueHint::Words(&names(&LEVELS)),
        default: Some("info"),
        help: "The least severe level to log to stderr: debug, info, warn or error.",
        ..Setting::EMPTY
    },
    read: |given| given.word(&LEVELS),
};

pub(super) const LOG_FORMAT: Reader<Format> = Reader {
    setting: Setting {
        flag: Some("--log-format"),
        variable: Some("OZ_LOG_FORMAT"),
        value_name: Some("FORMAT"),
        values: ValueHint::Words(&names(&LOG_FORMATS)),
        default: Some("text"),
        help: "How to write log lines: text, with the values as logfmt, or json, one object a line.",
        ..Setting::EMPTY
    },
    read: |given| given.word(&LOG_FORMATS),
};

pub(super) const LOG_OUTPUT_LINES: Reader<usize> = Reader {
    setting: Setting {
        flag: Some("--log-output-lines"),
        variable: Some("OZ_LOG_OUTPUT_LINES"),
        value_name: Some("COUNT"),
        default: Some("0"),
        help: "How many of the last lines of a failed task's output to log, 0 to 100. The values of the task's variables are \
               hidden in them, except those of fewer than 6 bytes; other secrets are not.",
        ..Setting::EMPTY
    },
    read: |given| given.number(0..=MAX_OUTPUT_LINES),
};
