//! A child process: its output in lines, waits with a deadline, and an end with the test.
//!
//! It uses a pidfd, which can be polled with a deadline, and signalled without the risk of a reused pid.

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

/// The output on one stream so far.
#[derive(Default)]
pub struct Lines {
    /// The lines, and whether the stream has ended.
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

    /// Returns all lines so far.
    pub fn all(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Waits for a line and returns it; `None` if the stream ends or the deadline passes first.
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
    /// Starts a process without stdin. With `echo`, copies each line of its stderr to stderr, after that prefix.
    pub fn spawn(command: &mut Command, echo: Option<&'static str>) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A separate process group, so that Ctrl-C at the terminal reaches only the test, which then ends the process.
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

    /// Holds the thread with this id at its next system call until the result is dropped: starts a tracer, and stops it.
    pub fn freeze(thread: u32, deadline: Duration) -> Self {
        let mut command = Command::new("strace");
        command.args(["-o", "/dev/null", "-p", &thread.to_string()]);
        let tracer = Self::spawn(&mut command, None);
        tracer.wait_log(deadline, |line| line.contains("attached"));
        tracer.signal(Signal::STOP);
        tracer
    }

    /// Returns its pid.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns its stdout.
    pub fn stdout(&self) -> &Lines {
        &self.stdout
    }

    /// Returns its stderr.
    pub fn stderr(&self) -> &Lines {
        &self.stderr
    }

    /// Waits for a line on stderr and returns it. Panics with all lines if it does not come.
    pub fn wait_log(&self, deadline: Duration, wanted: impl FnMut(&str) -> bool) -> String {
        let line = self.stderr.find(deadline, wanted);
        line.unwrap_or_else(|| {
            panic!("the expected line is missing; stderr:\n{}", self.stderr.all().join("\n"))
        })
    }

    /// Sends a signal; does nothing if the process has exited.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Whether it has not exited.
    pub fn is_running(&self) -> bool {
        !self.exits_within(Duration::ZERO)
    }

    fn exits_within(&self, deadline: Duration) -> bool {
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

    /// Waits until it has exited and all its output was read. Panics with its stderr after `deadline`.
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        if !self.exits_within(deadline) {
            panic!("still running after {deadline:?}; stderr:\n{}", self.stderr.all().join("\n"));
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
        // The readers end with the streams; they are not joined, because a grandchild may hold the streams open.
    }
}
