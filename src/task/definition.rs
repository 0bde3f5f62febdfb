//! The definition of a task's container, as the engine takes it.

use std::collections::BTreeMap;

use super::limits::Limits;
use super::plan::{Plan, SidecarMount, WORKSPACE};
use super::prepare::Prepared;
use super::sidecar::{PopulatedVolume, Script};
use crate::docker::{
    CreateContainer, DeviceRequest, HostConfig, LogConfig, Mount, ProcessLimit, VolumeOptions,
};
use crate::policy::{ContainerOptions, Gpus, Ulimit};
use crate::secret::Secret;

/// The signal that stops a task. Set for every container, so that it is also used by others, such as `docker stop`.
const STOP_SIGNAL: &str = "SIGTERM";

/// Returns the definition of a task's container.
pub(super) fn definition(plan: &Plan, prepared: &Prepared<'_>) -> CreateContainer {
    let mount = |(sidecar, populated): (&SidecarMount, &PopulatedVolume)| Mount {
        source: populated.volume.clone(),
        target: sidecar.mount_path.clone(),
        read_only: !sidecar.read_write,
        // If the volume was removed in the meantime, this mount creates it again, empty: its labels are set so that it is found.
        volume_options: Some(VolumeOptions { no_copy: true, labels: plan.volume_labels(sidecar) }),
    };
    let Script { path, is_executable } = prepared.script;
    let is_executed = is_executable && plan.dialect.executes_script();
    // An entrypoint of the image would come in front of the script.
    let (entrypoint, script) = if is_executed { (path, None) } else { ("/bin/sh", Some(Secret::new(path))) };
    let cmd = script.into_iter().chain(plan.args.iter().cloned()).collect();
    CreateContainer {
        image: plan.image.to_string(),
        entrypoint: Some(vec![entrypoint.to_owned()]),
        cmd,
        env: plan.env.clone(),
        working_dir: Some(WORKSPACE.to_owned()),
        stop_signal: Some(STOP_SIGNAL.to_owned()),
        user: plan.container.user.clone(),
        labels: with_own(&plan.container.labels, &plan.labels),
        host_config: HostConfig {
            binds: plan.binds.clone(),
            mounts: plan.sidecars.iter().zip(&prepared.volumes).map(mount).collect(),
            ..host_config(&plan.container, &plan.limits)
        },
    }
}

/// Returns the operator's labels and this worker's own, of which none can be replaced.
fn with_own(operator: &BTreeMap<String, String>, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    operator.iter().chain(own).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Returns the operator's options and a task's limits, without mounts.
pub(super) fn host_config(options: &ContainerOptions, limits: &Limits) -> HostConfig {
    HostConfig {
        nano_cpus: limits.nano_cpus,
        memory: limits.memory,
        // The limit for memory and swap together. The engine's default would allow as much swap again.
        memory_swap: limits.memory,
        memory_reservation: limits.memory_reservation,
        pids_limit: options.pids_limit,
        shm_size: options.shm_size,
        ulimits: options.ulimits.iter().map(process_limit).collect(),
        network_mode: options.network.clone(),
        dns: options.dns.clone(),
        dns_search: options.dns_search.clone(),
        extra_hosts: options.extra_hosts.clone(),
        cap_add: options.cap_add.iter().cloned().collect(),
        cap_drop: options.cap_drop.iter().cloned().collect(),
        security_opt: options.security_opt.clone(),
        readonly_rootfs: options.read_only,
        tmpfs: options.tmpfs.clone(),
        init: options.init.then_some(true),
        runtime: options.runtime.clone(),
        device_requests: options.gpus.iter().map(device_request).collect(),
        log_config: (!options.log_opts.is_empty())
            .then(|| LogConfig { driver: String::new(), options: options.log_opts.clone() }),
        ..HostConfig::default()
    }
}

fn process_limit(Ulimit { name, soft, hard }: &Ulimit) -> ProcessLimit {
    ProcessLimit { name: name.clone(), soft: *soft, hard: *hard }
}

fn device_request(gpus: &Gpus) -> DeviceRequest {
    let (count, device_ids) = match gpus {
        Gpus::All => (-1, Vec::new()),
        Gpus::Count(count) => (*count, Vec::new()),
        Gpus::Devices(ids) => (0, ids.clone()),
    };
    DeviceRequest { count, device_ids, capabilities: vec![vec!["gpu".to_owned()]] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operators_label_replaces_none_of_the_workers() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let labels = with_own(&map(&[("a", "1"), ("oz-task-id", "x")]), &map(&[("oz-task-id", "t")]));
        assert_eq!(labels, map(&[("a", "1"), ("oz-task-id", "t")]));
    }

    #[test]
    fn without_options_the_engine_decides() {
        let json =
            serde_json::to_string(&host_config(&ContainerOptions::default(), &Limits::default())).unwrap();
        assert_eq!(json, "{}");
    }

    #[test]
    fn each_option_is_sent() {
        let text = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let options = ContainerOptions {
            pids_limit: Some(9),
            shm_size: Some(8),
            network: Some("n".into()),
            dns: text(&["1.1.1.1"]),
            dns_search: text(&["a.b"]),
            extra_hosts: text(&["h:1.2.3.4"]),
            cap_drop: ["ALL".to_owned()].into(),
            cap_add: ["CHOWN".to_owned()].into(),
            security_opt: text(&["no-new-privileges"]),
            read_only: true,
            tmpfs: [("/tmp".to_owned(), "size=1m".to_owned())].into(),
            ulimits: vec![Ulimit { name: "core".into(), soft: 0, hard: 1 }],
            init: true,
            gpus: Some(Gpus::Count(2)),
            runtime: Some("runsc".into()),
            log_opts: [("max-size".to_owned(), "1m".to_owned())].into(),
            ..ContainerOptions::default()
        };
        let limits =
            Limits { nano_cpus: Some(1), memory: Some(7), memory_reservation: Some(6), reduced: None };
        let expected = concat!(
            r#"{"NanoCpus":1,"Memory":7,"MemorySwap":7,"MemoryReservation":6,"PidsLimit":9,"ShmSize":8,"#,
            r#""Ulimits":[{"Name":"core","Soft":0,"Hard":1}],"NetworkMode":"n","Dns":["1.1.1.1"],"DnsSearch":["a.b"],"#,
            r#""ExtraHosts":["h:1.2.3.4"],"CapAdd":["CHOWN"],"CapDrop":["ALL"],"SecurityOpt":["no-new-privileges"],"#,
            r#""ReadonlyRootfs":true,"Tmpfs":{"/tmp":"size=1m"},"Init":true,"Runtime":"runsc","#,
            r#""DeviceRequests":[{"Count":2,"Capabilities":[["gpu"]]}],"LogConfig":{"Type":"","Config":{"max-size":"1m"}}}"#,
        );
        assert_eq!(serde_json::to_string(&host_config(&options, &limits)).unwrap(), expected);
        for (gpus, count) in [(Gpus::All, -1), (Gpus::Devices(text(&["0"])), 0)] {
            let request = device_request(&gpus);
            assert_eq!((request.count, request.device_ids.len()), (count, usize::from(count == 0)));
        }
    }
}
