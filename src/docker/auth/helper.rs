//! Runs a credential helper, `docker-credential-NAME get`, with a deadline and a limit on its output.
//!
//! The protocol is that of docker-credential-helpers: the registry on stdin, JSON or an error message on stdout. The output
//! is never shown, as it may contain a secret. No process or zombie of a helper is left behind.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use super::credential::Credential;
use crate::sys::cancel::CancelToken;
use crate::sys::files::is_program;
use crate::sys::program::{Abort, Program};

/// How long a helper may take. Some call a cloud service.
const DEADLINE: Duration = Duration::from_secs(10);
/// The most bytes of a helper's output.
const MAX_OUTPUT: usize = 64 * 1024;
/// The most bytes of a helper's name.
const MAX_NAME: usize = 100;
/// The start of a helper's output if it has no credentials for a registry.
const NOT_FOUND: &str = "credentials not found";

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
        let path = self.find()?;
        let (arguments, variables, within) = (&["get"], self.variables, self.deadline);
        // The name of a registry is short.
        let program =
            Program { path: &path, arguments, variables, input: server, within, max_output: MAX_OUTPUT };
        program.run(cancel).map_err(|abort| self.aborted(abort))
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

#[cfg(test)]
#[path = "helper_tests.rs"]
mod tests;
