//! Responses that refuse the upgrade request: the class of a status, the time to wait, and the text for the log.

use std::time::Duration;

use httparse::{Header, Response, Status, parse_chunk_size};
use time::OffsetDateTime;

use super::error::{Details, DialError, Refusal};
use super::upgrade::{MAX_HEADERS, tokens, values};
use crate::net::date;
use crate::secret::Secret;

/// How much of the answer to a refused request is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// The most bytes of its body that are looked at.
    bytes: usize,
    /// The most characters of its body that are shown.
    characters: usize,
}

impl Extent {
    /// For a line of the log.
    pub(super) const LOG: Self = Self { bytes: 4 << 10, characters: 200 };
    /// For an operator who asks.
    pub(super) const ALL: Self = Self { bytes: 8 << 10, characters: 8 << 10 };
}

/// The most characters of headers about the error that are shown.
const MAX_ERROR_HEADERS: usize = 1024;
/// The longest time that a peer can ask to wait for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(10 * 60);
/// A part of the key with this many letters and digits is hidden too, since the peer may have escaped what is between them.
const HIDDEN_PART: usize = 8;
/// What is shown for the key.
const REDACTED: &str = "«redacted»";

/// Returns the status in the first bytes of a response, as soon as its three digits have arrived.
///
/// The control plane sends 401 and 403 as a bare status line and then resets the connection, so the head may never be
/// complete. tungstenite then reports only an incomplete handshake.
pub(super) fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, after) = rest.split_at_checked(3)?;
    if !digits.iter().all(u8::is_ascii_digit) || after.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let status = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (status >= 100).then_some(status)
}

/// Returns the error for a status other than 101: a refusal unless another attempt may get a different answer.
pub(super) fn classify(status: u16, details: Details) -> DialError {
    let refusal = match status {
        401 => Refusal::Unauthorized,
        403 => Refusal::Forbidden,
        404 => Refusal::NotFound,
        407 => Refusal::ProxyLogin,
        200..=299 => Refusal::NotUpgraded { status },
        300..=399 => Refusal::Redirected { status },
        400..=499 if !matches!(status, 408 | 425 | 429) => Refusal::Refused { status },
        _ => return DialError::Transient(format!("the control plane answered {status}"), details),
    };
    DialError::Refused(refusal, details)
}

/// Returns whether enough of the response was read for [`details`]. `key` is the API key.
pub(super) fn is_enough(response: &[u8], key: &Secret, extent: Extent) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let Some((head, body)) = split(response, &mut headers) else { return true };
    body.len() >= limit(key, extent) || head.framing.decode(body).is_none_or(|(_, is_complete)| is_complete)
}

/// Returns what a response says besides its status; nothing while its head is incomplete. `key` is the API key. `now` is used for a
/// date without the peer's own time.
pub(super) fn details(response: &[u8], key: &Secret, extent: Extent, now: OffsetDateTime) -> Details {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let Some((head, body)) = split(response, &mut headers) else { return Details::default() };
    let body = body.get(..limit(key, extent)).unwrap_or(body);
    let body = head.framing.decode(body).map(|(body, _)| shown(&body, key, extent)).unwrap_or_default();
    let retry_after = head.retry_after.and_then(|value| retry_after(value, head.sent_at.unwrap_or(now)));
    let error: String = without_key(&head.error, key.expose()).chars().take(MAX_ERROR_HEADERS).collect();
    Details { body, error, retry_after }
}

/// How many bytes of a body are read: a key that begins within those that are looked at is whole.
fn limit(key: &Secret, extent: Extent) -> usize {
    extent.bytes + key.expose().len()
}

/// The parts of a head that matter here.
struct Head<'a> {
    framing: Framing,
    /// The headers with `error` in their name.
    error: String,
    retry_after: Option<&'a str>,
    sent_at: Option<OffsetDateTime>,
}

/// Where a body ends.
enum Framing {
    /// After this many bytes.
    Length(usize),
    Chunked,
    /// With the connection.
    Close,
    /// It is encoded, as with gzip.
    Unreadable,
}

