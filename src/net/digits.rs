//! Numbers of digits alone: `str::parse` would also take a plus sign.

/// Returns the number that `text` consists of; `None` if it has anything but ASCII digits, is empty, or is too large.
pub(crate) fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Returns the port that `text` names: digits alone, from 1 to 65535.
pub(crate) fn port(text: &str) -> Option<u16> {
    number(text).and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_digits_alone() {
        assert_eq!(number("0"), Some(0));
        assert_eq!(number("007"), Some(7));
        assert_eq!(number("18446744073709551615"), Some(u64::MAX));
        for text in ["", "+1", "-1", " 1", "1 ", "1.0", "0x1", "١", "18446744073709551616"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn a_port_is_from_1_to_65535() {
        assert_eq!(port("1"), Some(1));
        assert_eq!(port("65535"), Some(65535));
        for text in ["", "0", "65536", "+80", "80 "] {
            assert_eq!(port(text), None, "{text}");
        }
    }
}
