//! The plan for every field of an assignment, and the assignments that are refused.

use super::*;
use crate::protocol::{AdditionalSidecar, AgentConfig};

fn settings() -> TaskSettings {
    TaskSettings {
        volumes: vec![VolumeBind { host: "/h".into(), container: "/data".into(), mode: "ro".into() }],
        env: vec![("OPERATOR".into(), Secret::new("o")), ("BOTH".into(), Secret::new("operator"))],
        ..TaskSettings::plain()
    }
}

fn assignment() -> Assignment {
    Assignment {
        key: ExecutionKey::new("run/1", None),
        agent_task_id: "inner".into(),
        docker_image: Some("img".into()),
        sidecar_image: Some("reg:5000/side:2".into()),
        shared_with_team: true,
        ..Assignment::default()
    }
}

fn sidecar(image: &str, mount_path: &str, read_write: bool) -> AdditionalSidecar {
    AdditionalSidecar { image: image.into(), mount_path: mount_path.into(), read_write }
}

fn planned(assignment: &Assignment) -> Plan {
    plan(assignment, &settings(), 4).unwrap()
}

fn refused(change: impl FnOnce(&mut Assignment)) -> String {
    let mut assignment = assignment();
    change(&mut assignment);
    plan(&assignment, &settings(), 4).unwrap_err().message
}

fn exposed(secrets: &[Secret]) -> Vec<&str> {
    secrets.iter().map(Secret::expose).collect()
}

#[test]
fn a_minimal_assignment_has_the_default_plan() {
    let plan = planned(&assignment());
    assert_eq!(plan.image.to_string(), "img:latest");
    let args = ["agent", "run", "--share", "team:edit", "--task-id", "inner", "--sandboxed"];
    let more = ["--server-root-url", "https://oz.example", "--idle-on-complete"];
    assert_eq!(exposed(&plan.args), [&args[..], &more[..]].concat());
    let env =
        ["TASK_ID=inner", "GIT_TERMINAL_PROMPT=0", "GH_PROMPT_DISABLED=1", "OPERATOR=o", "BOTH=operator"];
    assert_eq!(exposed(&plan.env), env);
    assert_eq!(plan.binds, ["/h:/data:ro"]);
    assert_eq!(plan.limits, Limits::default());
    assert_eq!(plan.sidecars.len(), 1);
    assert_eq!((plan.sidecars[0].mount_path.as_str(), plan.sidecars[0].read_write), ("/agent", false));
    let labels: Vec<_> = plan.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("oz-dialect", "old"),
        ("oz-execution-id", ""),
        ("oz-process-id", "p"),
        ("oz-shape-reduced", ""),
        ("oz-sidecar-image", ""),
        ("oz-task-id", "run/1"),
        ("oz-worker-id", "w"),
    ];
    assert_eq!(labels, expected);
}

