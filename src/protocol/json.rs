//! JSON read in place: values that are not needed are skipped, not built, whatever their depth and the size of their numbers.
//!
//! Every reader expects text that a first pass has checked, and strings may contain lone surrogates, which become U+FFFD.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The most members of an object or an array that is read as a whole: each takes more memory than its text.
pub(super) const MAX_MEMBERS: usize = 16_384;

/// Returns the type of a value with its article.
pub(super) fn kind(value: &RawValue) -> &'static str {
    match value.get().bytes().next() {
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        Some(b'"') => "a string",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        _ => "a number",
    }
}

/// Returns a string; `None` if the value is not one.
pub(super) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    read(value, b'"', Text)
}

/// Returns the string in this text, which is not checked yet.
pub(super) fn unchecked_string(text: &str) -> Option<String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let string = Text.deserialize(&mut json).ok()?.into_owned();
    json.end().is_ok().then_some(string)
}

/// Returns the members of an object with these names; `None` if the value is not an object. The last of several members of a
/// name counts.
pub(super) fn members<'a>(
    value: &'a RawValue,
    names: &'static [&'static str],
) -> Option<Vec<(&'static str, &'a RawValue)>> {
    read(value, b'{', Named(names))
}

/// Returns all members of an object; `None` if the value is not an object or has more than [`MAX_MEMBERS`].
pub(super) fn all_members(value: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    read(value, b'{', Members)
}

/// Returns the values of an array; `None` if the value is not an array or has more than [`MAX_MEMBERS`].
pub(super) fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    read(value, b'[', Elements)
}

fn read<'a, S: DeserializeSeed<'a>>(value: &'a RawValue, first: u8, seed: S) -> Option<S::Value> {
    let text = value.get();
    if text.bytes().next() != Some(first) {
        return None;
    }
    seed.deserialize(&mut serde_json::Deserializer::from_str(text)).ok()
}

/// Returns a value without white space outside strings. Order, duplicate keys, numbers and escapes stay, except that an
/// escaped lone surrogate becomes `\ufffd`. `None` if the value nests deeper than `max_depth`.
pub(super) fn compact(value: &RawValue, max_depth: usize) -> Option<String> {
    let mut text = String::with_capacity(value.get().len());
    let (mut depth, mut in_string) = (0_usize, false);
    let mut rest = value.get();
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '\\' if in_string => escape(rest, &mut text),
            ' ' | '\t' | '\n' | '\r' if !in_string => 1,
            _ => {
                match first {
                    '"' => in_string = !in_string,
                    '[' | '{' if !in_string => depth += 1,
                    ']' | '}' if !in_string => depth = depth.saturating_sub(1),
                    _ => {}
                }
                text.push(first);
                first.len_utf8()
            }
        };
        if depth > max_depth {
            return None;
        }
        (_, rest) = rest.split_at_checked(len)?;
    }
    Some(text)
}

/// As [`compact`], for an object as Go writes a map of such values: the names of its members are sorted, the last of several
/// members with one name stays, and characters are escaped that HTML or JavaScript would take for their own.
pub(super) fn compact_sorted(value: &RawValue, max_depth: usize) -> Option<String> {
    let members: BTreeMap<String, &RawValue> = all_members(value)?.into_iter().collect();
    let pair = |(name, value): (&String, &&RawValue)| {
        let value = compact(value, max_depth.checked_sub(1)?)?;
        Some(format!("{}:{value}", serde_json::to_string(name).ok()?))
    };
    let pairs = members.iter().map(pair).collect::<Option<Vec<_>>>()?;
    let mut text = format!("{{{}}}", pairs.join(","));
    for (character, escaped) in [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ] {
        // Outside of strings there are none.
        if text.contains(character) {
            text = text.replace(character, escaped);
        }
    }
    Some(text)
}

/// Appends the escape at the start of `rest`, and returns its length.
fn escape(rest: &str, text: &mut String) -> usize {
    let unit = |at: usize| {
        let digits = rest.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (len, kept) = match (unit(0), unit(6)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, None),
        (Some(0xd800..=0xdfff), _) => (6, Some("\\ufffd")),
        (Some(_), _) => (6, None),
        (None, _) => (2, None),
    };
    text.push_str(kept.or_else(|| rest.get(..len)).unwrap_or_default());
    len
}

/// A string. Reading it as bytes is how serde_json accepts lone surrogates.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) => self.visit_bytes(bytes),
        }
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        let mut text = String::with_capacity(bytes.len());
        let mut rest = bytes;
        while !rest.is_empty() {
            let valid = rest.utf8_chunks().next().map_or("", |chunk| chunk.valid());
            text.push_str(valid);
            (_, rest) = rest.split_at(valid.len());
            rest = match rest {
                [] => break,
                // A lone surrogate, which serde_json encodes like any character.
                [0xed, 0xa0..=0xbf, _, after @ ..] | [_, after @ ..] => after,
            };
            text.push(char::REPLACEMENT_CHARACTER);
        }
        Ok(text.into())
    }
}

struct Named(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Named {
    type Value = Vec<(&'static str, &'de RawValue)>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Named {
    type Value = Vec<(&'static str, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(name) = map.next_key_seed(Text)? {
            if let Some(known) = self.0.iter().find(|known| **known == name) {
                found.retain(|(name, _)| name != known);
                found.push((*known, map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

struct Members;

impl<'de> DeserializeSeed<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of at most {MAX_MEMBERS} members")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = map.next_key_seed(Text)? {
            if members.len() == MAX_MEMBERS {
                return Err(A::Error::invalid_length(members.len() + 1, &self));
            }
            members.push((name.into_owned(), map.next_value()?));
        }
        Ok(members)
    }
}

struct Elements;

impl<'de> DeserializeSeed<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {MAX_MEMBERS} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            if elements.len() == MAX_MEMBERS {
                return Err(A::Error::invalid_length(elements.len() + 1, &self));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}
