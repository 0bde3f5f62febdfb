//! Decodes a response's head, after any interim heads.

use super::HttpError;
use super::body::Framing;

use crate::net::digits::number;

/// The most bytes of a head. Most have less than 1 KiB; `X-Docker-Container-Path-Stat` can add some KiB.
pub(in crate::docker) const MAX_HEAD: usize = 64 * 1024;
/// The most headers of a response.
pub(in crate::docker) const MAX_HEADERS: usize = 100;
/// The most interim (1xx) heads of a response.
pub(in crate::docker) const MAX_INTERIM: usize = 16;

/// A response's status and headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::docker) struct Head {
    pub(in crate::docker) status: u16,
    headers: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// Returns the first header of that name, if it is UTF-8.
    pub(in crate::docker) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Returns how the body is framed (RFC 9112, section 6.3). `to_head` is whether the request was a `HEAD`.
    pub(in crate::docker) fn framing(&self, to_head: bool) -> Result<Framing, HttpError> {
        if to_head || matches!(self.status, 204 | 304) {
            return Ok(Framing::Sized(0));
        }
        let mut encodings = self.all("Transfer-Encoding").peekable();
        if encodings.peek().is_some() {
            let chunked = encodings.all(|value| value.trim_ascii().eq_ignore_ascii_case(b"chunked"))
                && self.all("Transfer-Encoding").count() == 1;
            return if chunked { Ok(Framing::Chunked) } else { Err(HttpError::Encoding) };
        }
        let mut lengths = self.all("Content-Length").map(length);
        match lengths.next() {
            None => Ok(Framing::UntilClose),
            Some(first) => {
                let first = first?;
                for other in lengths {
                    if other? != first {
                        return Err(HttpError::Length);
                    }
                }
                Ok(Framing::Sized(first))
            }
        }
    }

    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let same = move |(key, _): &&(String, Vec<u8>)| key.eq_ignore_ascii_case(name);
        self.headers.iter().filter(same).map(|(_, value)| value.as_slice())
    }
}

/// Parses a length. Only digits are valid, while `str::parse` accepts a sign.
fn length(value: &[u8]) -> Result<u64, HttpError> {
    let text = std::str::from_utf8(value.trim_ascii()).map_err(|_| HttpError::Length)?;
    number(text).ok_or(HttpError::Length)
}

/// Collects bytes until a head is complete.
#[derive(Debug, Default)]
pub(in crate::docker) struct HeadReader {
    buffer: Vec<u8>,
    interim: usize,
}

impl HeadReader {
    /// Adds bytes. Returns the head once it is complete; [`HeadReader::into_rest`] then has the bytes after it.
    pub(in crate::docker) fn push(&mut self, bytes: &[u8]) -> Result<Option<Head>, HttpError> {
        self.buffer.extend_from_slice(bytes);
        while let Some((head, used)) = parse(&self.buffer)? {
            self.buffer.drain(..used);
            match head.status {
                101 => return Err(HttpError::Switched),
                // The parser accepts any three digits.
                ..100 => return Err(httparse::Error::Status.into()),
                100..200 => self.interim += 1,
                _ => return Ok(Some(head)),
            }
            if self.interim > MAX_INTERIM {
                return Err(HttpError::TooManyInterim);
            }
        }
        Ok(None)
    }

    /// Returns whether no byte of the response has been added.
    pub(in crate::docker) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.interim == 0
    }

    /// Returns the bytes after the head, which belong to the body.
    pub(in crate::docker) fn into_rest(self) -> Vec<u8> {
        self.buffer
    }
}

fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, HttpError> {
    let window = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let used = match response.parse(window) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD => return Err(HttpError::HeadTooLong),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HttpError::TooManyHeaders),
        Err(error) => return Err(error.into()),
    };
    let headers = response.headers.iter().map(|header| (header.name.to_owned(), header.value.to_vec()));
    let head = Head { status: response.code.unwrap_or_default(), headers: headers.collect() };
    Ok(Some((head, used)))
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
