//! How a worker ends, and why it may not begin.

use std::io;

use crate::control_plane::rest::ControlPlaneError;
use crate::exit::Exit;
use crate::logging::error_chain;

/// Why the worker could not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The configuration checks the URL, so this is a defect.
    #[error("the WebSocket URL cannot be used")]
    Url(#[from] http::uri::InvalidUri),
    /// The REST URL cannot be used, or there are no trusted certificates.
    #[error("the control plane's REST URL cannot be used")]
    ControlPlane(#[from] ControlPlaneError),
    /// No thread or no pipe.
    #[error("the system has no more threads or files")]
    System(#[from] io::Error),
}

/// How the worker ended.
pub(super) struct Ended {
    pub(super) exit: Exit,
    /// The error that ended it, if one did.
    pub(super) reason: Option<String>,
}

impl Ended {
    /// The worker could not begin.
    pub(super) fn failed(exit: Exit, error: &dyn std::error::Error) -> Self {
        Self { exit, reason: Some(error_chain(error)) }
    }
}
