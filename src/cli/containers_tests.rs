use std::path::Path;

use super::super::SETTINGS;
use super::super::config_tests::{MARK, load, load_from, message};
use super::*;
use crate::policy::Gpus;

fn container(line: &[&str], variables: &[(&str, &str)]) -> ContainerOptions {
    load(line, variables).unwrap().container
}

/// Every setting of containers that takes a value, and the switches that need no other.
pub(in crate::cli) const LINE: [&str; 26] = [
    "--memory=2g",
    "--default-memory=1g",
    "--memory-reservation=512m",
    "--cpus=1.5",
    "--default-cpus=1",
    "--pids-limit=512",
    "--shm-size=64m",
    "--ulimit=nofile=10:20",
    "--ulimit=core=0",
    "--ulimit=nofile=30",
    "--network=net",
    "--dns=10.0.0.53",
    "--dns-search=a.example",
    "--add-host=h:1.2.3.4",
    "--cap-drop=NET_RAW",
    "--cap-add=cap_sys_ptrace",
    "--security-opt=no-new-privileges:true",
    "--user=1000:1000",
    "--read-only",
    "--tmpfs=/tmp:size=1m",
    "--label=a=1",
    "--label=a=2",
    "--init",
    "--gpus=device=0",
    "--runtime=runsc",
    "--log-opt=max-size=10m",
];

#[test]
fn each_setting_reaches_the_containers_options() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let limit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
    let expected = ContainerOptions {
        memory: Some(2 << 30),
        default_memory: Some(1 << 30),
        memory_reservation: Some(512 << 20),
        nano_cpus: Some(1_500_000_000),
        default_nano_cpus: Some(1_000_000_000),
        pids_limit: Some(512),
        shm_size: Some(64 << 20),
        network: Some("net".into()),
        dns: vec!["10.0.0.53".into()],
        dns_search: vec!["a.example".into()],
        extra_hosts: vec!["h:1.2.3.4".into()],
        cap_drop: ["NET_RAW".into()].into(),
        cap_add: ["SYS_PTRACE".into()].into(),
        security_opt: vec!["no-new-privileges".into()],
        user: Some("1000:1000".into()),
        read_only: true,
        tmpfs: [pair("/tmp", "size=1m")].into(),
        ulimits: vec![limit("core", 0, 0), limit("nofile", 30, 30)],
        labels: [pair("a", "2")].into(),
        init: true,
        gpus: Some(Gpus::Devices(vec!["0".into()])),
        runtime: Some("runsc".into()),
        log_opts: [pair("max-size", "10m")].into(),
    };
    assert_eq!(container(&LINE, &[]), expected);
    // The variable of each has its flag's name, and a list has several words.
    let variables: Vec<_> = LINE
        .iter()
        .filter(|word| !["--ulimit=core=0", "--ulimit=nofile=30", "--label=a=2"].contains(word))
        .map(|word| {
            let (flag, value) = word.split_once('=').unwrap_or((word, "true"));
            let setting = SETTINGS.iter().find(|setting| setting.flag == Some(flag)).unwrap();
            let value = match flag {
                "--ulimit" => "nofile=10:20 core=0 nofile=30",
                "--label" => "a=1 'a=2'",
                _ => value,
            };
            (setting.variable.unwrap(), value)
        })
        .collect();
    assert_eq!(container(&[], &variables), expected);
}

#[test]
fn the_network_of_the_host_needs_its_own_switch() {
    for network in ["host", "container:db"] {
        let text = message(load(&["--network", network], &[]));
        assert!(text.starts_with(&format!("invalid --network {network:?}: must not be host")), "{text}");
        assert!(text.contains("--allow-host-network"), "{text}");
        message(load(&[], &[("OZ_NETWORK", network), ("OZ_ALLOW_HOST_NETWORK", "false")]));
        let found = container(&["--network", network, "--allow-host-network"], &[]);
        assert_eq!(found.network.as_deref(), Some(network));
    }
    container(&["--network", "none"], &[]);
    let text = message(load(&["--network=container:a", "--allow-host-network", "--dns=1.2.3.4"], &[]));
    assert!(text.contains("--dns \"1.2.3.4\": must not be set with --network container:NAME"), "{text}");
}

#[test]
fn hardened_is_more_than_its_parts() {
    let hardened = container(&["--hardened", "--cap-add=NET_RAW", "--memory=1g"], &[]);
    assert_eq!(hardened.pids_limit, Some(4096));
    assert!(hardened.cap_drop.contains("ALL") && hardened.cap_add.contains("NET_RAW") && hardened.init);
    assert_eq!(container(&["--memory=1g"], &[("OZ_HARDENED", "true"), ("OZ_CAP_ADD", "NET_RAW")]), hardened);
    for (line, right) in [
        ("--security-opt=no-new-privileges=false", "must not be no-new-privileges=false with --hardened"),
        ("--cap-add=all", "must not be ALL with --hardened; name each capability that tasks need"),
    ] {
        let text = message(load(&["--hardened", line], &[]));
        assert!(text.ends_with(right), "{text}");
        container(&[line], &[]);
    }
}

#[test]
fn limits_must_agree() {
    for (line, right) in [
        (
            ["--default-memory=2g", "--memory=1g"],
            "invalid --default-memory \"2g\": must not be above --memory",
        ),
        (["--default-cpus=2", "--cpus=1.5"], "invalid --default-cpus \"2\": must not be above --cpus"),
        (
            ["--memory-reservation=2g", "--memory=1g"],
            "invalid --memory-reservation \"2g\": must not be above --memory or --default-memory",
        ),
    ] {
        assert_eq!(message(load(&line, &[])), right);
    }
    container(&["--default-memory=1g", "--memory=1g", "--memory-reservation=1g"], &[]);
}

#[test]
fn a_path_has_one_mount() {
    for line in [["--tmpfs=/x", "--tmpfs=/x/:ro"], ["-v/a:/x", "--tmpfs=/x/."]] {
        assert!(message(load(&line, &[])).ends_with("must be the only mount at /x"));
    }
}

#[test]
fn a_seccomp_profile_is_read_at_the_start() {
    let read = |text: &'static str| {
        let file = move |path: &Path| match path.to_str().unwrap() {
            "/p.json" => Ok(text.to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let variables = [("OZ_API_KEY", MARK), ("OZ_WORKER_ID", "w")];
        load_from(&["--security-opt", "seccomp=/p.json"], &variables, &file)
    };
    let profile = read("{\n \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n").unwrap().container.security_opt;
    assert_eq!(profile, ["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"]);
    assert!(message(read("[]")).contains("must name a seccomp profile: a file with a JSON object"));
    let long: &'static str = "x".repeat(KEY_FILE_LIMIT + 1).leak();
    assert!(message(read(long)).contains("at most 64 KiB"));
    let text = message(load(&["--security-opt=seccomp=/none"], &[]));
    assert!(text.contains("must name a readable file: "), "{text}");
}

/// A log driver's token is a secret.
#[test]
fn an_invalid_log_option_does_not_show_its_value() {
    let text = message(load(&["--log-opt", "max-size=hunter2"], &[]));
    assert_eq!(
        text,
        "invalid --log-opt: must have a size such as 100m or 2g as max-size, from 1 byte to 9223372036g, or -1 for no limit"
    );
}

#[test]
fn every_error_of_containers_is_reported() {
    let result = load(&["--memory=1", "--cpus=x", "--label=oz-task-id=1"], &[("OZ_HARDENED", "maybe")]);
    let errors = result.unwrap_err().0;
    assert_eq!(errors.len(), 4, "{errors:?}");
}
