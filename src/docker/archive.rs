//! Calls for files in containers. They work on a container that was never started, and see its volumes.

use std::io::Read;
use std::time::Duration;

use data_encoding::BASE64;
use serde::Deserialize;

use super::body::Body;
use super::containers::{accept, container};
use super::{Docker, Error, Method, Pending, Request, RequestTarget, Response};
use crate::sys::cancel::CancelToken;

const STAT: &str = "X-Docker-Container-Path-Stat";

/// What the engine tells about the file at a path in a container, without following a link.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PathStat {
    /// Bytes.
    #[serde(default)]
    pub size: i64,
    /// Bits of Go's `os.FileMode`, which differ from those of stat(2).
    pub mode: u32,
    /// RFC 3339, in nanoseconds if the file system has them. Empty if not reported.
    #[serde(default)]
    pub mtime: String,
    /// Where a symbolic link leads, in the container. Empty for other files.
    #[serde(default, rename = "linkTarget")]
    pub link_target: String,
}

impl PathStat {
    const DIR: u32 = 1 << 31;
    const LINK: u32 = 1 << 27;
    /// `os.ModeType`: dir, symlink, device, pipe, socket, character device, irregular.
    const TYPE: u32 = Self::DIR | Self::LINK | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;

    /// Whether it is a symbolic link.
    pub fn is_link(&self) -> bool {
        self.mode & Self::LINK != 0
    }

    /// Whether both are files, folders, links or of the same other type.
    pub fn is_same_type(&self, other: &Self) -> bool {
        self.mode & Self::TYPE == other.mode & Self::TYPE
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & Self::TYPE == 0
    }
}

/// A file or folder as a tar stream.
#[derive(Debug)]
pub struct Archive {
    /// As [`Docker::archive_stat`] returns it; `None` if the engine does not tell, or not in a readable form.
    pub stat: Option<PathStat>,
    /// The tar stream.
    pub body: Body,
}

/// A [`Docker::archive_stat`] that was sent.
#[must_use = "the answer is not read"]
pub struct PendingStat {
    docker: Docker,
    cancel: CancelToken,
    head: Pending<Option<PathStat>>,
    get: RequestTarget,
}

impl PendingStat {
    /// Waits for the answer; for a missing container it is `None`, too. An answer to `HEAD` has no message, so after an error
    /// the call is repeated as `GET`.
    ///
    /// # Errors
    /// An engine error, with the engine's message.
    pub fn finish(self) -> Result<Option<PathStat>, Error> {
        match self.head.finish() {
            Err(Error::Engine { message, .. }) if message.is_empty() => {
                let response = self.docker.exchange(&self.cancel, Request::get(self.get))?;
                found(response)?.map(|response| stat_of(&response)).transpose()
            }
            answer => answer,
        }
    }
}

impl Docker {
    /// Returns what is at `path`, or `None` if there is nothing. A missing container is an error.
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

    /// Sends [`Docker::archive_stat`].
    pub fn send_archive_stat(
        &self,
        cancel: &CancelToken,
        id: &str,
        path: &str,
    ) -> Result<PendingStat, Error> {
        let get = archive(id, path)?;
        let request = Request::new(Method::Head, get.clone());
        let decode = |response| found(response)?.map(|response| stat_of(&response)).transpose();
        let head = self.send(cancel, request, decode)?;
        Ok(PendingStat { docker: self.clone(), cancel: cancel.clone(), head, get })
    }

    /// Asks for the file or folder at `path` as a tar stream. The answer is `None` if it or the container is missing.
    pub fn send_archive_get(
        &self,
        cancel: &CancelToken,
        id: &str,
        path: &str,
    ) -> Result<Pending<Option<Archive>>, Error> {
        self.send_archive_within(cancel, id, path, Duration::MAX)
    }

    /// As [`Docker::send_archive_get`], but the answer must end within `limit`, or reading it fails with [`Error::Timeout`].
    pub fn send_archive_within(
        &self,
        cancel: &CancelToken,
        id: &str,
        path: &str,
        limit: Duration,
    ) -> Result<Pending<Option<Archive>>, Error> {
        let head_within = self.timeouts().head.min(limit);
        let request = Request::get(archive(id, path)?).head_within(head_within).ends_within(limit);
        self.send(cancel, request, |response| {
            let Some(response) = found(response)? else { return Ok(None) };
            Ok(Some(Archive { stat: stat_of(&response).ok(), body: response.body }))
        })
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
        let request = request.head_within(self.timeouts().head);
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

fn stat_of(response: &Response) -> Result<PathStat, Error> {
    let stat =
        response.header(STAT).ok_or_else(|| Error::protocol(format!("the header {STAT} is missing")))?;
    parse_stat(stat)
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
        assert!(!stat.is_link() && !stat.is_file());
        assert_eq!((stat.size, stat.mtime.as_str()), (4096, "2020"));
        let json = br#"{"name":"l","size":10,"mode":134218239,"mtime":"2020","linkTarget":"/data/real"}"#;
        let stat = parse_stat(&BASE64.encode(json)).unwrap();
        assert!(stat.is_link() && !stat.is_file() && stat.link_target == "/data/real");
        for bad in ["", "=", "e30=", "bm8="] {
            assert!(parse_stat(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn path_types_follow_go_file_modes() {
        let stat = |mode| PathStat { size: 0, mode, mtime: String::new(), link_target: String::new() };
        assert!(stat(0o644).is_file() && !stat(0o644).is_link());
        assert!(!stat(2_147_484_141).is_link() && !stat(2_147_484_141).is_file(), "a folder");
        assert!(!stat(134_218_239).is_file() && stat(134_218_239).is_link());
        assert!(!stat(1 << 25).is_file() && !stat(1 << 26 | 1 << 21).is_file());
    }
}
