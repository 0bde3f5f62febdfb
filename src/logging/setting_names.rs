//! How errors name settings.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The name of each setting as it was set: a variable, or one with its line of the settings file. For errors that are found after the
/// settings are read, such as those about files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingNames(Arc<BTreeMap<&'static str, String>>);

impl SettingNames {
    /// Returns the name of the setting with this flag: the flag, unless it was set in another way.
    pub fn of(&self, flag: &'static str) -> String {
        self.0.get(flag).cloned().unwrap_or_else(|| flag.to_owned())
    }
}

impl FromIterator<(&'static str, String)> for SettingNames {
    fn from_iter<I: IntoIterator<Item = (&'static str, String)>>(names: I) -> Self {
        Self(Arc::new(names.into_iter().collect()))
    }
}
