//! The API version of the calls. It is negotiated again when the engine refuses it, as after an upgrade or a rollback.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use log::warn;

use super::exchange::Dialer;
use super::{ApiVersion, Docker, Error, Request, RequestTarget, Response};
use crate::logging::value;
use crate::sys::cancel::CancelToken;

/// The version in use, shared by all clones of a client.
#[derive(Debug)]
pub(super) struct Agreement {
    /// The operator chose the version, so it stays.
    pinned: bool,
    /// The major number in the upper half, the minor one in the lower half.
    packed: AtomicU32,
    /// The engine refused the version, and no other one could be used. Cleared once one can.
    refused: AtomicBool,
}

impl Agreement {
    pub(super) fn new(version: ApiVersion, pinned: bool) -> Self {
        Self { pinned, packed: AtomicU32::new(pack(version)), refused: AtomicBool::new(false) }
    }

    fn version(&self) -> ApiVersion {
        let packed = self.packed.load(Ordering::Relaxed);
        let [a, b, c, d] = packed.to_be_bytes();
        ApiVersion { major: u16::from_be_bytes([a, b]), minor: u16::from_be_bytes([c, d]) }
    }

    /// Returns whether the version is another one than before.
    fn set(&self, version: ApiVersion) -> bool {
        self.packed.swap(pack(version), Ordering::Relaxed) != pack(version)
    }
}

fn pack(version: ApiVersion) -> u32 {
    u32::from(version.major) << 16 | u32::from(version.minor)
}

impl Docker {
    /// Returns the API version of the next call.
    pub fn api_version(&self) -> ApiVersion {
        self.0.agreement.version()
    }

    /// Whether the engine refused every version so far, see [`Docker::negotiate`].
    pub(super) fn has_no_version(&self) -> bool {
        self.0.agreement.refused.load(Ordering::Relaxed)
    }

    /// Returns the response to a request in `version`, unless that version is refused. Then negotiates, and sends it again.
    ///
    /// # Errors
    /// [`Error::Version`] if there is no common version, or the request cannot be sent again.
    pub(super) fn answer(
        &self,
        cancel: &CancelToken,
        version: ApiVersion,
        response: Response,
        request: &mut Request<'_>,
    ) -> Result<Response, Error> {
        // Engines name their newest version in every answer. A 400 can also be about the request itself.
        if response.status != 400 || response.header("Api-Version").is_none() {
            return Ok(response);
        }
        let Some(message) = self.refusal(cancel, version)? else { return Ok(response) };
        self.negotiate(cancel)?;
        if request.is_repeatable() {
            self.dialer().exchange(cancel, request)
        } else {
            Err(self.refused(version, message))
        }
    }

    /// Chooses the version again, and checks that the engine accepts it.
    ///
    /// # Errors
    /// [`Error::Version`] if there is no common version, or the pinned one is refused; or the error of a call.
    pub(super) fn negotiate(&self, cancel: &CancelToken) -> Result<(), Error> {
        let agreement = &self.0.agreement;
        agreement.refused.store(true, Ordering::Relaxed);
        let before = agreement.version();
        let version = if agreement.pinned { before } else { self.newest(cancel)?.min(ApiVersion::MAX) };
        if version < ApiVersion::MIN {
            let needed = ApiVersion::MIN;
            return Err(
                self.refused(before, format!("it supports {version} at most, and {needed} is needed"))
            );
        }
        if let Some(message) = self.refusal(cancel, version)? {
            return Err(self.refused(version, message));
        }
        agreement.refused.store(false, Ordering::Relaxed);
        if agreement.set(version) {
            let address = self.address();
            warn!("engine version changed address={} api={version} before={before}", value(&address));
        }
        Ok(())
    }

    /// Returns the engine's message if it refuses this version.
    fn refusal(&self, cancel: &CancelToken, version: ApiVersion) -> Result<Option<String>, Error> {
        let dialer = Dialer { version: Some(version), ..self.dialer() };
        let response = dialer.exchange(cancel, &mut self.ping_request())?;
        if response.status != 400 {
            return Ok(None);
        }
        match response.success() {
            Err(Error::Engine { message, .. }) => Ok(Some(message)),
            other => other.map(|_| None),
        }
    }

    /// Returns the engine's newest version.
    fn newest(&self, cancel: &CancelToken) -> Result<ApiVersion, Error> {
        let dialer = Dialer { version: None, ..self.dialer() };
        let response = dialer.exchange(cancel, &mut self.ping_request())?.success()?;
        let newest = response.header("Api-Version").and_then(ApiVersion::parse);
        newest.ok_or_else(|| Error::protocol("the ping response has no Api-Version header"))
    }

    pub(super) fn ping_request(&self) -> Request<'static> {
        Request::get(RequestTarget::of("_ping")).within(self.timeouts().call.min(super::PING_WITHIN))
    }

    fn refused(&self, version: ApiVersion, message: String) -> Error {
        Error::Version { address: self.address(), version, message }
    }
}
