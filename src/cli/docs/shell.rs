//! Quoting for shells.

/// Quotes a text for bash and zsh.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Quotes a text for fish, which has two escapes within single quotes.
pub(super) fn fish_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Escapes a part of a specification for zsh's `_arguments`.
pub(super) fn zsh_part(text: &str) -> String {
    let special = |c: char| matches!(c, '\\' | '[' | ']' | ':');
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_are_escaped() {
        assert_eq!(quoted(r"it's \ $x"), r"'it'\''s \ $x'");
        assert_eq!(fish_quoted(r"it's \ $x"), r"'it\'s \\ $x'");
    }

    #[test]
    fn brackets_and_colons_are_escaped() {
        assert_eq!(zsh_part(r"HOST:PATH[:MODE] \"), r"HOST\:PATH\[\:MODE\] \\");
    }
}
