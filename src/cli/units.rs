//! Numbers with units: sizes in bytes, durations in seconds.

use crate::net::digits;

/// A number of digits only, with blanks around it.
pub(super) fn number(text: &str) -> Option<u64> {
    digits::number(text.trim())
}

/// A size in bytes, from a number alone or with one of KiB, MiB, GiB, TiB, k, m, g and t, in upper or lower case.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let text = text.strip_suffix("ib").filter(|rest| rest.ends_with(['k', 'm', 'g', 't'])).unwrap_or(&text);
    let units = [('k', 1 << 10), ('m', 1 << 20), ('g', 1 << 30), ('t', 1_u64 << 40)];
    let unit = units.into_iter().find_map(|(letter, unit)| Some((text.strip_suffix(letter)?, unit)));
    match unit {
        Some((digits, unit)) => number(digits)?.checked_mul(unit),
        None => number(text),
    }
}

/// A duration in seconds, from a number of seconds or from numbers with `d`, `h`, `m` or `s`, each unit at most once and in
/// this order.
pub(super) fn duration(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    if rest.is_empty() || number(rest).is_some() {
        return number(rest);
    }
    let mut total: u64 = 0;
    for (letter, unit) in [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((digits, after)) = rest.split_once(letter) {
            total = total.checked_add(number(digits)?.checked_mul(unit)?)?;
            rest = after;
        }
    }
    rest.is_empty().then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds() {
        let good = [
            ("0", 0),
            ("90", 90),
            ("90s", 90),
            (" 15m ", 900),
            ("8h", 28_800),
            ("1h30m", 5400),
            ("2d1s", 172_801),
            ("1d2h3m4s", 93_784),
        ];
        for (text, seconds) in good {
            assert_eq!(duration(text), Some(seconds), "{text}");
        }
        for bad in
            ["", " ", "s", "-1", "+1s", "1.5h", "1m1h", "1h1h", "1w", "1h 30m x", "1hs", "999999999999999d"]
        {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_bytes() {
        let good = [
            ("0", 0),
            ("7", 7),
            ("2k", 2048),
            ("1KiB", 1024),
            ("3m", 3 << 20),
            (" 1GiB ", 1 << 30),
            ("2t", 2 << 40),
        ];
        for (text, bytes) in good {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for bad in ["", "k", "ib", "1ib", "1kb", "-1", "1.5g", "18446744073709551615k", "1 kk"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
