//! Requests to the engine. Names from outside are encoded into paths and queries, so that none can change the request.

use std::io::Read;
use std::time::Duration;

use serde::Serialize;

use super::Error;
use super::timeouts::End;
use crate::net::url::percent_encode;
use crate::secret::Secret;

/// The most bytes of a name in a path. Far more than any real name has.
const MAX_VALUE: usize = 16 * 1024;

/// The HTTP methods that the Engine API uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads an object.
    Get,
    /// Reads an object, without a body in the response.
    Head,
    /// Performs an action.
    Post,
    /// Uploads.
    Put,
    /// Removes.
    Delete,
}

impl Method {
    /// Returns the method's name in a request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// An encoded path, below the API version, and query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestTarget {
    path: String,
    query: String,
}

impl RequestTarget {
    /// Starts with a fixed path, such as `containers` or `images/create`.
    pub fn of(path: &'static str) -> Self {
        Self { path: format!("/{path}"), query: String::new() }
    }

    /// Appends a fixed path.
    #[must_use]
    pub fn then(mut self, path: &'static str) -> Self {
        self.path.push('/');
        self.path.push_str(path);
        self
    }

    /// Appends one segment from outside. An empty one, `.` and `..` are [`Error::Invalid`]: the engine would normalise the
    /// path into another one.
    pub fn segment(mut self, segment: &str) -> Result<Self, Error> {
        check_segment(segment)?;
        self.path.push('/');
        self.path.push_str(&percent_encode(segment, b""));
        Ok(self)
    }

    /// Appends an image name. Its slashes are kept.
    pub fn image(mut self, name: &str) -> Result<Self, Error> {
        for segment in name.split('/') {
            check_segment(segment)?;
        }
        self.path.push('/');
        self.path.push_str(&percent_encode(name, b"/:@"));
        Ok(self)
    }

    /// Adds a query field.
    #[must_use]
    pub fn query(mut self, name: &'static str, value: &str) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(name);
        self.query.push('=');
        self.query.push_str(&percent_encode(value, b""));
        self
    }

    /// Adds a filter for labels. An empty value matches any value.
    #[must_use]
    pub fn labelled(self, labels: &[(&str, &str)]) -> Self {
        if labels.is_empty() {
            return self;
        }
        let pair = |(key, value): &(&str, &str)| match *value {
            "" => (*key).to_owned(),
            value => format!("{key}={value}"),
        };
        let labels: Vec<String> = labels.iter().map(pair).collect();
        self.query("filters", &serde_json::json!({ "label": labels }).to_string())
    }

    /// Returns the path without the query, for messages.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Returns the path and query for the request line.
    pub(super) fn on_the_wire(&self) -> String {
        format!("{}{}", self.path, self.query)
    }
}

fn check_segment(segment: &str) -> Result<(), Error> {
    match segment {
        "" | "." | ".." => Err(Error::Invalid { what: format!("the name {segment:?}") }),
        segment if segment.len() > MAX_VALUE => {
            Err(Error::Invalid { what: format!("a name of {} bytes", segment.len()) })
        }
        _ => Ok(()),
    }
}

/// The body of a request.
pub(super) enum Payload<'a> {
    None,
    Bytes(Vec<u8>),
    Stream(&'a mut dyn Read),
}

/// How long a call may take after its request was sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    /// Until the end of the response, so that one which drips ends, too.
    Whole(Duration),
    /// Until the response's head. The body may take any time, and is limited in its silence.
    Head(Duration),
}

impl Limit {
    /// Returns the time until the response's head.
    pub(super) fn head(self) -> Duration {
        match self {
            Self::Whole(limit) | Self::Head(limit) => limit,
        }
    }
}

/// One request.
pub struct Request<'a> {
    pub(super) method: Method,
    pub(super) target: RequestTarget,
    pub(super) headers: Vec<(&'static str, Secret)>,
    pub(super) payload: Payload<'a>,
    /// `None` for the usual limit, [`Timeouts::call`](super::Timeouts::call).
    pub(super) limit: Option<Limit>,
    /// When the response must have ended at the latest, however late it is read.
    pub(super) end: Option<End>,
}

