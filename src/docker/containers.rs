//! Containers: make, start, wait, stop, look at, remove.
//!
//! Owns the rules of these calls (which refusals are none, what a removal waits for). It must not know what the
//! containers are for.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::body::Body;
use super::error::one_line;
use super::stream::LogDemux;
use super::timeouts::deadline;
use super::{
    Container, ContainerSummary, CreateContainer, Created, Docker, Error, LogStream, Request, RequestTarget,
    Response,
};
use crate::secret::Secret;
use crate::sys::cancel::CancelToken;

/// How much of a log is read at once.
const READ: usize = 32 * 1024;
/// The first and the longest pause between two looks at a removal that somebody else began.
const REMOVE_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

impl Docker {
    /// Makes a container. 404: no such image; 409: the name is in use. A message of the engine that quotes a
    /// variable is masked.
    pub fn container_create(
        &self,
        cancel: &CancelToken,
        name: &str,
        create: &CreateContainer,
    ) -> Result<Created, Error> {
        let target = RequestTarget::of("containers/create").query("name", name);
        let request = Request::post(target).json(create)?.head_within(self.timeouts().create);
        let response = self.call(cancel, request).map_err(|error| mask(error, &create.env))?;
        response.json()
    }

    /// Looks a container up by id or name.
    pub fn container_inspect(&self, cancel: &CancelToken, id: &str) -> Result<Container, Error> {
        self.call(cancel, Request::get(container(id)?.then("json")))?.json()
    }

    /// Starts it; one that runs already is fine.
    pub fn container_start(&self, cancel: &CancelToken, id: &str) -> Result<(), Error> {
        let request = Request::post(container(id)?.then("start")).head_within(self.timeouts().create);
        accept(self.exchange(cancel, request)?, &[304])
    }

    /// Begins to wait for the container's next exit, and returns as soon as the engine has taken the wait up; start
    /// the container after that. (A container that has exited before is not waited for again: inspect it.)
    pub fn container_wait(&self, cancel: &CancelToken, id: &str) -> Result<Wait, Error> {
        let target = container(id)?.then("wait").query("condition", "next-exit");
        let mut body = self.call(cancel, Request::post(target))?.body;
        body.never_idle();
        Ok(Wait { body })
    }

    /// Sends TERM, and KILL after `grace` (whole seconds, rounded up); blocks until it has ended. One that does not
    /// run is fine.
    pub fn container_stop(&self, cancel: &CancelToken, id: &str, grace: Duration) -> Result<(), Error> {
        let seconds = grace.as_secs().saturating_add(u64::from(grace.subsec_nanos() > 0));
        let target = container(id)?.then("stop").query("t", &seconds.to_string());
        let limit = Duration::from_secs(seconds).saturating_add(self.timeouts().stop_margin);
        accept(self.exchange(cancel, Request::post(target).head_within(limit))?, &[304])
    }

    /// Removes it with its anonymous volumes, killing it first when it runs; one that is gone is fine. When somebody
    /// else is removing it, that is waited for.
    pub fn container_remove(&self, cancel: &CancelToken, id: &str) -> Result<(), Error> {
        let target = container(id)?.query("force", "1").query("v", "1");
        let deadline = deadline(self.timeouts().remove);
        let mut pause = REMOVE_PAUSE.0;
        loop {
            // Asking again is also the question whether the other removal is done: then it answers 404.
            let response = self.exchange(cancel, Request::delete(target.clone()))?;
            match accept(response, &[404]) {
                Err(error) if in_progress(&error) && Instant::now() < deadline => {}
                result => return result,
            }
            if !cancel.sleep(pause.min(deadline.saturating_duration_since(Instant::now()))) {
                return Err(Error::Cancelled);
            }
            pause = (pause * 2).min(REMOVE_PAUSE.1);
        }
    }

