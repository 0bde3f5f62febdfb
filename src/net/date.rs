//! Dates in HTTP headers.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// Returns the time that a header such as `Date` names; `None` for the obsolete forms (RFC 9110, 5.6.7) and for anything else.
pub(crate) fn parse(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text.trim(), &Rfc2822).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_in_its_preferred_form() {
        let seconds = |text| parse(text).map(OffsetDateTime::unix_timestamp);
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds(" Sun, 06 Nov 1994 08:49:37 GMT "), Some(784_111_777));
        for text in
            ["", "120", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 36 Nov 1994 08:49:37 GMT", "1994-11-06"]
        {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
