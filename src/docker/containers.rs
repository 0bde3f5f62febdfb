//! Calls for containers. A call that has nothing to do, such as removing a missing container, succeeds.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::body::Body;
use super::error::one_line;
use super::stream::LogDemux;
use super::timeouts::deadline;
use super::{
    Container, ContainerSummary, CreateContainer, Created, Docker, Error, LogStream, Pending, Request,
    RequestTarget, Response,
};
use crate::secret::Secret;
use crate::sys::cancel::CancelToken;

/// The buffer size for reading a log, in bytes.
const READ: usize = 64 * 1024;
/// A read of a log with fewer bytes is followed by a pause: the engine sends each line by itself, and a log of short lines
/// would cost a wake-up for each.
const SMALL_READ: usize = 2048;
/// How many small reads have no pause, so that a short log is read without one.
const UNPAUSED_READS: usize = 16;
/// The time in which more lines arrive. It is shorter than the engine takes to fill the socket's buffer.
const READ_PAUSE: Duration = Duration::from_micros(500);
/// The first pause between two attempts while another removal is in progress. It doubles each time.
const FIRST_REMOVE_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two such attempts.
const LONGEST_REMOVE_PAUSE: Duration = Duration::from_secs(1);

impl Docker {
    /// Creates a container. Status 404 means that the image is missing, 409 that the name is taken. If the engine's error
    /// message quotes an environment variable, the value is masked.
    pub fn container_create(
        &self,
        cancel: &CancelToken,
        name: &str,
        create: &CreateContainer,
    ) -> Result<Created, Error> {
        let target = RequestTarget::of("containers/create").query("name", name);
        let request = Request::post(target).json(create)?.within(self.timeouts().create);
        match self.call(cancel, request) {
            Ok(response) => response.json(),
            // Podman 4 answers 500 for a name that is taken.
            Err(Error::Engine { status: 500, message }) if self.container_inspect(cancel, name).is_ok() => {
                Err(mask(Error::Engine { status: 409, message }, &create.env))
            }
            Err(error) => Err(mask(error, &create.env)),
        }
    }

    /// Returns a container by id or name.
    pub fn container_inspect(&self, cancel: &CancelToken, id: &str) -> Result<Container, Error> {
        let request = Request::get(container(id)?.then("json"));
        self.call(cancel, request)?.long_json()
    }

    /// As [`Docker::container_inspect`], within the shorter limit of a search.
    pub fn container_inspect_soon(&self, cancel: &CancelToken, id: &str) -> Result<Container, Error> {
        let request = Request::get(container(id)?.then("json")).within(self.timeouts().search);
        self.call(cancel, request)?.long_json()
    }

    /// Starts a container. Succeeds if it is already running.
    pub fn container_start(&self, cancel: &CancelToken, id: &str) -> Result<(), Error> {
        let request = Request::post(container(id)?.then("start")).within(self.timeouts().create);
        accept(self.exchange(cancel, request)?, &[304])
    }

    /// Starts waiting for the container's next exit. An exit before the engine waits does not count, see [`Wait::begin`].
    pub fn container_wait(&self, cancel: &CancelToken, id: &str) -> Result<Wait, Error> {
        let target = container(id)?.then("wait").query("condition", "next-exit");
        let request = Request::post(target).head_within(self.timeouts().head);
        let sent = self.send(cancel, request, |response| {
            let mut body = response.success()?.body;
            body.comes_late();
            Ok(body)
        });
        Ok(Wait(WaitState::Sent(Box::new(sent?))))
    }

    /// Sends SIGTERM, and SIGKILL if the container runs on after `grace`; only SIGKILL if `grace` is zero. Returns once it has
    /// exited. Succeeds if it is not running.
    ///
    /// The engine's own stop would send the container's stop signal, which an image can set to SIGKILL or to one that a program
    /// does not end at.
    pub fn container_stop(&self, cancel: &CancelToken, id: &str, grace: Duration) -> Result<(), Error> {
        let after_kill = self.timeouts().stop_margin;
        for (signal, limit) in [("SIGTERM", grace), ("SIGKILL", after_kill)] {
            if !limit.is_zero()
                && (!self.signal(cancel, id, signal)? || self.exits_within(cancel, id, limit)?)
            {
                return Ok(());
            }
        }
        Err(Error::Timeout { what: format!("the end of container {id} after SIGKILL"), after: after_kill })
    }

