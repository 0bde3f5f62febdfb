//! The process environment, read once in `main` and passed on.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// Environment variables. They may hold secrets, so `Debug` shows only the names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// Returns the value of a variable, if it is set.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// Returns these variables, and those of `more` that are not among them or are empty. Of several with one name in `more` the last
    /// counts.
    #[must_use]
    pub fn or(&self, more: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut all: BTreeMap<OsString, OsString> =
            more.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let set = self.0.iter().filter(|(_, value)| !value.is_empty());
        all.extend(set.map(|(name, value)| (name.clone(), value.clone())));
        Self(all)
    }

    /// Returns all variables, to run a program with them.
    pub fn variables(&self) -> impl Iterator<Item = (OsString, OsString)> + '_ {
        self.0.iter().map(|(name, value)| (name.clone(), value.clone()))
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
