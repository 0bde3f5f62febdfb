//! Resolves names within a time limit.

use std::net::IpAddr;
use std::sync::Arc;

use crossbeam_channel::bounded;
use http::Uri;
use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::proxy::failed;
use crate::net::proxy::{Proxy, ProxyProblem};
use crate::sys::pool::spawn_detached;

/// Resolves names on a short-lived thread, because getaddrinfo(3) has no deadline. ureq's own resolver panics if it gets no thread.
#[derive(Debug)]
pub(super) struct TimedResolver {
    /// Resolved instead of the host of the URL, whose name only the proxy has to know.
    pub(super) proxy: Option<Arc<Proxy>>,
}

impl Resolver for TimedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let (uri, config) = (self.peer(uri)?, config.clone());
        let needs_no_thread = is_address(&uri);
        // Without a limit, ureq's resolver uses no thread of its own.
        let resolve = move || DefaultResolver::default().resolve(&uri, &config, NextTimeout::default());
        if needs_no_thread {
            return resolve();
        }
        let (answer, resolved) = bounded(1);
        let resolve = move || {
            let result = resolve();
            // Fails once nobody waits any more.
            let _ = answer.send(result);
        };
        spawn_detached("oz-resolve", resolve)?;
        let result = resolved.recv_timeout(*timeout.after).unwrap_or(Err(Error::Timeout(timeout.reason)));
        result.map_err(|error| match &self.proxy {
            Some(proxy) => failed(proxy, ProxyProblem::Unresolved(error.to_string())),
            None => error,
        })
    }
}

/// Whether the host is an address, which needs no look-up.
fn is_address(uri: &Uri) -> bool {
    // Only URLs have brackets around IPv6 addresses.
    uri.host().is_some_and(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok())
}

impl TimedResolver {
    /// Returns the URL of the peer to connect to.
    fn peer(&self, uri: &Uri) -> Result<Uri, Error> {
        match &self.proxy {
            Some(proxy) => format!("{proxy}/").parse().map_err(|_| Error::HostNotFound),
            None => Ok(uri.clone()),
        }
    }
}
