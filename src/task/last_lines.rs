//! The last lines of a failed task's output, for the log. Pure.

use crate::protocol::GAP_ENDS;

/// What takes the place of a hidden value.
const HIDDEN: &str = "(hidden)";

/// Shorter values are not hidden: they would make most of the text unreadable.
const MIN_HIDDEN: usize = 6;

/// How far before the lines hidden values are searched, in bytes, besides the longest of them.
const BEFORE: usize = 16 * 1024;

/// Returns the last `count` lines of an output that are not blank. `hidden` are values that are replaced, except those of fewer than
/// 6 bytes. If a part of the output was left out, only lines after it are returned, and of the first of them no part that could be
/// the end of a value.
pub(super) fn last_lines(output: &str, count: usize, hidden: &[&str]) -> Vec<String> {
    if count == 0 {
        return Vec::new();
    }
    let mut hidden: Vec<&str> = hidden.iter().copied().filter(|value| value.len() >= MIN_HIDDEN).collect();
    // A value that contains another goes first.
    hidden.sort_by_key(|value| std::cmp::Reverse(value.len()));
    let gap = GAP_ENDS.iter().filter_map(|end| Some(output.rfind(end)? + end.len())).max();
    let text = gap.map_or(output, |at| {
        let (_, after) = output.split_at(at);
        let end = hidden.iter().filter_map(|value| end_of_value(after, value)).max().unwrap_or(0);
        // The first line is incomplete.
        after.split_at(end).1.split_once('\n').map_or("", |(_, rest)| rest)
    });
    let longest = hidden.first().map_or(0, |value| value.len());
    let text = tail(text, count, longest + BEFORE);
    let text = hidden.iter().fold(text.to_owned(), |text, value| text.replace(value, HIDDEN));
    let mut lines: Vec<String> =
        text.lines().rev().filter(|line| !line.trim().is_empty()).take(count).map(str::to_owned).collect();
    lines.reverse();
    lines
}

/// Returns the length of the longest end of `value` that `text` begins with.
fn end_of_value(text: &str, value: &str) -> Option<usize> {
    let end = value.char_indices().find(|(at, _)| text.starts_with(value.split_at(*at).1));
    end.map(|(at, _)| value.len() - at)
}

/// Returns the end of a text that has the last `count` lines that are not blank, with `before` bytes before them, in whole characters.
fn tail(text: &str, count: usize, before: usize) -> &str {
    let mut start = text.len();
    let mut left = count;
    for line in text.split_inclusive('\n').rev() {
        start -= line.len();
        left -= usize::from(!line.trim().is_empty());
        if left == 0 {
            break;
        }
    }
    text.split_at(text.floor_char_boundary(start.saturating_sub(before))).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_that_are_not_blank_are_returned() {
        assert_eq!(last_lines("a\nb\n\nc\n \n", 2, &[]), ["b", "c"]);
        assert_eq!(last_lines("a\r\nb", 5, &[]), ["a", "b"]);
        assert!(last_lines("", 5, &[]).is_empty() && last_lines("a", 0, &[]).is_empty());
    }

    #[test]
    fn values_are_hidden_also_across_lines_and_in_each_other() {
        let hidden = ["secret", "secret-2", "line 1\nline 2\nline 3", "short", ""];
        assert_eq!(last_lines("x secret-2 secret short\n", 1, &hidden), ["x (hidden) (hidden) short"]);
        assert_eq!(last_lines("key: line 1\nline 2\nline 3\nend", 2, &hidden), ["key: (hidden)", "end"]);
        assert_eq!(last_lines("line 1\nline 2\nline 3", 1, &hidden), ["(hidden)"]);
        let long = "é".repeat(100_000);
        assert_eq!(last_lines(&format!("{long}\n{long}\nend"), 2, &[&long]), ["(hidden)", "end"]);
    }

    /// The beginning of a value may have been left out.
    #[test]
    fn no_end_of_a_value_is_shown_after_a_gap() {
        let value = "first line\nsecond line\nthird line";
        for at in 1..value.len() {
            let rest = value.split_at(at).1;
            let output = format!("head\n[... 7 bytes left out ...]\n{rest} more\nlast");
            assert_eq!(last_lines(&output, 10, &[value]), ["last"], "{rest:?}");
        }
        let cut = "head\n[... 7 bytes left out ...]\nx\n[... 9 of more than 9 bytes searched ...]\ny\nlast";
        assert_eq!(last_lines(cut, 10, &[]), ["last"]);
        assert!(last_lines("head\n[... 7 bytes left out ...]\ntail", 10, &[]).is_empty());
    }
}
