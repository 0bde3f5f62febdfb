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
        setting_names: config.names.clone(),
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
    let trust =
        Trust { ca_file: config.ca_file.clone(), client: config.client.clone(), names: config.names.clone() };
    Network { proxies: config.proxies.clone(), trust }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::*;
    use crate::app::monitor::Monitor;
    use crate::app::mounts;
    use crate::cli::{Arguments, ConfigErrors, SETTINGS, Setting, SettingsFile};
    use crate::logging::error_chain;
    use crate::sys::environment::Environment;

    /// Reads the settings and checks what they name, as at start. Returns the error.
    fn error(arguments: &[&str], environment: &Environment) -> String {
        let no_file = |_: &Path| Err(io::ErrorKind::NotFound.into());
        let arguments = Arguments::parse(arguments.iter().map(Into::into)).unwrap();
        let checked = |config: &Config| {
            let error = network(config).trust.check().err().map(|error| error_chain(&error));
            let error = error.or_else(|| mounts::check(config).err().map(|error| error_chain(&error)));
            error.or_else(|| Monitor::start(config).err().map(|error| error_chain(&error)))
        };
        match Config::new(&arguments, environment, 1, &no_file) {
            Ok(config) => checked(&config).unwrap(),
            Err(ConfigErrors(errors)) => error_chain(errors.first().unwrap()),
        }
    }

    /// Each setting that names a file or an address, with what makes the worker use it.
    #[test]
    fn an_error_about_a_file_names_the_setting_as_it_was_set() {
        let folder = tempfile::tempdir().unwrap();
        let (gone, outside) = ("/nonexistent/file", folder.path().to_str().unwrap());
        let listen = "192.0.2.1:9464";
        let profile = format!("seccomp={gone}");
        let mount = format!("{outside}:/c");
        let used = [
            ("--api-key-file", gone, &[][..]),
            ("--volumes", &mount, &["--allow-mount-path=/usr"]),
            ("--allow-mount-path", gone, &["-v/usr:/c"]),
            ("--ca-file", gone, &[]),
            ("--client-cert", gone, &["--client-key=/nonexistent/key"]),
            // Of the two files, the certificate is read first.
            ("--client-key", gone, &["--client-cert=Cargo.toml"]),
            ("--security-opt", &profile, &[]),
            ("--metrics-listen", listen, &[]),
        ];
        for (flag, value, more) in used {
            let setting = SETTINGS.iter().find(|setting| setting.flag == Some(flag)).unwrap();
            let variable = setting.variable.unwrap();
            let key = if flag == "--api-key-file" { "" } else { "k" };
            let own = |more: &[(&str, &str)]| -> Environment {
                [("OZ_API_KEY", key), ("OZ_WORKER_ID", "w")].iter().chain(more).copied().collect()
            };
            let file = format!("\n{variable}={value}");
            let file = SettingsFile::parse("/etc/w.env".into(), file.as_bytes()).unwrap();
            let typed: Vec<&str> = more.iter().copied().chain([flag, value]).collect();
            for (name, error) in [
                (flag.to_owned(), error(&typed, &own(&[]))),
                (variable.to_owned(), error(more, &own(&[(variable, value)]))),
                (format!("{variable} (/etc/w.env:2)"), error(more, &file.below(&own(&[])))),
            ] {
                let starts = ["", "invalid ", "cannot read ", "cannot use ", "cannot resolve "];
                let is_named = starts.iter().any(|start| error.starts_with(&format!("{start}{name} ")));
                let shown = [gone, outside, listen].iter().any(|part| error.contains(part));
                assert!(is_named && shown, "{name}: {error}");
            }
        }
        let is_path = |setting: &&Setting| format!("{:?}", setting.values).starts_with("Path");
        let is_used = |setting: &Setting| used.iter().any(|(flag, ..)| setting.flag == Some(flag));
        let paths = SETTINGS.iter().filter(is_path).filter(|setting| !is_used(setting));
        // That of the settings file is checked before there are settings.
        assert_eq!(paths.filter_map(|setting| setting.flag).collect::<Vec<_>>(), ["--settings-file"]);
    }

    #[test]
    fn an_id_is_shared_at_the_public_control_plane() {
        assert!(is_shared_at(Some("oz.warp.dev")));
        assert!(!is_shared_at(Some("oz.example")) && !is_shared_at(None));
    }
}