    /// Sends a signal. Returns whether the container was running.
    fn signal(&self, cancel: &CancelToken, id: &str, signal: &str) -> Result<bool, Error> {
        let target = container(id)?.then("kill").query("signal", signal);
        let response = self.exchange(cancel, Request::post(target))?;
        let runs = response.status != 409;
        accept(response, &[409]).map(|()| runs)
    }

    /// Waits until the container does not run, at most for `limit`. Returns whether that is so.
    fn exits_within(&self, cancel: &CancelToken, id: &str, limit: Duration) -> Result<bool, Error> {
        let target = container(id)?.then("wait").query("condition", "not-running");
        let deadline = deadline(limit);
        // A proxy may send the head only with the body.
        let mut body = match self.call(cancel, Request::post(target).head_within(limit)) {
            Err(Error::Timeout { .. }) => return Ok(false),
            response => response?.body,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        Ok(body.read_within(&mut [0], left)?.is_some())
    }

    /// Kills and removes a container with its anonymous volumes. Returns whether there was one. If another removal is in
    /// progress, waits for that one.
    pub fn container_remove(&self, cancel: &CancelToken, id: &str) -> Result<bool, Error> {
        let target = container(id)?.query("force", "1").query("v", "1");
        let deadline = deadline(self.timeouts().remove);
        let (mut pause, mut waited) = (FIRST_REMOVE_PAUSE, false);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let response = self.exchange(cancel, Request::delete(target.clone()).within(left))?;
            match removed(response) {
                // Once the other removal is done, this is answered with 404.
                Ok(existed) => return Ok(existed || waited),
                Err(error)
                    if in_progress(&error) && pause < deadline.saturating_duration_since(Instant::now()) => {}
                Err(error) => return Err(error),
            }
            if !cancel.sleep(pause) {
                return Err(Error::Cancelled);
            }
            (pause, waited) = ((pause * 2).min(LONGEST_REMOVE_PAUSE), true);
        }
    }

    /// Like [`Docker::container_remove`], but a running container is a conflict and is left alone.
    pub fn container_remove_idle(&self, cancel: &CancelToken, id: &str) -> Result<bool, Error> {
        let target = container(id)?.query("v", "1");
        removed(self.exchange(cancel, Request::delete(target))?)
    }

    /// Renames a container, running or not. Status 409 means that the name is taken.
    pub fn container_rename(&self, cancel: &CancelToken, id: &str, name: &str) -> Result<(), Error> {
        let target = container(id)?.then("rename").query("name", name);
        accept(self.exchange(cancel, Request::post(target))?, &[])
    }

    /// Asks for everything that the container has written so far. The answer must end within `limit`, or reading it fails with
    /// [`Error::Timeout`].
    pub fn send_logs(&self, cancel: &CancelToken, id: &str, limit: Duration) -> Result<Pending<Log>, Error> {
        self.send_log(cancel, container(id)?.then("logs"), limit)
    }

    /// As [`Docker::send_logs`], but only the last `lines` lines. The engine counts a piece of a long line as a line.
    pub fn send_last_logs(
        &self,
        cancel: &CancelToken,
        id: &str,
        lines: u64,
        limit: Duration,
    ) -> Result<Pending<Log>, Error> {
        self.send_log(cancel, container(id)?.then("logs").query("tail", &lines.to_string()), limit)
    }

    fn send_log(
        &self,
        cancel: &CancelToken,
        target: RequestTarget,
        limit: Duration,
    ) -> Result<Pending<Log>, Error> {
        let request = Request::get(target.query("stdout", "1").query("stderr", "1"))
            .head_within(self.timeouts().head.min(limit))
            .ends_within(limit);
        self.send(cancel, request, |response| Ok(Log::new(response.success()?.body)))
    }

    /// Returns the container's file system, without its volumes, as a tar stream.
    pub fn container_export(&self, cancel: &CancelToken, id: &str) -> Result<Body, Error> {
        let request = Request::get(container(id)?.then("export")).head_within(self.timeouts().head);
        Ok(self.call(cancel, request)?.body)
    }

