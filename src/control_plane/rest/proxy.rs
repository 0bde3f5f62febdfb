//! The way through a proxy, for ureq: TCP, TLS with the proxy if its URL is `https`, and the tunnel. Without a proxy each step leaves
//! the connection as it is.

use std::io::{self, Read, Write};
use std::sync::Arc;

use ureq::Error;
use ureq::unversioned::transport::{
    ConnectionDetails, Connector, Either, TcpConnector, Transport, TransportAdapter,
};

use super::tls::{TlsTransport, handshake, time_left};
use crate::control_plane::tls::Trust;
use crate::net::proxy::{Proxy, ProxyError, ProxyProblem, tunnel};

/// A proxy, and where its tunnels lead.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) proxy: Arc<Proxy>,
    /// A host name, or an IP address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// Returns an error of the way through the proxy.
pub(super) fn failed(proxy: &Proxy, problem: ProxyProblem) -> Error {
    Error::Other(ProxyError::new(proxy, problem).into())
}

/// Connects over TCP, to the proxy if there is one.
#[derive(Debug)]
pub(super) struct ProxyTcp {
    tcp: TcpConnector,
    proxy: Option<Arc<Proxy>>,
}

impl ProxyTcp {
    pub(super) fn new(route: Option<&Route>) -> Self {
        Self { tcp: TcpConnector::default(), proxy: route.map(|route| Arc::clone(&route.proxy)) }
    }
}

impl<T: Transport> Connector<T> for ProxyTcp {
    type Out = <TcpConnector as Connector<T>>::Out;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<T>,
    ) -> Result<Option<Self::Out>, Error> {
        self.tcp.connect(details, chained).map_err(|error| match &self.proxy {
            Some(proxy) => failed(proxy, ProxyProblem::Unreachable(error.to_string())),
            None => error,
        })
    }
}

/// Wraps the connection to an `https` proxy in TLS.
#[derive(Debug)]
pub(super) struct ProxyTls {
    pub(super) route: Option<Route>,
    pub(super) trust: Trust,
}

impl<T: Transport> Connector<T> for ProxyTls {
    type Out = Either<T, TlsTransport<T>>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<T>,
    ) -> Result<Option<Self::Out>, Error> {
        let Some(tcp) = chained else { return Ok(None) };
        let Some(proxy) = self.route.as_ref().map(|route| &route.proxy).filter(|proxy| proxy.tls) else {
            return Ok(Some(Either::A(tcp)));
        };
        let connector = self.trust.connector().map_err(|error| Error::Other(error.into()))?;
        let stream = handshake(&connector, &proxy.host, tcp, details).map_err(|error| {
            failed(proxy, ProxyProblem::of_handshake(error, |reason| self.trust.explain(reason)))
        })?;
        Ok(Some(Either::B(stream)))
    }
}

/// Asks the proxy for a tunnel.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) route: Option<Route>,
}

impl<T: Transport> Connector<T> for Tunnel {
    type Out = T;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<T>,
    ) -> Result<Option<Self::Out>, Error> {
        let Some(Route { proxy, host, port }) = &self.route else { return Ok(chained) };
        let Some(transport) = chained else { return Ok(None) };
        let mut stream = Timed(TransportAdapter::new(transport, Arc::clone(&details.current_time)));
        stream.0.set_timeout(time_left(details));
        tunnel(&mut stream, proxy, host, *port).map_err(|error| Error::Other(error.into()))?;
        Ok(Some(stream.0.into_inner()))
    }
}

/// A stream whose time-outs are those of [`io::ErrorKind`]; ureq wraps its own.
struct Timed<T: Transport>(TransportAdapter<T>);

fn timed(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    if matches!(inner, Some(Error::Timeout(_))) { io::ErrorKind::TimedOut.into() } else { error }
}

impl<T: Transport> Read for Timed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(timed)
    }
}

impl<T: Transport> Write for Timed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(timed)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
