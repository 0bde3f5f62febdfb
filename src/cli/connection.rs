//! The part of the table of settings that is about the connection to the control plane.

use std::path::PathBuf;
use std::time::Duration;

use super::read;
use super::settings::{Reader, Setting, ValueHint};
use super::table::DAY;

pub(super) const RECONNECT_MAX_ATTEMPTS: Reader<u32> = Reader {
    setting: Setting {
        variable: Some("OZ_RECONNECT_MAX_ATTEMPTS"),
        value_name: Some("COUNT"),
        default: Some("0"),
        help: "Exit after this number of failed connections in a row; 0 means never.",
        ..Setting::EMPTY
    },
    read: |given| given.number(0..=u32::MAX),
};

pub(super) const RECONNECT_WINDOW: Reader<Duration> = Reader {
    setting: Setting {
        variable: Some("OZ_RECONNECT_WINDOW_SECONDS"),
        value_name: Some("SECONDS"),
        default: Some("0"),
        help: "For OZ_RECONNECT_MAX_ATTEMPTS, count only the failures of the last SECONDS seconds; 0 means \
               all.",
        ..Setting::EMPTY
    },
    read: |given| given.number(0..=u32::MAX).map(|seconds| Duration::from_secs(seconds.into())),
};

pub(super) const RECONNECT_SPREAD: Reader<Duration> = Reader {
    setting: Setting {
        variable: Some("OZ_RECONNECT_SPREAD"),
        value_name: Some("DURATION"),
        default: Some("15s"),
        help: "The longest random wait before the first attempt after a lost connection, at most 1d; further attempts are multiples \
               of it apart. Many workers may have lost theirs at the same time.",
        ..Setting::EMPTY
    },
    read: |given| given.duration(DAY),
};

pub(super) const CA_FILE: Reader<PathBuf> = Reader {
    setting: Setting {
        flag: Some("--ca-file"),
        variable: Some("OZ_CA_FILE"),
        value_name: Some("PATH"),
        values: ValueHint::Path,
        help: "A PEM file of certificate authorities to trust in addition to the system's, for the control plane and for \
               proxies. It is read for each connection.",
        ..Setting::EMPTY
    },
    read: read::path,
};

pub(super) const CLIENT_CERT: Reader<PathBuf> = Reader {
    setting: Setting {
        flag: Some("--client-cert"),
        variable: Some("OZ_CLIENT_CERT"),
        value_name: Some("PATH"),
        values: ValueHint::Path,
        help: "A PEM file with the worker's client certificate, for a control plane or a proxy that asks for one. \
               Needs --client-key.",
        ..Setting::EMPTY
    },
    read: read::path,
};

pub(super) const CLIENT_KEY: Reader<PathBuf> = Reader {
    setting: Setting {
        flag: Some("--client-key"),
        variable: Some("OZ_CLIENT_KEY"),
        value_name: Some("PATH"),
        values: ValueHint::Path,
        help: "The PEM file with the key of --client-cert: PKCS#8, PKCS#1 or SEC1, not encrypted.",
        ..Setting::EMPTY
    },
    read: read::path,
};
