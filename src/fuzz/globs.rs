//! Fuzzes the operator's patterns: they match as defined, and an error says what would be valid.

use super::{Input, assert_one_line};
use crate::docker::Reference;
use crate::policy::{Glob, MAX_GLOB};

/// The longest text that is compared with the definition, in characters.
const COMPARED: usize = 400;

/// A pattern on the first line of the data, and a name on the rest.
pub fn glob(bytes: &[u8]) {
    let text = Input::new(bytes).text();
    let (pattern, name) = text.split_once('\n').unwrap_or((&text, ""));
    for (glob, separator) in [(Glob::image(pattern), Some('/')), (Glob::variable(pattern), None)] {
        match glob {
            Ok(glob) => {
                assert!(pattern.len() <= MAX_GLOB && glob.to_string() == pattern);
                let complete = Reference::parse(name).map(|name| name.pulled()).ok();
                for name in [name, pattern].into_iter().chain(complete.as_deref()) {
                    compare(&glob, pattern, name, separator);
                }
            }
            Err(right) => {
                assert_one_line(right, 256);
                assert!(right.starts_with("must "), "{right}");
            }
        }
    }
}

fn compare(glob: &Glob, pattern: &str, name: &str, separator: Option<char>) {
    let found = glob.matches(name);
    if separator.is_some() && found && !pattern.contains("**") {
        assert_eq!(pattern.matches('/').count(), name.matches('/').count(), "{pattern:?} matches {name:?}");
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    if pattern.len() <= COMPARED && name.len() <= COMPARED {
        assert_eq!(found, is_match(&pattern, &name, separator), "{pattern:?} {name:?} {separator:?}");
    }
}

/// The definition, as a table: whether the first characters of the pattern match the first characters of the name.
fn is_match(pattern: &[char], name: &[char], separator: Option<char>) -> bool {
    let mut row = vec![false; name.len() + 1];
    if let Some(first) = row.first_mut() {
        *first = true;
    }
    let mut rest = pattern;
    while let Some((first, after)) = rest.split_first() {
        let stars = rest.iter().take_while(|c| **c == '*').count();
        let mut next = Vec::with_capacity(row.len());
        for (end, matches) in row.iter().enumerate() {
            let last = end.checked_sub(1).and_then(|index| name.get(index));
            let is_plain = last.is_some_and(|c| Some(*c) != separator);
            let before = |cells: &[bool]| end > 0 && cells.get(end - 1).copied().unwrap_or_default();
            next.push(match first {
                '*' => *matches || (is_plain || stars > 1) && before(&next),
                '?' => is_plain && before(&row),
                own => last == Some(own) && before(&row),
            });
        }
        row = next;
        rest = if stars > 1 { rest.get(stars..).unwrap_or_default() } else { after };
    }
    row.last().copied().unwrap_or_default()
}
