//! Variables whose names begin like the worker's but that no setting has.

use super::{EXTERNAL, SETTINGS};

/// How the worker's variables begin.
const PREFIX: &str = "OZ_";
/// Read by the systemd unit.
pub(super) const UNIT_ARGUMENTS: &str = "OZ_WORKER_ARGS";

/// Returns the known name that is nearest to `name`, if `name` begins like a setting's variable in upper or lower case and is none.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase();
    if !upper.starts_with(PREFIX) || own().any(|other| other == name) {
        return None;
    }
    own().min_by_key(|other| distance(&upper, other))
}

/// Returns the known name that differs from `name` only in upper and lower case, if any. The variables of proxies have both forms,
/// and a name of one word may be another variable.
pub(super) fn misspelt_case(name: &str) -> Option<&'static str> {
    let external = EXTERNAL.iter().map(|external| external.variable);
    let external = external.filter(|known| known.contains('_') && !known.ends_with("_PROXY"));
    own().chain(external).find(|known| known.eq_ignore_ascii_case(name)).filter(|known| *known != name)
}

/// Returns the variables of the settings and of the unit.
fn own() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().filter_map(|setting| setting.variable).chain([UNIT_ARGUMENTS])
}

/// Returns the number of characters to insert, remove or replace to make one text of another (Levenshtein's distance).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (line, a) in (1..).zip(from.chars()) {
        let mut diagonal = line - 1;
        let mut left = line;
        for (cell, b) in row.iter_mut().skip(1).zip(to.chars()) {
            let replaced = diagonal + usize::from(a != b);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
    }
    row.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_the_edits() {
        let cases = [
            ("", "", 0),
            ("a", "a", 0),
            ("a", "b", 1),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("abc", "a", 2),
        ];
        for (from, to, edits) in cases {
            assert_eq!((distance(from, to), distance(to, from)), (edits, edits), "{from} {to}");
        }
    }

    #[test]
    fn only_an_unknown_name_of_the_worker_has_a_nearest_one() {
        assert_eq!(nearest("OZ_TASKTIMEOUT"), Some("OZ_TASK_TIMEOUT"));
        assert_eq!(nearest("oz_api_key"), Some("OZ_API_KEY"));
        for name in ["OZ_API_KEY", "OZ_WORKER_ARGS", "PATH", "oz", "OZONE"] {
            assert_eq!(nearest(name), None, "{name}");
        }
    }
}