impl Framing {
    /// Returns the body as far as it has arrived, and whether it is complete; `None` if it cannot be read.
    fn decode(&self, bytes: &[u8]) -> Option<(Vec<u8>, bool)> {
        match *self {
            Self::Length(length) => {
                Some((bytes.get(..length).unwrap_or(bytes).to_vec(), bytes.len() >= length))
            }
            Self::Close => Some((bytes.to_vec(), false)),
            Self::Chunked => Some(unchunked(bytes)),
            Self::Unreadable => None,
        }
    }
}

/// Returns the head and the bytes after it; `None` if the head is incomplete or not HTTP.
fn split<'a>(response: &'a [u8], headers: &'a mut [Header<'a>]) -> Option<(Head<'a>, &'a [u8])> {
    let mut parsed = Response::new(headers);
    let Ok(Status::Complete(length)) = parsed.parse(response) else { return None };
    let (_, body) = response.split_at_checked(length)?;
    let headers = &*parsed.headers;
    let length = || values(headers, "Content-Length").next().and_then(|value| value.parse().ok());
    let framing = if matches!(parsed.code, Some(100..=199 | 204 | 304)) {
        Framing::Length(0)
    } else if tokens(headers, "Content-Encoding").any(|coding| !coding.eq_ignore_ascii_case("identity")) {
        Framing::Unreadable
    } else if tokens(headers, "Transfer-Encoding").any(|coding| coding.eq_ignore_ascii_case("chunked")) {
        Framing::Chunked
    } else {
        length().map_or(Framing::Close, Framing::Length)
    };
    let sent_at = values(headers, "Date").next().and_then(date::parse);
    let retry_after = values(headers, "Retry-After").next();
    let is_error = |header: &&Header<'_>| header.name.to_ascii_lowercase().contains("error");
    let show =
        |header: &Header<'_>| format!("{}: {}", header.name, String::from_utf8_lossy(header.value).trim());
    let error = headers.iter().filter(is_error).map(show).collect::<Vec<_>>().join("; ");
    Some((Head { framing, error, retry_after, sent_at }, body))
}

/// Returns the time to wait that `Retry-After` asks for, in seconds or as a date: zero for a date in the past, at most 10 minutes.
fn retry_after(value: &str, now: OffsetDateTime) -> Option<Duration> {
    let asked = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Too many digits are a long time.
        value.parse().map_or(LONGEST_RETRY_AFTER, Duration::from_secs)
    } else {
        Duration::try_from(date::parse(value)? - now).unwrap_or_default()
    };
    Some(asked.min(LONGEST_RETRY_AFTER))
}

/// Returns the data of a chunked body up to the first mistake, and whether nothing more follows.
fn unchunked(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut data = Vec::new();
    loop {
        let size = match parse_chunk_size(bytes) {
            Ok(Status::Complete((start, size))) => {
                bytes.split_at_checked(start).map(|(_, rest)| (rest, size))
            }
            Ok(Status::Partial) => return (data, false),
            Err(_) => None,
        };
        let Some((rest, size @ 1..)) = size else { return (data, true) };
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        data.extend(rest.iter().take(length));
        let Some((_, next)) = rest.split_at_checked(length.saturating_add(2)) else { return (data, false) };
        bytes = next;
    }
}

/// Returns the beginning of a body for the log, with spaces in place of white space, and without the API key.
fn shown(body: &[u8], key: &Secret, extent: Extent) -> String {
    let text = String::from_utf8_lossy(body);
    let mut text = without_key(&text, key.expose());
    text.truncate(text.floor_char_boundary(extent.bytes));
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(extent.characters) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Replaces the key, and long parts of it. The end of the text may be the beginning of a key that was cut off.
fn without_key(text: &str, key: &str) -> String {
    let mut text = text.replace(key, REDACTED);
    for part in key.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| part.len() >= HIDDEN_PART) {
        text = text.replace(part, REDACTED);
    }
    let cut = (HIDDEN_PART / 2..key.len())
        .rev()
        .find(|&length| key.get(..length).is_some_and(|start| text.ends_with(start)));
    if let Some(length) = cut {
        text.truncate(text.len() - length);
        text.push_str(REDACTED);
    }
    text
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
