//! The process environment, read once in `main` and passed on.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// Environment variables. They may hold secrets, so `Debug` shows only the names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    /// Where variables are set that are not the process's own, such as a line of a file.
    origins: BTreeMap<OsString, String>,
}

/// A variable of a file.
#[derive(Clone, PartialEq, Eq)]
pub struct FileVariable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where it is set, for errors.
    pub origin: String,
}

impl Environment {
    /// Returns the value of a variable, if it is set.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// Returns where a variable is set; `None` if it is the process's own, or not set.
    pub fn origin(&self, name: &str) -> Option<&str> {
        self.origins.get(OsStr::new(name)).map(String::as_str)
    }

    /// Returns these variables, and those of `more` that are not among them or are empty. Of several with one name in `more` the last
    /// counts.
    #[must_use]
    pub fn or(&self, more: impl IntoIterator<Item = FileVariable>) -> Self {
        let mut all = Self::default();
        for FileVariable { name, value, origin } in more {
            all.origins.insert(name.clone().into(), origin);
            all.variables.insert(name.into(), value.into());
        }
        for (name, value) in self.variables.iter().filter(|(_, value)| !value.is_empty()) {
            all.origins.remove(name);
            all.variables.insert(name.clone(), value.clone());
        }
        all
    }

    /// Returns all variables, to run a program with them.
    pub fn variables(&self) -> impl Iterator<Item = (OsString, OsString)> + '_ {
        self.variables.iter().map(|(name, value)| (name.clone(), value.clone()))
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, origins: BTreeMap::new() }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}
