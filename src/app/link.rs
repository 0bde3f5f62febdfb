//! Starts the link with the settings of the configuration.

use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::ended::StartError;
use super::settings::network;
use crate::cli::Config;
use crate::control_plane::key::ApiKey;
use crate::control_plane::ws::{Link, LinkConfig, LinkEvent, Timing};

/// The capacity of the channel for the link's events. While it is full, the link's thread blocks.
const LINK_EVENTS: usize = 256;

/// How long the link's thread may take to end.
pub(super) const LINK_END: Duration = Duration::from_secs(2);

/// A link that was started, its events, and the key that it and REST use.
pub(crate) struct StartedLink {
    pub(crate) link: Link,
    pub(super) events: Receiver<LinkEvent>,
    pub(super) key: ApiKey,
}

/// Starts the link, which does not appear at the control plane before [`Link::allow_upgrade`]. Its events wait until [`run`](super::runtime::run)
/// takes them.
///
/// # Errors
/// The thread or a pipe cannot be created, or the URL cannot be used.
pub(crate) fn start_link(config: &Config, key: ApiKey) -> Result<StartedLink, StartError> {
    let (sender, events) = bounded(LINK_EVENTS);
    let link = Link::start(link_config(config, &key)?, sender)?;
    Ok(StartedLink { link, events, key })
}

/// Returns the settings of the link.
///
/// # Errors
/// The URL cannot be used.
pub(super) fn link_config(config: &Config, key: &ApiKey) -> Result<LinkConfig, StartError> {
    Ok(LinkConfig {
        url: config.link_url().parse()?,
        api_key: key.clone(),
        worker_id: config.worker_id.clone(),
        max_attempts: config.reconnect_max_attempts,
        window: config.reconnect_window,
        timing: Timing { spread: config.reconnect_spread, ..Timing::default() },
        network: network(config),
    })
}
