//! Decodes answers of any size: a list or an inspect has the labels, variables and mounts that others chose. Only what this
//! program uses is kept.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufReader, Read};

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Error;

/// The beginning of the name of each label that is kept.
const LABEL_PREFIX: &str = "oz-";
/// The most bytes of the value of a label that is kept. This program gives none that is longer.
const MAX_LABEL: usize = 64 * 1024;
/// The buffer size for reading a long answer, in bytes.
const READ: usize = 64 * 1024;

/// Decodes `start` and then what `rest` returns. `call` is for errors.
pub(super) fn read<T: DeserializeOwned>(call: &str, start: &[u8], rest: impl Read) -> Result<T, Error> {
    serde_json::from_reader(BufReader::with_capacity(READ, start.chain(rest))).map_err(|error| {
        if error.is_io() { Error::from_read(error.into()) } else { unexpected(call, &error) }
    })
}

/// Returns the error for an answer that is not the JSON expected. It has only the position: the error's text may quote a
/// secret.
pub(super) fn unexpected(call: &str, error: &serde_json::Error) -> Error {
    Error::protocol(format!(
        "{call}: not the JSON expected: {:?} error at line {}, column {}",
        error.classify(),
        error.line(),
        error.column()
    ))
}

/// Reads the labels of this program, and `null` as none.
pub(super) fn own_labels<'de, D>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    Ok(Option::<OwnLabels>::deserialize(deserializer)?.unwrap_or_default().0)
}

#[derive(Default)]
struct OwnLabels(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for OwnLabels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LabelVisitor)
    }
}

struct LabelVisitor;

impl<'de> Visitor<'de> for LabelVisitor {
    type Value = OwnLabels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OwnLabels, A::Error> {
        let mut labels = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if !name.starts_with(LABEL_PREFIX) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value: String = map.next_value()?;
            if value.len() <= MAX_LABEL {
                labels.insert(name, value);
            }
        }
        Ok(OwnLabels(labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::Volume;

    #[test]
    fn only_own_labels_are_kept() {
        let long = "x".repeat(MAX_LABEL + 1);
        let json =
            format!(r#"{{"Name":"v","Labels":{{"a":[1],"oz-a":"1","oz":"2","oz-b":"{long}","oz-c":""}}}}"#);
        let volume: Volume = serde_json::from_str(&json).unwrap();
        let expected = [("oz-a", "1"), ("oz-c", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(volume.labels, BTreeMap::from(expected));
        for (labels, count) in [("null", Some(0)), (r#"{"oz-a":1}"#, None), ("7", None)] {
            let json = format!(r#"{{"Name":"v","Labels":{labels}}}"#);
            let labels = serde_json::from_str(&json).ok().map(|volume: Volume| volume.labels.len());
            assert_eq!(labels, count, "{json}");
        }
    }

    #[test]
    fn an_answer_is_read_to_its_end() {
        let read = |start: &str, rest: &str| read::<u32>("GET /x", start.as_bytes(), rest.as_bytes());
        assert_eq!(read("12", "3 ").unwrap(), 123);
        let error = read("12", " hunter2").unwrap_err().to_string();
        assert!(error.contains("GET /x: not the JSON expected") && !error.contains("hunter2"), "{error}");
    }
}
