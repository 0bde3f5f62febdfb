//! Runs a credential helper: `docker-credential-NAME get`, the registry on stdin, JSON on stdout.
//!
//! Owns the child: its deadline, the bound of its output, and that nothing of it stays, neither a process nor a zombie.
//! The protocol is that of docker-credential-helpers; a helper tells of its errors on stdout. What it says is never shown,
//! since any of it may be a secret. It must not know `config.json`.

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
use crate::sys::cancel::CancelToken;
use crate::sys::files::is_program;

/// How long a helper may take. Some ask a cloud service.
const DEADLINE: Duration = Duration::from_secs(10);
/// The most that it may print, in bytes.
const MAX_OUTPUT: usize = 64 * 1024;
/// The longest name that is tried, in bytes.
const MAX_NAME: usize = 100;
/// What a helper prints when it knows no credentials for a registry, which is no fault.
const NOT_FOUND: &str = "credentials not found";
/// The longest pause between two looks at a child that has closed its stdout and not ended yet.
const REAP_PAUSE: Duration = Duration::from_millis(50);

/// A helper that gave nothing of use.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelperError {
    /// The caller's token was cancelled.
    #[error("cancelled")]
    Cancelled,
    #[error("this is not the name of a helper")]
    Name,
    #[error("there is no such program on the PATH")]
    Missing,
    #[error("it cannot be run: {0}")]
    Run(io::Error),
    #[error("it did not end within {0:?} and was killed")]
    Hung(Duration),
    #[error("it printed more than {0} bytes and was killed")]
    TooMuch(usize),
    #[error("it failed ({0})")]
    Failed(ExitStatus),
    #[error("it printed something else than credentials")]
    Garbage,
}

/// A helper and what it runs with.
pub(super) struct CredentialHelper<'a> {
    name: &'a str,
    variables: &'a [(OsString, OsString)],
    deadline: Duration,
}

impl<'a> CredentialHelper<'a> {
    /// The helper `docker-credential-{name}` on the `PATH` among `variables`, which are all that it gets.
    pub(super) fn new(name: &'a str, variables: &'a [(OsString, OsString)]) -> Self {
        Self { name, variables, deadline: DEADLINE }
    }

    /// Its credentials for a registry; `None` when it knows none.
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
        // The cancel drops the writer, which wakes whoever polls the reader.
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

    /// Only absolute folders of the `PATH` are looked into: what a relative one means depends on where we stand.
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

/// Why a child was not waited for any longer.
enum Abort {
    Cancelled,
    Late,
    TooMuch,
    Io(io::Error),
}

/// A child in a process group of its own. Dropping it kills the whole group, unless the child has ended by itself, and
/// reaps the child.
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
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stdout = stdout.ok_or_else(|| io::Error::other("no pipe"))?;
        if let Some(mut stdin) = stdin {
            // A name fits into the pipe, so this never blocks; a helper that does not read it says so by what it prints.
            let _ = stdin.write_all(server.as_bytes());
        }
        Ok(Self { child, stdout, ended: false })
    }

    /// All that it prints, up to the close.
    fn read(&mut self, wake: &PipeReader, end: Instant) -> Result<Vec<u8>, Abort> {
        let (mut output, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            self.readable(wake, end)?;
            match self.stdout.read(&mut chunk) {
                Ok(0) => return Ok(output),
                Ok(n) => output.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Abort::Io(error)),
            }
            if output.len() > MAX_OUTPUT {
                return Err(Abort::TooMuch);
            }
        }
    }

    /// Waits until there is something to read, so that a read never blocks.
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

    /// Waits for the end of a child that has closed its stdout, which is nearly always the same moment.
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
        // The child is not reaped yet, so its id is still its own. The group may have nobody left, which is fine.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

#[cfg(test)]
#[path = "helper_tests.rs"]
mod tests;
