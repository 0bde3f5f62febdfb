//! Fields of a JSON object: `null` counts as absent, and errors name the field by its path and never show its value.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::json::{self, MAX_MEMBERS};

/// Some fields of a JSON object, and its path in the message.
pub(super) struct Fields<'a> {
    path: String,
    members: Vec<(&'static str, &'a RawValue)>,
}

/// A wrong field: its path and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FieldError(pub(super) String);

impl FieldError {
    pub(super) fn missing(path: &str) -> Self {
        Self(format!("{path}: is missing"))
    }

    pub(super) fn new(path: &str, requirement: &str) -> Self {
        Self(format!("{path}: {requirement}"))
    }

    /// For a value of the wrong type. Names the type that was found, not the value.
    pub(super) fn wrong_type(path: &str, expected: &str, found: &RawValue) -> Self {
        Self(format!("{path}: must be {expected}, not {}", json::kind(found)))
    }
}

/// The most characters of a field's name that an error shows.
const LONGEST_NAME: usize = 100;

/// Returns a name from a message as one line of bounded length.
pub(crate) fn shown_name(name: &str) -> String {
    let start = name.chars().take(LONGEST_NAME).flat_map(char::escape_debug);
    let ellipsis = name.chars().nth(LONGEST_NAME).map(|_| '…');
    start.chain(ellipsis).collect()
}

impl<'a> Fields<'a> {
    /// Reads the fields with these names; the others are skipped.
    pub(super) fn new(
        path: &str,
        value: &'a RawValue,
        names: &'static [&'static str],
    ) -> Result<Self, FieldError> {
        let members = json::members(value, names);
        let members = members.ok_or_else(|| FieldError::wrong_type(path, "an object", value))?;
        Ok(Self { path: path.to_owned(), members })
    }

    /// Returns the path of a field.
    pub(super) fn at(&self, name: &str) -> String {
        at(&self.path, name)
    }

    /// Returns a value that is not `null`.
    pub(super) fn value(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.members.iter().find(|(known, _)| *known == name)?;
        (value.get() != "null").then_some(*value)
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a RawValue) -> Option<T>,
    ) -> Result<Option<T>, FieldError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| FieldError::wrong_type(&self.at(name), expected, value))
    }

    pub(super) fn string(&self, name: &str) -> Result<Option<Cow<'a, str>>, FieldError> {
        self.typed(name, "a string", json::string)
    }

    /// Returns a string, trimmed; `None` if it is blank.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, FieldError> {
        let text = self.string(name)?;
        Ok(text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned))
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, FieldError> {
        self.typed(name, "true or false", |value| value.get().parse().ok())
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, FieldError> {
        let number = self.typed(name, "a number", |value| value.get().parse::<f64>().ok())?;
        match number {
            Some(number) if number.is_infinite() => Err(FieldError::new(&self.at(name), "is out of range")),
            number => Ok(number),
        }
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, FieldError> {
        self.typed(name, "an integer", |value| value.get().parse().ok())
    }

    pub(super) fn object(
        &self,
        name: &str,
        names: &'static [&'static str],
    ) -> Result<Option<Fields<'a>>, FieldError> {
        self.value(name).map(|value| Fields::new(&self.at(name), value, names)).transpose()
    }

    /// Returns the elements of an array.
    pub(super) fn array(&self, name: &str) -> Result<Vec<&'a RawValue>, FieldError> {
        self.all(name, "an array", json::elements)
    }

    /// Returns every member of an object, including those that are `null`.
    pub(super) fn members(&self, name: &str) -> Result<Vec<(String, &'a RawValue)>, FieldError> {
        self.all(name, "an object", json::all_members)
    }

    fn all<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a RawValue) -> Option<Vec<T>>,
    ) -> Result<Vec<T>, FieldError> {
        let Some(value) = self.value(name) else { return Ok(Vec::new()) };
        read(value).ok_or_else(|| {
            let path = self.at(name);
            if json::kind(value) == expected {
                FieldError::new(&path, &format!("must have at most {MAX_MEMBERS} members"))
            } else {
                FieldError::wrong_type(&path, expected, value)
            }
        })
    }
}

/// Returns the path of a member.
pub(super) fn at(path: &str, name: &str) -> String {
    let name = shown_name(name);
    if path.is_empty() { name } else { format!("{path}.{name}") }
}
