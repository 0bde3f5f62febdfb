//! What the coordinator, the tasks and connections take from the configuration.

use std::sync::Arc;
use std::time::Duration;

use crate::cli::Config;
use crate::control_plane::Network;
use crate::control_plane::tls::Trust;
use crate::coordinator::{Coordinator, Rules};
use crate::docker::RegistryEnv;
use crate::protocol::Dialect;
use crate::task::Options;
use crate::task::plan::TaskSettings;

/// When the late sweep is due. A busy engine can create a container seconds after the caller was killed. The next start
/// removes containers that are created even later.
const LATE_SWEEP_AFTER: Duration = Duration::from_secs(30);

/// Whether other processes may have the worker's id: the operator says so, or the control plane expects it.
pub(super) fn shares_id(config: &Config) -> bool {
    config.shared_id || is_shared_at(config.web_socket_url.host())
}

/// Whether the control plane at this host expects several workers with one id.
pub(super) fn is_shared_at(host: Option<&str>) -> bool {
    host.and_then(Dialect::of_host).is_some_and(Dialect::shares_ids)
}

/// How often the engine and its disk are checked: twice the interval of the link's pings.
const BEAT: Duration = Duration::from_secs(60);

/// `beat` is how often the main thread must show that it goes on, if that is prescribed.
pub(super) fn coordinator(config: &Config, check_disk: bool, beat: Option<Duration>) -> Coordinator {
    let rules = Rules {
        slots: config.max_concurrent_tasks,
        task_timeout: config.task_timeout,
        drain_timeout: config.drain_timeout,
        stop_grace: config.stop_grace,
        reconcile_interval: config.reconcile_interval,
        lost_runs: config.lost_runs,
        check_disk,
        late_sweep_after: LATE_SWEEP_AFTER,
        shared_id: shares_id(config),
        beat_every: beat.map_or(BEAT, |beat| beat.min(BEAT)),
    };
    Coordinator::new(rules).with_admission(config.admission.clone())
}

pub(super) fn options(config: &Config, registries: RegistryEnv, process_id: &str) -> Options {
    Options {
        settings: TaskSettings {
            worker_id: config.worker_id.clone(),
            process_id: process_id.to_owned(),
            shared_id: shares_id(config),
            server_root_url: config.server_root_url.clone(),
            volumes: config.volumes.clone(),
            container: Arc::new(config.container.clone()),
            env: config.env.clone(),
            default_image: config.default_image.clone(),
            sidecar_image: config.sidecar_image.clone(),
            idle_on_complete: config.idle_on_complete.clone(),
            session_sharing_server_url: config.session_sharing_server_url.clone(),
        },
        mount_paths: config.mount_paths.clone(),
        with_registry: config.admission.restricts_images(),
        pull: config.pull,
        registries,
        max_output: config.max_output,
        cleanup: config.cleanup,
        keep_failed: config.keep_failed,
        engine_timeout: config.engine_timeout,
        stop_grace: config.stop_grace,
        task_timeout: config.task_timeout,
        log_output_lines: config.log_output_lines,
        keep_sidecar_volumes: config.keep_sidecar_volumes,
    }
}

/// Returns how the control plane is reached.
pub(super) fn network(config: &Config) -> Network {
    let trust = Trust { ca_file: config.ca_file.clone(), client: config.client.clone() };
    Network { proxies: config.proxies.clone(), trust }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_shared_at_the_public_control_plane() {
        assert!(is_shared_at(Some("oz.warp.dev")));
        assert!(!is_shared_at(Some("oz.example")) && !is_shared_at(None));
    }
}
