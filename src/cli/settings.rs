//! The types of the table of settings.

use super::ConfigError;
use super::read::Given;

/// One setting: a flag, a variable, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The long flag with its dashes; `None` if only a variable sets it.
    pub flag: Option<&'static str>,
    /// The one-letter flag with its dash.
    pub short: Option<&'static str>,
    /// The environment variable.
    pub variable: Option<&'static str>,
    /// The placeholder of the value; `None` for a switch, which takes none.
    pub value_name: Option<&'static str>,
    /// What completions offer for the value.
    pub values: ValueHint,
    /// How often the flag may be given.
    pub occurs: Occurs,
    /// The default in words; `None` if the setting is off or empty by default.
    pub default: Option<&'static str>,
    /// Whether some workers cannot run without it.
    pub required: bool,
    /// How much of an invalid value an error shows.
    pub echo: Echo,
    /// What it does, with its bounds: one paragraph without a final line break.
    pub help: &'static str,
}

impl Setting {
    /// The setting with no name and no text, for the table to fill in.
    pub(super) const EMPTY: Self = Self {
        flag: None,
        short: None,
        variable: None,
        value_name: None,
        values: ValueHint::Any,
        occurs: Occurs::Once,
        default: None,
        required: false,
        echo: Echo::Whole,
        help: "",
    };

    /// Whether `name` is one of the setting's flags, dashes included.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.flag == Some(name) || self.short == Some(name)
    }
}

/// What completions offer for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueHint {
    /// Nothing.
    Any,
    /// The words, which are the only valid values.
    Words(&'static [&'static str]),
    /// Paths of this host.
    Path,
    /// Paths of this host; the value continues after the path.
    PathFirst,
}

/// How often a flag may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occurs {
    /// At most once.
    Once,
    /// Any number of times.
    Many,
    /// At most once; it prints a text and exits, and other settings are ignored.
    Alone,
}

/// How much of an invalid value an error shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// The value.
    Whole,
    /// The value as a URL without user info and query, which may hold a secret.
    Url,
    /// Nothing: the value is a secret.
    Nothing,
}

/// A setting, and how its value is read and checked.
pub(super) struct Reader<T> {
    pub(super) setting: Setting,
    pub(super) read: fn(&Given<'_>) -> Result<T, ConfigError>,
}
