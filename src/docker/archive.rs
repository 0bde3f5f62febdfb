//! Files in containers: look, fetch, put. All three work on a container that was only created, and reach into its
//! volumes.
//!
//! Owns the difference between a missing path and a missing container. It must not know what the files are for.

use std::io::Read;

use data_encoding::BASE64;

use super::body::Body;
use super::containers::{accept, container};
use super::{Docker, Error, Method, PathStat, Request, RequestTarget};
use crate::sys::cancel::CancelToken;

const STAT: &str = "X-Docker-Container-Path-Stat";

impl Docker {
    /// What is at `path`; `None` when nothing is. A container that is not there is an error.
    pub fn archive_stat(
        &self,
        cancel: &CancelToken,
        id: &str,
        path: &str,
    ) -> Result<Option<PathStat>, Error> {
        let response = self.exchange(cancel, Request::new(Method::Head, archive(id, path)?))?;
        if response.status == 404 {
            return self.no_such_path(cancel, id);
        }
        let response = response.success()?;
        let stat = response.header(STAT).ok_or_else(|| Error::protocol(format!("{STAT} is missing")))?;
        parse_stat(stat).map(Some)
    }

    /// The file or folder at `path` as a tar stream; `None` when nothing is there.
    pub fn archive_get(&self, cancel: &CancelToken, id: &str, path: &str) -> Result<Option<Body>, Error> {
        let response = self.exchange(cancel, Request::get(archive(id, path)?))?;
        if response.status == 404 {
            return self.no_such_path(cancel, id);
        }
        Ok(Some(response.success()?.body))
    }

    /// Unpacks a tar stream into the folder `path`, which must exist. When `body` fails, the upload is cut off so
    /// that the engine does not take it for whole, and the error is that of `body`.
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

    /// The engine says 404 for both, and the answer to a `HEAD` has no message: look whether the container is there.
    fn no_such_path<T>(&self, cancel: &CancelToken, id: &str) -> Result<Option<T>, Error> {
        self.container_inspect(cancel, id).map(|_| None)
    }
}

fn archive(id: &str, path: &str) -> Result<RequestTarget, Error> {
    Ok(container(id)?.then("archive").query("path", path))
}

pub(super) fn parse_stat(header: &str) -> Result<PathStat, Error> {
    let json = BASE64.decode(header.as_bytes()).ok();
    let stat = json.and_then(|json| serde_json::from_slice(&json).ok());
    stat.ok_or_else(|| Error::protocol(format!("{STAT} is not base64 of JSON")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_base64_of_json() {
        let json = br#"{"name":"agent","size":4096,"mode":2147484141,"mtime":"2020","linkTarget":""}"#;
        let stat = parse_stat(&BASE64.encode(json)).unwrap();
        assert!(stat.is_dir() && stat.name == "agent");
        for bad in ["", "=", "e30=", "bm8="] {
            assert!(parse_stat(bad).is_err(), "{bad}");
        }
    }
}
