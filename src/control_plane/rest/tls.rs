//! TLS under ureq, made as the link makes its own.
//!
//! Owns the way of ureq's buffers and deadlines through a TLS stream. It must not know HTTP. ureq's own connector would
//! bring another rule of whom to trust, and the types of rustls.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use native_tls::{HandshakeError, TlsStream};
use ureq::Error;
use ureq::unversioned::transport::time::{Duration as Within, Instant};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use crate::control_plane::tls;

/// The peer's certificate does not verify, for this reason. It travels inside of [`Error::Other`].
#[derive(Debug, thiserror::Error)]
#[error("the certificate does not verify ({0})")]
pub(super) struct Distrusted(pub(super) String);

/// The link of ureq's chain that makes TLS out of TCP where the URL wants it.
#[derive(Debug)]
pub(super) struct Tls;

impl<T: Transport> Connector<T> for Tls {
    type Out = Either<T, Secured<T>>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<T>,
    ) -> Result<Option<Self::Out>, Error> {
        let Some(tcp) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(tcp)));
        }
        // An IPv6 address is in brackets in a URL, and nowhere else.
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let connector = tls::connector().map_err(|error| Error::Other(error.into()))?;
        let mut wire = TransportAdapter::new(tcp, Arc::clone(&details.current_time));
        wire.set_timeout(left(details));
        let stream = connector.connect(host, wire).map_err(refused)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Either::B(Secured { stream, buffers })))
    }
}

/// What is left of the time for connecting: some of it went into TCP.
fn left(details: &ConnectionDetails<'_>) -> NextTimeout {
    let gone = match details.now {
        Instant::Exact(start) => start.elapsed(),
        Instant::AlreadyHappened | Instant::NotHappening => Duration::ZERO,
    };
    let after = match details.timeout.after {
        Within::Exact(time) => Within::Exact(time.saturating_sub(gone)),
        Within::NotHappening => Within::NotHappening,
    };
    NextTimeout { after, ..details.timeout }
}

fn refused<S>(error: HandshakeError<S>) -> Error {
    match error {
        HandshakeError::Failure(error) => match tls::distrust(&error.to_string()) {
            Some(why) => Error::Other(Distrusted(why).into()),
            None => Error::Other(error.into()),
        },
        // Nothing that is under it says so.
        HandshakeError::WouldBlock(_) => Error::Tls("the TLS handshake was interrupted"),
    }
}

/// A connection inside TLS.
pub(super) struct Secured<T: Transport> {
    stream: TlsStream<TransportAdapter<T>>,
    buffers: LazyBuffers,
}

impl<T: Transport> Transport for Secured<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.get_mut().set_timeout(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        Ok(self.stream.write_all(output)?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.get_mut().set_timeout(timeout);
        let count = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl<T: Transport> fmt::Debug for Secured<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secured")
    }
}
