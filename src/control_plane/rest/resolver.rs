//! Resolves names within a time limit.

use crossbeam_channel::bounded;
use http::Uri;
use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::sys::pool::spawn_detached;

/// Resolves on a short-lived thread, because getaddrinfo(3) has no deadline. ureq's own resolver panics if it gets no thread.
#[derive(Debug)]
pub(super) struct TimedResolver;

impl Resolver for TimedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let (answer, resolved) = bounded(1);
        let (uri, config) = (uri.clone(), config.clone());
        let resolve = move || {
            // Without a limit, ureq's resolver uses no thread of its own.
            let result = DefaultResolver::default().resolve(&uri, &config, NextTimeout::default());
            // Fails once nobody waits any more.
            let _ = answer.send(result);
        };
        spawn_detached("oz-resolve", resolve)?;
        resolved.recv_timeout(*timeout.after).unwrap_or(Err(Error::Timeout(timeout.reason)))
    }
}
