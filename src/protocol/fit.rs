//! Text cut to a length that can be sent.

/// Returns `text`, cut in the middle so that it takes at most `max_encoded` bytes in a JSON string.
///
/// A line at the cut says how many bytes are missing. Returns an empty text if that line alone is too long.
pub(crate) fn fit(text: String, max_encoded: usize) -> String {
    if escaped_len(&text) <= max_encoded {
        return text;
    }
    // No count is longer than that of the whole text.
    let Some(budget) = max_encoded.checked_sub(escaped_len(&left_out_line(text.len() as u64))) else {
        return String::new();
    };
    let (head_length, head_cost) = affordable(text.chars(), budget / 4);
    let (tail_length, _) = affordable(text.chars().rev(), budget - head_cost);
    let tail_start = head_length.max(text.len() - tail_length);
    let (Some((head, _)), Some((_, tail))) =
        (text.split_at_checked(head_length), text.split_at_checked(tail_start))
    else {
        // Both lengths are sums of whole characters.
        return String::new();
    };
    format!("{head}{}{tail}", left_out_line((tail_start - head_length) as u64))
}

/// Returns how many bytes of text, in whole characters, fit into `budget` encoded bytes, and their encoded length.
fn affordable(chars: impl Iterator<Item = char>, budget: usize) -> (usize, usize) {
    let (mut length, mut cost) = (0, 0);
    for c in chars {
        let price = u8::try_from(c).ok().filter(u8::is_ascii).map_or(c.len_utf8(), escaped_byte_len);
        if cost + price > budget {
            break;
        }
        length += c.len_utf8();
        cost += price;
    }
    (length, cost)
}

/// Returns the bytes that `text` takes in a JSON string, without the quotes.
pub(crate) fn escaped_len(text: &str) -> usize {
    text.bytes().map(escaped_byte_len).sum()
}

/// As serde_json writes it: DEL and characters outside of ASCII are not escaped.
fn escaped_byte_len(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0x00..=0x1f => 6,
        _ => 1,
    }
}

/// The ends of the lines that stand for a part of an output that was left out, or not searched.
pub(crate) const GAP_ENDS: [&str; 2] = [" bytes left out ...]\n", " bytes searched ...]\n"];

/// The line that stands for `bytes` bytes of a text that were left out.
pub(crate) fn left_out_line(bytes: u64) -> String {
    format!("\n[... {bytes} bytes left out ...]\n")
}

/// The line that stands for the rest of an output of which only `searched` bytes were read. `total` is how many there are;
/// `None` if that is unknown.
pub(crate) fn searched_line(searched: u64, total: Option<u64>) -> String {
    format!("\n[... {} ...]\n", searched_words(searched, total))
}

/// Returns how much of an output was read, for people.
pub(crate) fn searched_words(searched: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("{searched} of {total} bytes searched"),
        None => format!("{searched} of more than {searched} bytes searched"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::numbers::Numbers;

    #[test]
    fn the_lines_about_a_gap_end_as_their_readers_expect() {
        let lines = [left_out_line(7), searched_line(7, None), searched_line(7, Some(8))];
        for line in lines {
            assert!(GAP_ENDS.iter().any(|end| line.ends_with(end)), "{line}");
        }
    }

    #[test]
    fn the_escaped_length_is_that_of_the_encoder() {
        let text: String =
            (0..0x250).filter_map(char::from_u32).chain("\"\\€😀\u{2028}\u{fffd}".chars()).collect();
        for c in text.chars() {
            let c = c.to_string();
            assert_eq!(escaped_len(&c) + 2, serde_json::to_string(&c).unwrap().len(), "{c:?}");
        }
        assert_eq!(escaped_len(&text) + 2, serde_json::to_string(&text).unwrap().len());
    }

    #[test]
    fn what_fits_is_not_touched() {
        let text = "a\n\u{1}€";
        assert_eq!(fit(text.into(), 12), text);
        assert_ne!(fit(text.into(), 11), text);
    }

    #[test]
    fn what_does_not_fit_loses_its_middle() {
        let mut numbers = Numbers(11);
        for _ in 0..2000 {
            let text: String = (0..numbers.below(200))
                .map(|_| ["x", "\u{1}", "\"", "€", "😀", "\n"][numbers.below(6)])
                .collect();
            let limit = numbers.below(400);
            let fitted = fit(text.clone(), limit);
            assert!(escaped_len(&fitted) <= limit, "{text:?} {limit}");
            let Some((head, rest)) = fitted.split_once("\n[... ") else {
                assert!(fitted == text || (fitted.is_empty() && limit < 33), "{text:?} {limit}");
                continue;
            };
            let (count, tail) = rest.split_once(" bytes left out ...]\n").unwrap();
            assert!(text.starts_with(head) && text.ends_with(tail));
            assert_eq!(head.len() + tail.len() + count.parse::<usize>().unwrap(), text.len());
            // Nothing is wasted: at most one character at each end, and a digit of the count.
            assert!(escaped_len(&fitted) + 6 + 6 + 2 > limit, "{text:?} {limit}");
            assert!(escaped_len(head) <= limit / 4);
        }
    }
}
