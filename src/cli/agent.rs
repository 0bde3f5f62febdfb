//! The part of the table of settings that is about the images and the agent of tasks.

use super::read;
use super::settings::{Echo, Reader, Setting, ValueHint};
use super::table::DAY;
use super::words::{BACKENDS, OTHER_BACKENDS, names};
use crate::docker::Reference;

pub(super) const DEFAULT_IMAGE: Reader<Reference> = Reader {
    setting: Setting {
        flag: Some("--default-image"),
        variable: Some("OZ_DEFAULT_IMAGE"),
        value_name: Some("IMAGE"),
        default: Some("ubuntu:22.04"),
        help: "The image for tasks whose assignment names none.",
        ..Setting::EMPTY
    },
    read: read::image,
};

pub(super) const SIDECAR_IMAGE: Reader<Reference> = Reader {
    setting: Setting {
        flag: Some("--sidecar-image"),
        variable: Some("OZ_SIDECAR_IMAGE"),
        value_name: Some("IMAGE"),
        help: "The image to mount at /agent in place of the one that the assignment names, for hosts that cannot reach its \
               registry. Its version must suit the control plane. Additional sidecars, and assignments without a sidecar \
               image, are not changed.",
        ..Setting::EMPTY
    },
    read: read::image,
};

pub(super) const IDLE_ON_COMPLETE: Reader<String> = Reader {
    setting: Setting {
        flag: Some("--idle-on-complete"),
        variable: Some("OZ_IDLE_ON_COMPLETE"),
        value_name: Some("DURATION"),
        default: Some("chosen by the agent"),
        help: "How long an agent stays for follow-ups after its conversation has ended. A number with s, m, h or d, such as 45m \
               or 0s, at most 365d. The time that an assignment names has precedence. Only for tasks of the dialect upstream.",
        ..Setting::EMPTY
    },
    read: |given| given.duration_as_written(365 * DAY),
};

pub(super) const SESSION_SHARING_SERVER_URL: Reader<String> = Reader {
    setting: Setting {
        flag: Some("--session-sharing-server-url"),
        variable: Some("OZ_SESSION_SHARING_SERVER_URL"),
        value_name: Some("URL"),
        default: Some("chosen by the agent"),
        echo: Echo::Url,
        help: "The server at which agents share their sessions, as tasks reach it: ws:// or wss://. It is passed to the agent.",
        ..Setting::EMPTY
    },
    read: read::web_socket_text,
};

pub(super) const BACKEND: Reader<()> = Reader {
    setting: Setting {
        flag: Some("--backend"),
        variable: Some("OZ_BACKEND"),
        value_name: Some("BACKEND"),
        values: ValueHint::Words(&names(&BACKENDS)),
        default: Some("docker"),
        help: "What runs tasks: docker, the only one. For command lines that were written for another worker.",
        ..Setting::EMPTY
    },
    read: |given| {
        let other = OTHER_BACKENDS.iter().find(|other| other.eq_ignore_ascii_case(given.value.trim()));
        match other {
            Some(_) => {
                Err(given
                    .invalid("must be docker: this worker runs tasks only in containers of a Docker engine"))
            }
            None => given.word(&BACKENDS),
        }
    },
};
