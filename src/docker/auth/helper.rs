//! Runs a credential helper, `docker-credential-NAME get`, with a deadline and a limit on its output.
//!
//! The protocol is that of docker-credential-helpers: the registry on stdin, JSON or an error message on stdout. The output
//! is never shown, as it may contain a secret. No process or zombie of a helper is left behind.

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use super::credential::Credential;
use crate::docker::body::filled;
use crate::sys::cancel::CancelToken;
use crate::sys::files::is_program;
use crate::sys::limits::unprotect;

/// How long a helper may take. Some call a cloud service.
const DEADLINE: Duration = Duration::from_secs(10);
/// The most bytes of a helper's output.
const MAX_OUTPUT: usize = 64 * 1024;
/// The most bytes of a helper's name.
const MAX_NAME: usize = 100;
/// The start of a helper's output if it has no credentials for a registry.
const NOT_FOUND: &str = "credentials not found";
/// The longest pause between two checks of a child that has closed its stdout but is still running.
const REAP_PAUSE: Duration = Duration::from_millis(50);

/// Why a helper failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelperError {
    #[error("cancelled")]
    Cancelled,
    #[error("it is not a valid helper name")]
    Name,
    #[error("no such program is on the PATH")]
    Missing,
    #[error("it cannot be run: {0}")]
    Run(io::Error),
    #[error("it did not exit within {0:?} and was killed")]
    Hung(Duration),
    #[error("it printed more than {0} bytes and was killed")]
    TooMuch(usize),
    #[error("it failed ({0})")]
    Failed(ExitStatus),
    #[error("its output is not valid credentials")]
    Garbage,
}

/// A credential helper and its environment.
pub(super) struct CredentialHelper<'a> {
    name: &'a str,
    variables: &'a [(OsString, OsString)],
    deadline: Duration,
}

impl<'a> CredentialHelper<'a> {
    /// Returns the helper `docker-credential-{name}`, looked up on the `PATH` in `variables`. They are its whole environment.
    pub(super) fn new(name: &'a str, variables: &'a [(OsString, OsString)]) -> Self {
        Self { name, variables, deadline: DEADLINE }
    }

    /// Returns the credentials for a registry, or `None` if the helper has none.
    pub(super) fn get(&self, server: &str, cancel: &CancelToken) -> Result<Option<Credential>, HelperError> {
        let (status, output) = self.run(server, cancel)?;
        if !status.success() {
            let none = output.trim_ascii().starts_with(NOT_FOUND.as_bytes());
            return if none { Ok(None) } else { Err(HelperError::Failed(status)) };
        }
        let credential = Credential::from_helper(&output).ok_or(HelperError::Garbage)?;
        Ok(Some(credential).filter(|credential| !credential.is_empty()))
    }

    fn run(&self, server: &str, cancel: &CancelToken) -> Result<(ExitStatus, Vec<u8>), HelperError> {
        let program = self.find()?;
        let end = Instant::now() + self.deadline;
        // A cancel drops the writer, which wakes the poll of the reader.
        let (wake, waker) = io::pipe().map_err(HelperError::Run)?;
        let watch = cancel.watch(move || drop(waker));
        let mut running = Running::start(&program, self.variables, server).map_err(HelperError::Run)?;
        let output = running.read(&wake, end).map_err(|abort| self.aborted(abort))?;
        let status = running.wait(cancel, end).map_err(|abort| self.aborted(abort))?;
        drop(watch);
        Ok((status, output))
    }

    fn aborted(&self, abort: Abort) -> HelperError {
        match abort {
            Abort::Cancelled => HelperError::Cancelled,
            Abort::Late => HelperError::Hung(self.deadline),
            Abort::TooMuch => HelperError::TooMuch(MAX_OUTPUT),
            Abort::Io(error) => HelperError::Run(error),
        }
    }

    /// Returns the path of the program. Relative folders on the `PATH` are skipped.
    fn find(&self) -> Result<PathBuf, HelperError> {
        let fits = !self.name.is_empty() && self.name.len() <= MAX_NAME;
        if !fits || self.name.contains(|c: char| c == '/' || c.is_control()) {
            return Err(HelperError::Name);
        }
        let file = format!("docker-credential-{}", self.name);
        let path = self.variables.iter().find(|(name, _)| name == "PATH");
        let path = path.map_or(OsStr::new(""), |(_, value)| value);
        let mut candidates = std::env::split_paths(path).filter(|dir| dir.is_absolute());
        candidates
            .find_map(|dir| Some(dir.join(&file)).filter(|path| is_program(path)))
            .ok_or(HelperError::Missing)
    }
}

/// Why a wait for a child ended early.
enum Abort {
    Cancelled,
    Late,
    TooMuch,
    Io(io::Error),
}

/// A child in its own process group. Unless the child has exited, dropping this kills the group and reaps the child.
struct Running {
    child: Child,
    stdout: ChildStdout,
    ended: bool,
}

impl Running {
    fn start(program: &Path, variables: &[(OsString, OsString)], server: &str) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg("get").env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.process_group(0).spawn()?;
        unprotect(child.id());
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
        if let Some(mut stdin) = stdin {
            // Never blocks: the name fits into the pipe. A helper that does not read it fails by its output.
            let _ = stdin.write_all(server.as_bytes());
        }
        Ok(Self { child, stdout, ended: false })
    }

    /// Reads the whole output, until the child closes its stdout.
    fn read(&mut self, wake: &PipeReader, end: Instant) -> Result<Vec<u8>, Abort> {
        let mut output = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            self.readable(wake, end)?;
            match self.stdout.read(&mut chunk) {
                Ok(0) => return Ok(output),
                Ok(n) => output.extend_from_slice(filled(&chunk, n).map_err(Abort::Io)?),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Abort::Io(error)),
            }
            if output.len() > MAX_OUTPUT {
                return Err(Abort::TooMuch);
            }
        }
    }

    /// Waits until stdout is readable.
    fn readable(&self, wake: &PipeReader, end: Instant) -> Result<(), Abort> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Abort::Late);
            }
            let left = Timespec::try_from(left).map_err(|error| Abort::Io(io::Error::other(error)))?;
            let mut fds = [PollFd::new(&self.stdout, PollFlags::IN), PollFd::new(wake, PollFlags::IN)];
            match poll(&mut fds, Some(&left)) {
                Ok(_) if !fds[1].revents().is_empty() => return Err(Abort::Cancelled),
                Ok(_) if !fds[0].revents().is_empty() => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Abort::Io(error.into())),
            }
        }
    }

    /// Waits for the exit of a child that has closed its stdout. It usually follows at once.
    fn wait(&mut self, cancel: &CancelToken, end: Instant) -> Result<ExitStatus, Abort> {
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = self.child.try_wait().map_err(Abort::Io)? {
                self.ended = true;
                return Ok(status);
            }
            if Instant::now() >= end {
                return Err(Abort::Late);
            }
            if !cancel.sleep(pause) {
                return Err(Abort::Cancelled);
            }
            pause = (pause * 2).min(REAP_PAUSE);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // The child is not reaped yet, so its process id is not reused. The group may already be empty.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

#[cfg(test)]
#[path = "helper_tests.rs"]
mod tests;
