//! Runs a program with a deadline and a limit on its output. No process or zombie of it is left behind.

use std::ffi::OsString;
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use super::cancel::CancelToken;
use super::limits::unprotect;

/// The longest pause between two checks of a child that has closed its stdout but is still running.
const REAP_PAUSE: Duration = Duration::from_millis(50);

/// A program and what it gets.
pub(crate) struct Program<'a> {
    /// Its file.
    pub(crate) path: &'a Path,
    pub(crate) arguments: &'a [&'a str],
    /// Its whole environment.
    pub(crate) variables: &'a [(OsString, OsString)],
    /// Written to its stdin, at most 4 KiB.
    pub(crate) input: &'a str,
    /// How long it may take.
    pub(crate) within: Duration,
    /// The most bytes of its output.
    pub(crate) max_output: usize,
}

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Abort {
    /// The token was cancelled. The program was killed.
    Cancelled,
    /// It took too long and was killed.
    Late,
    /// It printed too much and was killed.
    TooMuch,
    /// It cannot be run.
    Io(io::Error),
}

impl Program<'_> {
    /// Runs it. Returns its status and its stdout; its stderr is dropped.
    ///
    /// # Errors
    /// It did not end by itself, or cannot be run.
    pub(crate) fn run(&self, cancel: &CancelToken) -> Result<(ExitStatus, Vec<u8>), Abort> {
        let end = Instant::now() + self.within;
        // A cancel drops the writer, which wakes the poll of the reader.
        let (wake, waker) = io::pipe().map_err(Abort::Io)?;
        let watch = cancel.watch(move || drop(waker));
        let mut running = Running::start(self).map_err(Abort::Io)?;
        let output = running.read(&wake, end, self.max_output)?;
        let status = running.wait(cancel, end)?;
        drop(watch);
        Ok((status, output))
    }
}

/// A child in its own process group. Unless the child has exited, dropping this kills the group and reaps the child.
struct Running {
    child: Child,
    stdout: ChildStdout,
    ended: bool,
}

impl Running {
    fn start(program: &Program<'_>) -> io::Result<Self> {
        let mut command = Command::new(program.path);
        let variables = program.variables.iter().map(|(name, value)| (name, value));
        command.args(program.arguments).env_clear().envs(variables);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.process_group(0).spawn()?;
        unprotect(child.id());
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
        if let Some(mut stdin) = stdin {
            // Never blocks: the input fits into the pipe. A program that does not read it fails by its output.
            let _ = stdin.write_all(program.input.as_bytes());
        }
        Ok(Self { child, stdout, ended: false })
    }

    /// Reads the whole output, until the child closes its stdout.
    fn read(&mut self, wake: &PipeReader, end: Instant, max_output: usize) -> Result<Vec<u8>, Abort> {
        let mut output = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            self.readable(wake, end)?;
            match self.stdout.read(&mut chunk) {
                Ok(0) => return Ok(output),
                Ok(n) => output.extend(chunk.iter().take(n)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Abort::Io(error)),
            }
            if output.len() > max_output {
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