impl<'a> Request<'a> {
    /// A request without a body.
    pub fn new(method: Method, target: RequestTarget) -> Self {
        Self { method, target, headers: Vec::new(), payload: Payload::None, limit: None, end: None }
    }

    /// A `GET`.
    pub fn get(target: RequestTarget) -> Self {
        Self::new(Method::Get, target)
    }

    /// A `POST`.
    pub fn post(target: RequestTarget) -> Self {
        Self::new(Method::Post, target)
    }

    /// A `DELETE`.
    pub fn delete(target: RequestTarget) -> Self {
        Self::new(Method::Delete, target)
    }

    /// Adds a header. A value with a control character fails the exchange.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: Secret) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Sends `value` as a JSON body.
    pub fn json(mut self, value: &impl Serialize) -> Result<Self, Error> {
        let bytes = serde_json::to_vec(value).map_err(|_| Error::Invalid { what: "a body".to_owned() })?;
        self.payload = Payload::Bytes(bytes);
        Ok(self.header("Content-Type", Secret::new("application/json")))
    }

    /// Sends everything that `source` returns as a chunked body.
    #[must_use]
    pub fn stream(mut self, content_type: &'static str, source: &'a mut dyn Read) -> Self {
        self.payload = Payload::Stream(source);
        self.header("Content-Type", Secret::new(content_type))
    }

    /// Replaces the time limit for the whole response.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = Some(Limit::Whole(limit));
        self
    }

    /// Limits only the time until the response's head, and the silence of its body.
    #[must_use]
    pub fn head_within(mut self, limit: Duration) -> Self {
        self.limit = Some(Limit::Head(limit));
        self
    }

    /// Whether it can be sent again: its body is not a stream.
    pub(super) fn is_repeatable(&self) -> bool {
        !matches!(self.payload, Payload::Stream(_))
    }

    /// Sets when the response must have ended, counted from now. Reading it fails with [`Error::Timeout`] after that.
    #[must_use]
    pub(super) fn ends_within(mut self, limit: Duration) -> Self {
        self.end = Some(End::after(limit));
        self
    }

    /// Returns the call's name for errors: the method and at most 200 characters of the path.
    pub(super) fn name(&self) -> String {
        let path: String = self.target.path().chars().take(200).collect();
        format!("{} {path}", self.method.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_cannot_change_the_path() {
        let target = RequestTarget::of("containers").segment("a/../b?c#d%e f").unwrap().then("json");
        assert_eq!(target.on_the_wire(), "/containers/a%2F..%2Fb%3Fc%23d%25e%20f/json");
        for bad in ["", ".", ".."] {
            assert!(RequestTarget::of("containers").segment(bad).is_err(), "{bad}");
        }
        assert!(RequestTarget::of("containers").segment(&"x".repeat(MAX_VALUE + 1)).is_err());
    }

    #[test]
    fn an_image_name_keeps_only_its_slashes_colons_and_at_sign() {
        let target = RequestTarget::of("images").image("h:5000/a/b:t@sha256:0?x").unwrap().then("json");
        assert_eq!(target.on_the_wire(), "/images/h:5000/a/b:t@sha256:0%3Fx/json");
        for bad in ["", "a//b", "../a", "a/./b", "/a"] {
            assert!(RequestTarget::of("images").image(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn queries_are_encoded() {
        let target = RequestTarget::of("x").query("a", "1&b=2+ü\r\n").query("c", "");
        assert_eq!(target.on_the_wire(), "/x?a=1%26b%3D2%2B%C3%BC%0D%0A&c=");
        let filtered = RequestTarget::of("x").labelled(&[("k", "v\""), ("only", "")]);
        assert_eq!(
            filtered.on_the_wire(),
            "/x?filters=%7B%22label%22%3A%5B%22k%3Dv%5C%22%22%2C%22only%22%5D%7D"
        );
        assert_eq!(RequestTarget::of("x").labelled(&[]).on_the_wire(), "/x");
    }
}
