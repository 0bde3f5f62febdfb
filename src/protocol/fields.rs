//! Fields of a JSON object: `null` counts as absent, and errors name the field by its path and never show its value.

use serde_json::{Map, Value};

/// A JSON object and its path in the message.
#[derive(Clone)]
pub(super) struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
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
    pub(super) fn wrong_type(path: &str, expected: &str, found: &Value) -> Self {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        Self(format!("{path}: must be {expected}, not {found}"))
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
    pub(super) fn new(path: &str, value: &'a Value) -> Result<Self, FieldError> {
        let map = value.as_object().ok_or_else(|| FieldError::wrong_type(path, "an object", value))?;
        Ok(Self { path: path.to_owned(), map })
    }

    /// Returns the path of a field.
    pub(super) fn at(&self, name: &str) -> String {
        let name = shown_name(name);
        if self.path.is_empty() { name } else { format!("{}.{name}", self.path) }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, FieldError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| FieldError::wrong_type(&self.at(name), expected, value))
    }

    pub(super) fn string(&self, name: &str) -> Result<Option<&'a str>, FieldError> {
        self.typed(name, "a string", Value::as_str)
    }

    /// Returns a string, trimmed; `None` if it is blank.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, FieldError> {
        Ok(self.string(name)?.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned))
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, FieldError> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, FieldError> {
        self.typed(name, "a number", Value::as_f64)
    }

    pub(super) fn array(&self, name: &str) -> Result<&'a [Value], FieldError> {
        Ok(self.typed(name, "an array", Value::as_array)?.map(Vec::as_slice).unwrap_or_default())
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, FieldError> {
        self.get(name).map(|value| Fields::new(&self.at(name), value)).transpose()
    }

    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.get(name)
    }

    /// Returns every entry, including those that are `null`.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.map.iter()
    }
}