#[test]
fn arguments_have_the_order_of_the_protocol() {
    let mut assignment = assignment();
    assignment.agent = AgentConfig {
        environment_id: Some("e".into()),
        model_id: Some("m".into()),
        profile_id: Some("p".into()),
        skill_spec: Some("s".into()),
        mcp_servers: Some(Secret::new(r#"{"a":1}"#)),
        computer_use: Some(true),
        ..AgentConfig::default()
    };
    assignment.additional_oz_args = vec!["--x".into(), " ".into()];
    let expected = [
        "--model",
        "m",
        "--profile",
        "p",
        "--skill",
        "s",
        "--mcp",
        r#"{"a":1}"#,
        "--computer-use",
        "--environment",
        "e",
        "--x",
        " ",
        "--idle-on-complete",
    ];
    assert_eq!(exposed(&planned(&assignment).args)[9..], expected);
    assignment.agent = AgentConfig { computer_use: Some(false), ..AgentConfig::default() };
    assert_eq!(
        exposed(&planned(&assignment).args)[9..],
        ["--no-computer-use", "--x", " ", "--idle-on-complete"]
    );
}

#[test]
fn the_operator_s_images_replace_those_of_the_assignment() {
    let mut settings = settings();
    let mut assignment = assignment();
    settings.sidecar_image = Some(Reference::parse("mirror:5000/agent").unwrap());
    assignment.additional_sidecars.push(sidecar("extra:1", "/x", false));
    let plan = |assignment: &Assignment| plan(assignment, &settings, 4).unwrap();
    let found: Vec<_> = plan(&assignment).sidecars.iter().map(|one| one.image.to_string()).collect();
    assert_eq!(found, ["mirror:5000/agent:latest", "extra:1"]);
    assert_eq!(plan(&assignment).image.to_string(), "img:latest");
    assignment.docker_image = None;
    assert_eq!(plan(&assignment).image.to_string(), "default:1");
}

#[test]
fn the_operator_s_settings_of_the_agent_come_last() {
    let settings = TaskSettings {
        idle_on_complete: Some("10m".into()),
        session_sharing_server_url: Some("ws://127.0.0.1:8081".into()),
        ..settings()
    };
    let args = |dialect| {
        let assignment = Assignment { dialect, ..assignment() };
        let plan = plan(&assignment, &settings, 4).unwrap();
        exposed(&plan.args).iter().rev().take(4).rev().map(|arg| (*arg).to_owned()).collect::<Vec<_>>()
    };
    let sharing = ["--session-sharing-server-url", "ws://127.0.0.1:8081"];
    assert_eq!(args(Dialect::Upstream), ["--idle-on-complete", "10m", sharing[0], sharing[1]]);
    assert_eq!(args(Dialect::Old)[1..], ["--idle-on-complete", sharing[0], sharing[1]]);
}

#[test]
fn a_later_variable_of_the_same_name_replaces_an_earlier_one() {
    let mut assignment = assignment();
    for (name, value) in [("BOTH", "assigned"), ("TASK_ID", "mine"), ("EMPTY", "")] {
        assignment.env_vars.insert(name.into(), Secret::new(value));
    }
    let expected = [
        "TASK_ID=mine",
        "GIT_TERMINAL_PROMPT=0",
        "GH_PROMPT_DISABLED=1",
        "BOTH=operator",
        "EMPTY=",
        "OPERATOR=o",
    ];
    assert_eq!(exposed(&planned(&assignment).env), expected);
}

#[test]
fn neither_debug_output_nor_errors_show_secrets() {
    let mut assignment = assignment();
    assignment.env_vars.insert("K".into(), Secret::new("MARKER"));
    assignment.agent.mcp_servers = Some(Secret::new("MARKER"));
    assert!(!format!("{:?} {assignment:?}", planned(&assignment)).contains("MARKER"));
    let error = refused(|assignment| {
        assignment.env_vars.insert("K".into(), Secret::new("MARKER\0"));
    });
    assert_eq!(error, "data.env_vars.K: must not contain a NUL character");
    let error = refused(|assignment| {
        assignment.env_vars.insert("K\nL".into(), Secret::new("MARKER\0"));
    });
    assert_eq!(error, "data.env_vars.K\\nL: must not contain a NUL character");
}

#[test]
fn sidecars_keep_their_order_and_mount_paths() {
    let mut assignment = assignment();
    assignment.additional_sidecars = vec![sidecar("a", "/tools/", false), sidecar("b@bad", "/b", false)];
    let error = plan(&assignment, &settings(), 1).unwrap_err().message;
    assert!(error.starts_with("data.additional_sidecars[1].image: "), "{error}");
    assignment.additional_sidecars[1] = sidecar("b:1", "/b", true);
    let mounts = planned(&assignment).sidecars;
    let places: Vec<_> = mounts.iter().map(|mount| (mount.mount_path.as_str(), mount.read_write)).collect();
    assert_eq!(places, [("/agent", false), ("/tools", false), ("/b", true)]);
}

#[test]
fn a_mount_path_that_is_used_or_invalid_is_refused() {
    for taken in ["/agent", "/agent/", "/data", "/one"] {
        let error = refused(|assignment| {
            assignment.additional_sidecars = vec![sidecar("a", "/one", false), sidecar("b", taken, false)];
        });
        assert!(error.starts_with("data.additional_sidecars[1].mount_path: "), "{error}");
        assert!(error.contains("another mount"), "{error}");
    }
    let error =
        refused(|assignment| assignment.additional_sidecars = vec![sidecar("a", "/agent/tools", false)]);
    assert!(error.contains("is below \"/agent\" of data.sidecar_image, which is read-only"), "{error}");
    for odd in ["", "/", "//", "relative", "./x", "/a/../b", "/a/./b", "/a//b", "/..", "/a\nb", "C:\\x"] {
        let error = refused(|assignment| assignment.additional_sidecars = vec![sidecar("a", odd, false)]);
        assert!(error.contains("must be an absolute path"), "{odd}: {error}");
    }
    let error = refused(|assignment| {
        let many = (0..33).map(|index| sidecar("a", &format!("/m{index}"), false));
        assignment.additional_sidecars = many.collect();
    });
    assert_eq!(error, "data.additional_sidecars: 33 are too many, the limit is 32");
}

#[test]
fn a_sidecar_below_something_read_only_is_refused_with_both_fields() {
    let nested = |outer_writable| {
        let mut assignment = assignment();
        let (inner, outer) = (sidecar("b", "/a/b/", true), sidecar("a", "/a", outer_writable));
        assignment.additional_sidecars = vec![inner, sidecar("c", "/ab", false), outer];
        plan(&assignment, &settings(), 4).map(drop)
    };
    let error = nested(false).unwrap_err();
    let [inner, outer] = [0, 2].map(|index| format!("data.additional_sidecars[{index}].mount_path"));
    assert_eq!(error.message, format!("{inner}: \"/a/b\" is below \"/a\" of {outer}, which is read-only"));
    assert_eq!(nested(true), Ok(()));
    let below = |mode: &str| {
        let mut settings = settings();
        settings.volumes[0].mode = mode.to_owned();
        let mut assignment = assignment();
        assignment.additional_sidecars = vec![sidecar("a", "/data/x", false)];
        plan(&assignment, &settings, 4).map(drop)
    };
    let error = below("z,ro").unwrap_err().message;
    assert_eq!(error, format!("{inner}: \"/data/x\" is below \"/data\" of --volumes, which is read-only"));
    assert_eq!(below("rw"), Ok(()));
}

#[test]
fn a_sidecar_where_the_engine_mounts_is_refused() {
    let mount = |path: &str| {
        let mut assignment = assignment();
        assignment.additional_sidecars = vec![sidecar("a", path, true)];
        plan(&assignment, &settings(), 4).map(drop)
    };
    for path in [
        "/proc",
        "/proc/x",
        "/dev/",
        "/dev/shm/x",
        "/sys/a",
        "/etc/hosts",
        "/etc/hostname/",
        "/etc/resolv.conf",
    ] {
        let error = mount(path).unwrap_err().message;
        let start = "data.additional_sidecars[0].mount_path: ";
        assert!(error.starts_with(start) && error.contains("is of the engine"), "{error}");
    }
    for path in ["/process", "/etc", "/etc/hosts.d", "/device/x", "/x/proc"] {
        assert_eq!(mount(path), Ok(()), "{path}");
    }
}

#[test]
fn invalid_images_arguments_and_variables_are_refused() {
    assert!(
        refused(|assignment| assignment.docker_image = Some("a b".into())).starts_with("data.docker_image: ")
    );
    assert!(
        refused(|assignment| assignment.sidecar_image = Some("A!".into()))
            .starts_with("data.sidecar_image: ")
    );
    let error = refused(|assignment| assignment.additional_oz_args = vec!["\0".into()]);
    assert_eq!(error, "data.additional_oz_args[0]: must not contain a NUL character");
    for name in ["", "A=B", "A\0"] {
        let error = refused(|assignment| {
            assignment.env_vars.insert(name.into(), Secret::new("v"));
        });
        assert!(error.starts_with("data.env_vars: "), "{error}");
    }
}

/// Linux starts no process with a longer string.
#[test]
fn strings_that_linux_does_not_pass_on_are_refused_by_name() {
    let longest = |length: usize| "x".repeat(128 * 1024 - 1 - length);
    let mut fits = assignment();
    fits.env_vars.insert("BIG".into(), Secret::new(longest(4)));
    fits.additional_oz_args = vec![longest(0)];
    fits.agent.mcp_servers = Some(Secret::new(longest(0)));
    planned(&fits);
    let too_many = "131072 bytes are too many, the limit of Linux is 131071";
    let error = refused(|assignment| {
        assignment.env_vars.insert("BIG".into(), Secret::new(longest(3)));
    });
    assert_eq!(error, format!("data.env_vars.BIG: {too_many}"));
    let long = longest(0) + "x";
    let error = refused(|assignment| assignment.additional_oz_args = vec!["a".into(), long.clone()]);
    assert_eq!(error, format!("data.additional_oz_args[1]: {too_many}"));
    let error = refused(|assignment| assignment.agent.mcp_servers = Some(Secret::new(long.clone())));
    assert_eq!(error, format!("data.task.agent_config_snapshot.mcp_servers: {too_many}"));
}

/// The agent's id is an argument and a variable, and comes from one of two fields.
#[test]
fn a_wrong_id_is_reported_under_its_own_field() {
    let long = |length| "x".repeat(length);
    for id in ["i\0".to_owned(), long(140_000), long(131_070)] {
        let error = refused(|assignment| assignment.agent_task_id.clone_from(&id));
        assert!(error.starts_with("data.task.id: "), "{error}");
        let error = refused(|assignment| {
            assignment.key = ExecutionKey::new(id.as_str(), None);
            assignment.agent_task_id = id;
        });
        assert!(error.starts_with("data.task_id: "), "{error}");
    }
    let operator = TaskSettings { env: vec![("BIG".into(), Secret::new(long(140_000)))], ..settings() };
    let error = plan(&assignment(), &operator, 4).unwrap_err().message;
    assert!(error.starts_with("--env BIG: "), "{error}");
}

#[test]
fn a_shape_that_the_engine_would_refuse_is_invalid() {
    let error = refused(|assignment| assignment.shape.memory_gb = Some(0.005));
    assert!(error.starts_with("data.instance_shape.memory_gb: "), "{error}");
}

/// Nor with more strings than fit into a quarter of its stack.
#[test]
fn more_strings_than_linux_passes_on_together_are_refused() {
    let arg = || "x".repeat(128 * 1024 - 1);
    let variables = |count: usize| (0..count).map(|n| (format!("V{n:05}"), Secret::new("")));
    let mut fits = assignment();
    fits.additional_oz_args = (0..15).map(|_| arg()).collect();
    planned(&fits);
    for (args, variables) in [(16, variables(0)), (15, variables(12_000))] {
        let error = refused(|assignment| {
            assignment.additional_oz_args = (0..args).map(|_| arg()).collect();
            assignment.env_vars.extend(variables);
        });
        let (before, after) = ("data: together ", "are too many, the usual limit");
        assert!(error.starts_with(before) && error.contains(after), "{error}");
    }
}

#[test]
fn a_mount_path_that_linux_cannot_have_is_refused() {
    let mount = |path: String| {
        refused(|assignment| assignment.additional_sidecars = vec![sidecar("a", &path, false)])
    };
    let name = "n".repeat(256);
    let error = mount(format!("/a/{name}"));
    let field = "data.additional_sidecars[0].mount_path";
    assert_eq!(error, format!("{field}: a name of 256 bytes is too long, the limit of Linux is 255"));
    let error = mount("/abc".repeat(1024));
    assert_eq!(error, format!("{field}: a path of 4096 bytes is too long, the limit of Linux is 4095"));
    let mut fits = assignment();
    fits.additional_sidecars = vec![sidecar("a", &format!("/{}", "n".repeat(255)), false)];
    planned(&fits);
}

#[test]
fn a_sidecar_cannot_be_mounted_over_a_tmpfs() {
    let mut settings = settings();
    let tmpfs = [("/scratch".to_owned(), String::new())].into();
    settings.container = Arc::new(ContainerOptions { tmpfs, ..ContainerOptions::default() });
    let mut assignment = assignment();
    assignment.additional_sidecars = vec![sidecar("a", "/scratch/", false)];
    let error = plan(&assignment, &settings, 4).unwrap_err();
    let expected = "data.additional_sidecars[0].mount_path: \"/scratch\" is already used by another mount";
    assert_eq!((error.message.as_str(), error.step), (expected, FailureReason::ContainerCreate));
}

#[test]
fn a_plan_has_the_operators_options_and_the_limits_within_them() {
    let mut settings = settings();
    let options =
        ContainerOptions { memory: Some(1 << 30), pids_limit: Some(9), ..ContainerOptions::default() };
    settings.container = Arc::new(options.clone());
    let mut assignment = assignment();
    assignment.shape.memory_gb = Some(2.0);
    let plan = plan(&assignment, &settings, 4).unwrap();
    assert_eq!((&*plan.container, plan.limits.memory), (&options, Some(1 << 30)));
    let reduced =
        "the shape was reduced to the limits of the worker: memory from 2048 MiB to 1024 MiB (--memory)";
    assert_eq!(plan.limits.reduced.as_deref(), Some(reduced));
    assert_eq!(plan.labels["oz-shape-reduced"], reduced, "for a later process");
}