    /// Removes it like [`Docker::container_remove`], but one that runs is a conflict and stays as it is.
    pub fn container_remove_idle(&self, cancel: &CancelToken, id: &str) -> Result<(), Error> {
        let target = container(id)?.query("v", "1");
        accept(self.exchange(cancel, Request::delete(target))?, &[404])
    }

    /// Gives it another name, whether it runs or not. 409: the name is in use.
    pub fn container_rename(&self, cancel: &CancelToken, id: &str, name: &str) -> Result<(), Error> {
        let target = container(id)?.then("rename").query("name", name);
        accept(self.exchange(cancel, Request::post(target))?, &[])
    }

    /// Gives all that the container has written so far, in order, to `sink` in pieces of any size. Only for
    /// containers without a TTY, whose log is framed.
    pub fn container_logs(
        &self,
        cancel: &CancelToken,
        id: &str,
        sink: &mut dyn FnMut(LogStream, &[u8]),
    ) -> Result<(), Error> {
        let target = container(id)?.then("logs").query("stdout", "1").query("stderr", "1");
        let mut body = self.call(cancel, Request::get(target))?.body;
        let mut demux = LogDemux::default();
        let mut buffer = vec![0; READ];
        loop {
            match body.read_more(&mut buffer)? {
                0 => return demux.finish(),
                n => demux.push(buffer.get(..n).unwrap_or_default(), sink)?,
            }
        }
    }

    /// The container's file system as a tar stream, without its volumes.
    pub fn container_export(&self, cancel: &CancelToken, id: &str) -> Result<Body, Error> {
        Ok(self.call(cancel, Request::get(container(id)?.then("export")))?.body)
    }

    /// All containers that carry each of these labels, whether they run or not. An empty value asks only for the key.
    pub fn container_list(
        &self,
        cancel: &CancelToken,
        labels: &[(&str, &str)],
    ) -> Result<Vec<ContainerSummary>, Error> {
        let target = RequestTarget::of("containers/json").query("all", "1").labelled(labels);
        self.call(cancel, Request::get(target))?.json()
    }
}

/// A wait that the engine has taken up.
#[derive(Debug)]
pub struct Wait {
    body: Body,
}

#[derive(Deserialize)]
struct Exit {
    #[serde(rename = "StatusCode")]
    status_code: i64,
    #[serde(rename = "Error", default)]
    error: Option<ExitError>,
}

#[derive(Deserialize)]
struct ExitError {
    #[serde(rename = "Message", default)]
    message: String,
}

impl Wait {
    /// Blocks until the container exits, without a deadline, and gives its exit code. [`Error::Io`] when the wait was
    /// cut, as by an engine that restarts: inspect the container and wait again.
    pub fn join(mut self) -> Result<i64, Error> {
        let exit: Exit = self.body.json()?;
        match exit.error {
            Some(error) if !error.message.is_empty() => {
                Err(Error::Engine { status: 200, message: one_line(&error.message) })
            }
            _ => Ok(exit.status_code),
        }
    }
}

pub(super) fn container(id: &str) -> Result<RequestTarget, Error> {
    RequestTarget::of("containers").segment(id)
}

/// Success, or one of the other statuses that are as good.
pub(super) fn accept(response: Response, others: &[u16]) -> Result<(), Error> {
    if others.contains(&response.status) { Ok(()) } else { response.success().map(drop) }
}

fn in_progress(error: &Error) -> bool {
    matches!(error, Error::Engine { status: 409, message } if message.contains("already in progress"))
}

/// The engine quotes a variable that it does not like, which may hold a secret.
fn mask(error: Error, env: &[Secret]) -> Error {
    let Error::Engine { status, mut message } = error else { return error };
    const SUSPECT: &str = "environment variable";
    if let Some((before, _)) = message.split_once(SUSPECT) {
        message = format!("{before}{SUSPECT} «redacted»");
    }
    for secret in env.iter().filter(|secret| !secret.is_empty()) {
        message = message.replace(&one_line(secret.expose()), "«redacted»");
    }
    Error::Engine { status, message }
}
