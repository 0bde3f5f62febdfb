//! Where the value of a setting comes from: its flag, else its variable, else its default.

use super::read::Given;
use super::settings::{Reader, Setting};
use super::split::split;
use super::words::SWITCH;
use super::{Arguments, ConfigError, SETTINGS};
use crate::secret::Secret;
use crate::sys::environment::Environment;

/// The command line and the environment.
pub(super) struct Invocation<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) environment: &'a Environment,
}

impl<'a> Invocation<'a> {
    /// The value of a setting, or of its default.
    pub(super) fn read<T>(&self, reader: &Reader<T>) -> Result<T, ConfigError> {
        match self.read_if_given(reader)? {
            Some(value) => Ok(value),
            None => (reader.read)(&self.default(&reader.setting)),
        }
    }

    /// The value of a setting, if its flag or variable is set.
    pub(super) fn read_if_given<T>(&self, reader: &Reader<T>) -> Result<Option<T>, ConfigError> {
        let given = self.given(&reader.setting)?;
        given.map(|given| (reader.read)(&given)).transpose()
    }

    /// The text of a setting: of its flag, else of its variable, if that is set and not empty.
    pub(super) fn given(&self, setting: &Setting) -> Result<Option<Given<'a>>, ConfigError> {
        if let Some(typed) = self.typed(setting).next() {
            return Ok(Some(typed));
        }
        setting.variable.map_or(Ok(None), |variable| self.get(variable, setting))
    }

    /// The text of a setting in this variable, if that is set and not empty.
    pub(super) fn get(&self, variable: &str, setting: &Setting) -> Result<Option<Given<'a>>, ConfigError> {
        let Some(value) = self.environment.get(variable).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        match value.to_str() {
            Some(value) => Ok(Some(self.text(setting, self.name_of(variable), value))),
            None => Err(ConfigError::hidden(&self.name_of(variable), "must be valid UTF-8")),
        }
    }

    /// Passes each value of a setting that may be given several times to `take`: those of its flag, else the words of its variable.
    pub(super) fn for_each(
        &self,
        setting: &Setting,
        mut take: impl FnMut(&Given<'_>) -> Result<(), ConfigError>,
    ) -> Result<(), ConfigError> {
        if self.arguments.has(setting) {
            return self.typed(setting).try_for_each(|given| take(&given));
        }
        let Some(given) = self.given(setting)? else { return Ok(()) };
        let words =
            split(given.value).ok_or_else(|| given.invalid("must have a closing quote for each quote"))?;
        words.iter().try_for_each(|word| take(&Given { name: given.name.clone(), value: word, ..given }))
    }

    /// Whether a switch is on: by its flag, else by its variable.
    pub(super) fn is_on(&self, setting: &Setting) -> Result<bool, ConfigError> {
        if self.arguments.has(setting) {
            return Ok(true);
        }
        self.given(setting)?.map_or(Ok(false), |given| given.word(&SWITCH))
    }

    /// The values of a flag in the order typed.
    pub(super) fn typed(&self, setting: &Setting) -> impl Iterator<Item = Given<'a>> {
        let flag = setting.flag.unwrap_or_default();
        let values = self.arguments.values(setting).iter();
        values.map(move |value| self.text(setting, flag.to_owned(), Secret::expose(value)))
    }

    /// The text of a setting's default.
    pub(super) fn default(&self, setting: &Setting) -> Given<'a> {
        let name = setting.flag.or(setting.variable).unwrap_or_default();
        self.text(setting, name.to_owned(), setting.default.unwrap_or_default())
    }

    /// A variable as errors name it: with its line, if a file sets it.
    pub(super) fn name_of(&self, variable: &str) -> String {
        match self.environment.origin(variable) {
            Some(origin) => format!("{variable} ({origin})"),
            None => variable.to_owned(),
        }
    }

    /// The name of a setting as it is set, or its flag.
    pub(super) fn name_of_setting(&self, setting: &Setting) -> String {
        match self.given(setting) {
            Ok(Some(given)) if !self.arguments.has(setting) => given.name,
            _ => self.default(setting).name,
        }
    }

    /// The flag of each setting that is not set by it, and the name of the setting.
    pub(super) fn setting_names(&self) -> impl Iterator<Item = (&'static str, String)> {
        let flags = SETTINGS.iter().filter_map(|setting| Some((setting.flag?, setting)));
        flags.map(|(flag, setting)| (flag, self.name_of_setting(setting))).filter(|(flag, name)| flag != name)
    }

    fn text(&self, setting: &Setting, name: String, value: &'a str) -> Given<'a> {
        Given { name, value, echo: setting.echo, environment: self.environment }
    }
}
