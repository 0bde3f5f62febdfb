//! Quoting, for shells.
//!
//! Owns how a text is kept from being read as anything else. It must not know what a completion is.

/// For bash and zsh, in which nothing means anything between single quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// For fish, which knows two escapes between them.
pub(super) fn fish_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// For a part of a specification of zsh's `_arguments`, in which these end something.
pub(super) fn zsh_part(text: &str) -> String {
    let special = |c: char| matches!(c, '\\' | '[' | ']' | ':');
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_does_not_end_what_is_quoted() {
        assert_eq!(quoted(r"it's \ $x"), r"'it'\''s \ $x'");
        assert_eq!(fish_quoted(r"it's \ $x"), r"'it\'s \\ $x'");
    }

    #[test]
    fn a_bracket_or_a_colon_does_not_end_a_part() {
        assert_eq!(zsh_part(r"HOST:PATH[:MODE] \"), r"HOST\:PATH\[\:MODE\] \\");
    }
}
