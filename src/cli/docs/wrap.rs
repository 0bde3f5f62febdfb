//! Line breaking.

/// Breaks a paragraph into lines of at most `width` characters, each with `before` at its start and a line break at its end.
/// A longer word gets a separate line.
pub(super) fn wrap(paragraph: &str, before: &str, width: usize) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length <= width {
            text.push(' ');
            column += 1;
        } else {
            text.push_str(if column > 0 { "\n" } else { "" });
            text.push_str(before);
            column = before.chars().count();
        }
        column += length;
        text.push_str(word);
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_filled_up_to_the_width() {
        assert_eq!(wrap("aaa bb c", "# ", 8), "# aaa bb\n# c\n");
        assert_eq!(wrap("aaa bbb c", "# ", 8), "# aaa\n# bbb c\n");
        assert_eq!(wrap("ää bb c", "# ", 7), "# ää bb\n# c\n");
    }

    #[test]
    fn a_long_word_is_not_broken() {
        assert_eq!(wrap("a bbbbbbbbb c", "", 4), "a\nbbbbbbbbb\nc\n");
    }
}
