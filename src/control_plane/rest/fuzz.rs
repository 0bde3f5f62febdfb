//! Fuzz entry point for the body of a run.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::answer::{AnswerError, view};
use super::scan::{Found, MAX_KEPT, Scanner};
use crate::fuzz::{Input, assert_one_line};

/// The longest error text: one of ours with 40 characters of an unknown state, each of them escaped.
const LONGEST_ERROR: usize = 512;

/// The length of a long body.
const LONG: usize = 3 * MAX_KEPT;

type Fields = Result<[Found; 3], AnswerError>;

/// The members of an object in their order, with those of the same name.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

/// Scans a body in one piece, byte by byte, and cut, with the same result; and one that is an object has the result that a parser of
/// whole texts gives.
pub fn run_body(bytes: &[u8]) {
    let input = Input::new(bytes);
    let body = input.inflated(LONG);
    let fields = scan([body.as_slice()]);
    assert_eq!(scan(input.cut(&body)), fields);
    if body.len() < LONG {
        assert_eq!(scan(body.chunks(1)), fields);
    }
    if let Ok(Members(members)) = serde_json::from_slice(&body) {
        check_members(&members, &fields);
    }
    if let Err(error) = fields.and_then(|found| view("r", found).map(drop)) {
        assert_one_line(&error.to_string(), LONGEST_ERROR);
    }
}

fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Fields {
    let mut scanner = Scanner::new();
    for piece in pieces {
        let is_over = scanner.feed(piece)?;
        assert!(scanner.is_small());
        if is_over {
            break;
        }
    }
    scanner.finish()
}

/// Compares the fields with the members of a valid object: of several with one name the first counts, and nothing after `state` and
/// `updated_at`.
fn check_members(members: &[(String, Value)], fields: &Fields) {
    let names = ["run_id", "state", "updated_at"];
    let mut expected: [Option<&Value>; 3] = [None; 3];
    for (name, value) in members {
        if expected.iter().skip(1).all(Option::is_some) {
            break;
        }
        if let Some(place) = names.iter().position(|known| known == name)
            && let Some(field) = expected.get_mut(place)
        {
            field.get_or_insert(value);
        }
    }
    assert!(fields.is_ok(), "refused a valid object: {fields:?}");
    for ((found, value), name) in fields.iter().flatten().zip(expected).zip(names) {
        let is_right = match (found, value) {
            (Found::Text(text), Some(Value::String(value))) => text == value,
            // A string as it is written is at most six times as long.
            (Found::Other, Some(Value::String(value))) => value.len() > MAX_KEPT / 6,
            (Found::Other, Some(value)) => !value.is_null(),
            (Found::Nothing, None | Some(Value::Null)) => true,
            _ => false,
        };
        assert!(is_right, "{name} is {found:?} instead of {value:?}");
    }
}
