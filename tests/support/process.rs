//! A child process with its output by lines, a deadline for its end, and no way to outlive the test.
//!
//! Linux: a pidfd is what can be waited for with a deadline and signalled without hitting a reused id.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

pub use rustix::process::Signal;

/// A running child; dropping it kills it.
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
}

/// What came from one of its streams so far.
#[derive(Default)]
pub struct Lines {
    state: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Lines {
    fn read(&self, stream: impl Read, echo: Option<&str>) {
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(1..)) {
            let line = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
            if let Some(name) = echo {
                eprintln!("{name}{line}");
            }
            bytes.clear();
            self.state.lock().unwrap_or_else(PoisonError::into_inner).0.push(line);
            self.changed.notify_all();
        }
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Waits for a line; `None` when the stream ends or the deadline passes without it.
    pub fn find(&self, deadline: Duration, mut wanted: impl FnMut(&str) -> bool) -> Option<String> {
        let end = Instant::now() + deadline;
        let (mut seen, mut state) = (0, self.state.lock().unwrap_or_else(PoisonError::into_inner));
        loop {
            while let Some(line) = state.0.get(seen) {
                if wanted(line) {
                    return Some(line.clone());
                }
                seen += 1;
            }
            let left = end.saturating_duration_since(Instant::now());
            if state.1 || left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Process {
    /// Starts it without input. With `echo` each line of its stderr is shown as well, with that before it.
    pub fn spawn(command: &mut Command, echo: Option<&'static str>) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A Ctrl-C at the terminal is for the program that started it, which then ends it in its own way.
        let mut child =
            command.process_group(0).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("a pidfd");
        let (stdout, stderr) = (Arc::new(Lines::default()), Arc::new(Lines::default()));
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (out_lines, err_lines) = (Arc::clone(&stdout), Arc::clone(&stderr));
        let readers = vec![
            std::thread::spawn(move || out_lines.read(out, None)),
            std::thread::spawn(move || err_lines.read(err, echo)),
        ];
        Self { child, pidfd, stdout, stderr, readers }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lines of its stdout.
    pub fn stdout(&self) -> &Lines {
        &self.stdout
    }

    /// Lines of its stderr.
    pub fn stderr(&self) -> &Lines {
        &self.stderr
    }

    /// Waits for a line on its stderr; panics with all lines when it does not come.
    pub fn wait_log(&self, deadline: Duration, wanted: impl FnMut(&str) -> bool) -> String {
        let line = self.stderr.find(deadline, wanted);
        line.unwrap_or_else(|| panic!("the line did not come; stderr was\n{}", self.stderr.all().join("\n")))
    }

    /// Sends a signal; one to a process that has ended does nothing.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Whether it has not ended yet.
    pub fn is_running(&self) -> bool {
        !self.ends_within(Duration::ZERO)
    }

    fn ends_within(&self, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).expect("a sane deadline");
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => {}
                result => return result.expect("poll") > 0,
            }
        }
    }

    /// Waits for its end, and for all of its output; panics with its stderr when the deadline passes.
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        if !self.ends_within(deadline) {
            panic!("still running after {deadline:?}; stderr was\n{}", self.stderr.all().join("\n"));
        }
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader");
        }
        self.child.wait().expect("it has ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The readers end with the streams; a grandchild that holds them open is not waited for.
    }
}
