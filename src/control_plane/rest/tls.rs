//! TLS for ureq, with the same trusted certificates as the link. ureq's own connectors trust other ones.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use native_tls::{HandshakeError, TlsStream};
use ureq::Error;
use ureq::unversioned::transport::time::{Duration as Within, Instant};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use crate::control_plane::tls::Trust;
use crate::net::tls::{is_not_tls, verification_failure};

/// The reason why the peer's certificate does not verify. ureq carries it in [`Error::Other`].
#[derive(Debug, thiserror::Error)]
#[error("the certificate does not verify ({0})")]
pub(super) struct CertificateError(pub(super) String);

/// Wraps ureq's TCP connection in TLS for `https` URLs.
#[derive(Debug)]
pub(super) struct TlsConnector {
    pub(super) trust: Trust,
}

impl<T: Transport> Connector<T> for TlsConnector {
    type Out = Either<T, TlsTransport<T>>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<T>,
    ) -> Result<Option<Self::Out>, Error> {
        let Some(tcp) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(tcp)));
        }
        // Only URLs have brackets around IPv6 addresses.
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let connector = self.trust.connector().map_err(|error| Error::Other(error.into()))?;
        let stream = handshake(&connector, host, tcp, details).map_err(|error| match error {
            HandshakeError::Failure(error) => match verification_failure(&error.to_string()) {
                Some(reason) => Error::Other(CertificateError(self.trust.explain(reason)).into()),
                None if is_not_tls(&error.to_string()) => {
                    Error::Tls("it does not speak TLS on that port; use http:// in the URL, or another port")
                }
                None => Error::Other(error.into()),
            },
            // Cannot happen: ureq's TCP transport waits or fails.
            HandshakeError::WouldBlock(_) => Error::Tls("the TLS handshake was interrupted"),
        })?;
        Ok(Some(Either::B(stream)))
    }
}

/// Performs the TLS handshake with `host` within the time left for connecting.
pub(super) fn handshake<T: Transport>(
    connector: &native_tls::TlsConnector,
    host: &str,
    transport: T,
    details: &ConnectionDetails<'_>,
) -> Result<TlsTransport<T>, HandshakeError<TransportAdapter<T>>> {
    let mut wire = TransportAdapter::new(transport, Arc::clone(&details.current_time));
    wire.set_timeout(time_left(details));
    let stream = connector.connect(host, wire)?;
    let config = details.config;
    let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
    Ok(TlsTransport { stream, buffers })
}

/// Returns the time left for connecting, after TCP has used a part of it.
pub(super) fn time_left(details: &ConnectionDetails<'_>) -> NextTimeout {
    let used = match details.now {
        Instant::Exact(start) => start.elapsed(),
        Instant::AlreadyHappened | Instant::NotHappening => Duration::ZERO,
    };
    let after = match details.timeout.after {
        Within::Exact(time) => Within::Exact(time.saturating_sub(used)),
        Within::NotHappening => Within::NotHappening,
    };
    NextTimeout { after, ..details.timeout }
}

/// A connection inside TLS.
pub(super) struct TlsTransport<T: Transport> {
    stream: TlsStream<TransportAdapter<T>>,
    buffers: LazyBuffers,
}

impl<T: Transport> Transport for TlsTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.get_mut().set_timeout(timeout);
        let buffer = self.buffers.output();
        let (output, _) =
            buffer.split_at_checked(amount).ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
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

impl<T: Transport> fmt::Debug for TlsTransport<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}