    /// Returns all containers, running or not, that have all of these labels. An empty value matches any value.
    pub fn container_list(
        &self,
        cancel: &CancelToken,
        labels: &[(&str, &str)],
    ) -> Result<Vec<ContainerSummary>, Error> {
        self.send_list(cancel, labels)?.finish()
    }

    /// Sends [`Docker::container_list`].
    pub fn send_list(
        &self,
        cancel: &CancelToken,
        labels: &[(&str, &str)],
    ) -> Result<Pending<Vec<ContainerSummary>>, Error> {
        let target = RequestTarget::of("containers/json").query("all", "1").labelled(labels);
        let request = Request::get(target).within(self.timeouts().list);
        self.send(cancel, request, |response| response.success()?.long_json())
    }
}

/// The log of a container.
#[derive(Debug)]
pub struct Log {
    body: Body,
    demux: LogDemux,
    buffer: Vec<u8>,
    small_reads: usize,
}

impl Log {
    pub(super) fn new(body: Body) -> Self {
        Self { body, demux: LogDemux::default(), buffer: vec![0; READ], small_reads: 0 }
    }

    /// Passes what one read returns to `sink`, in order and in pieces of any size. Returns `false` at the end of the log. Works
    /// only for containers without a TTY: the log of others is not framed. `cancel` ends the pauses.
    pub fn read_some(
        &mut self,
        cancel: &CancelToken,
        sink: &mut dyn FnMut(LogStream, &[u8]),
    ) -> Result<bool, Error> {
        let bytes = self.body.read_more(&mut self.buffer)?;
        if bytes.is_empty() {
            return self.demux.finish().map(|()| false);
        }
        self.demux.push(bytes, sink)?;
        self.small_reads += usize::from(bytes.len() < SMALL_READ);
        let pauses = bytes.len() < SMALL_READ && self.small_reads > UNPAUSED_READS;
        if pauses && !cancel.sleep(READ_PAUSE) {
            return Err(Error::Cancelled);
        }
        Ok(true)
    }
}

/// A wait for a container's exit.
pub struct Wait(WaitState);

enum WaitState {
    /// The response's head has not come.
    Sent(Box<Pending<Body>>),
    Begun(Box<Body>),
    /// Its response was an error, which was returned.
    Failed,
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
    /// Waits at most `limit` until the engine tells that it waits, and returns whether it did. From then on the container
    /// cannot exit unnoticed. A proxy may hold this back until the exit, as nginx does: then only an inspect shows the state.
    pub fn begin(&mut self, limit: Duration) -> Result<bool, Error> {
        if let WaitState::Sent(sent) = &mut self.0 {
            if !sent.head_came(limit)? {
                return Ok(false);
            }
            if let WaitState::Sent(sent) = std::mem::replace(&mut self.0, WaitState::Failed) {
                self.0 = WaitState::Begun(Box::new(sent.finish()?));
            }
        }
        Ok(true)
    }

    /// Whether a call of [`Wait::begin`] has returned `true`.
    pub fn has_begun(&self) -> bool {
        matches!(self.0, WaitState::Begun(_))
    }

    /// Blocks until the container exits, without a deadline, and returns the exit code. [`Error::Io`] means that the
    /// connection was lost, such as by an engine restart: inspect the container and wait again.
    pub fn join(self) -> Result<i64, Error> {
        let mut body = match self.0 {
            WaitState::Sent(sent) => Box::new(sent.finish()?),
            WaitState::Begun(body) => body,
            WaitState::Failed => return Err(Error::protocol("the wait has failed")),
        };
        let exit: Exit = body.json()?;
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

/// Returns success for a 2xx status and for the statuses in `others`.
pub(super) fn accept(response: Response, others: &[u16]) -> Result<(), Error> {
    if others.contains(&response.status) { Ok(()) } else { response.success().map(drop) }
}

/// Returns whether there was what a request was to remove.
pub(super) fn removed(response: Response) -> Result<bool, Error> {
    if response.status == 404 { Ok(false) } else { response.success().map(|_| true) }
}

/// The message names nothing but the container.
fn in_progress(error: &Error) -> bool {
    matches!(error, Error::Engine { status: 409, message } if message.contains("already in progress"))
}

/// Masks environment variables in the engine's message: it quotes an invalid one, which may hold a secret.
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
