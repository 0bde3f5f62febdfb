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
        help: "Print a text and exit. man: the manual; bash, zsh and fish: the completions for that shell; \
               environment: a sample environment file; settings: every setting with its origin and its value, \
               without secrets, and on stderr what is wrong with them.",
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
