//! Lists in variables: words between white space, and quotes around words that contain some.

/// Returns the words of a list. Single and double quotes group, also within a word; there are no escapes. `None` if a quote is not
/// closed.
pub(super) fn split(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_separates_words_and_quotes_group() {
        let cases: [(&str, &[&str]); 6] = [
            ("", &[]),
            (" \t\n", &[]),
            ("/a:/a:ro '/b c:/b'", &["/a:/a:ro", "/b c:/b"]),
            ("A='1 2'\"3 '4'\" B=\\n", &["A=1 23 '4'", "B=\\n"]),
            ("''  \"\"", &["", ""]),
            ("a\nb", &["a", "b"]),
        ];
        for (text, words) in cases {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        for text in ["'", "a \"b", "'a\""] {
            assert_eq!(split(text), None, "{text}");
        }
    }
}
