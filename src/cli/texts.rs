//! The settings that print a text and exit.

use super::docs::Page;
use super::settings::{Occurs, Reader, Setting, ValueHint};
use super::words::{PAGES, names};

pub(super) const PRINT: Reader<Page> = Reader {
    setting: Setting {
        flag: Some("--print"),
        value_name: Some("WHAT"),
        values: ValueHint::Words(&names(&PAGES)),
        occurs: Occurs::Alone,
        help: "Print the man page (man), the completions for a shell (bash, zsh or fish) or a sample \
               environment file (environment), and exit.",
        ..Setting::EMPTY
    },
    read: |given| given.word(&PAGES),
};

pub(super) const HELP: Setting = Setting {
    flag: Some("--help"),
    short: Some("-h"),
    occurs: Occurs::Alone,
    help: "Print this help and exit.",
    ..Setting::EMPTY
};

pub(super) const VERSION: Setting = Setting {
    flag: Some("--version"),
    short: Some("-V"),
    occurs: Occurs::Alone,
    help: "Print the version and exit.",
    ..Setting::EMPTY
};
