//! Calls for files in containers. They work on a container that was never started, and see its volumes.

use std::io::Read;

use data_encoding::BASE64;

use super::body::Body;
use super::containers::{accept, container};
use super::{Docker, Error, Method, PathStat, Pending, Request, RequestTarget, Response};
use crate::sys::cancel::CancelToken;

const STAT: &str = "X-Docker-Container-Path-Stat";

impl Docker {
    /// Returns the type of the file at `path`, or `None` if there is none. A missing container is an error.
    pub fn archive_stat(
        &self,
        cancel: &CancelToken,
        id: &str,
        path: &str,
    ) -> Result<Option<PathStat>, Error> {
        match self.send_archive_stat(cancel, id, path)?.finish()? {
            None => self.no_such_path(cancel, id),
            stat => Ok(stat),
        }
    }

    /// Sends [`Docker::archive_stat`], but its answer for a missing container is `None`, too.
    pub fn send_archive_stat(
        &self,
        cancel: &CancelToken,
        id: &str,
        path: &str,
    ) -> Result<Pending<Option<PathStat>>, Error> {
        let request = Request::new(Method::Head, archive(id, path)?);
        self.send(cancel, request, |response| {
            let Some(response) = found(response)? else { return Ok(None) };
            let stat = response
                .header(STAT)
                .ok_or_else(|| Error::protocol(format!("the header {STAT} is missing")))?;
            parse_stat(stat).map(Some)
        })
    }

    /// Asks for the file or folder at `path` as a tar stream. The answer is `None` if it or the container is missing.
    pub fn send_archive_get(
        &self,
        cancel: &CancelToken,
        id: &str,
        path: &str,
    ) -> Result<Pending<Option<Body>>, Error> {
        let request = Request::get(archive(id, path)?);
        self.send(cancel, request, |response| Ok(found(response)?.map(|response| response.body)))
    }

    /// Unpacks a tar stream into the folder `path`, which must exist. If reading `body` fails, the upload is aborted, so
    /// that the engine does not take it for complete, and the call returns [`Error::Upload`].
    pub fn archive_put(
        &self,
        cancel: &CancelToken,
        id: &str,
        path: &str,
        body: &mut dyn Read,
    ) -> Result<(), Error> {
        let request = Request::new(Method::Put, archive(id, path)?).stream("application/x-tar", body);
        accept(self.exchange(cancel, request)?, &[])
    }

    /// Returns `None` if the container exists, else the error. The engine answers 404 for a missing path and for a missing
    /// container, and the answer to `HEAD` has no message.
    fn no_such_path<T>(&self, cancel: &CancelToken, id: &str) -> Result<Option<T>, Error> {
        self.container_inspect(cancel, id).map(|_| None)
    }
}

/// Returns a successful response, or `None` if its status is 404.
fn found(response: Response) -> Result<Option<Response>, Error> {
    if response.status == 404 { Ok(None) } else { response.success().map(Some) }
}

fn archive(id: &str, path: &str) -> Result<RequestTarget, Error> {
    Ok(container(id)?.then("archive").query("path", path))
}

pub(super) fn parse_stat(header: &str) -> Result<PathStat, Error> {
    let json = BASE64.decode(header.as_bytes()).ok();
    let stat = json.and_then(|json| serde_json::from_slice(&json).ok());
    stat.ok_or_else(|| Error::protocol(format!("the header {STAT} is not base64 of JSON with a mode")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stat_header_is_decoded() {
        let json = br#"{"name":"agent","size":4096,"mode":2147484141,"mtime":"2020","linkTarget":""}"#;
        let stat = parse_stat(&BASE64.encode(json)).unwrap();
        assert!(stat.is_dir());
        for bad in ["", "=", "e30=", "bm8="] {
            assert!(parse_stat(bad).is_err(), "{bad}");
        }
    }
}
