//! Precedence, bounds and errors of every setting.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::time::Duration;

use log::LevelFilter;

use super::*;
use crate::docker::Reference;
use crate::net::proxy::Proxies;
use crate::policy::{Admission, ContainerOptions, LostRuns, PullPolicy};
use crate::secret::Secret;
use crate::sys::environment::Environment;

pub(super) const MARK: &str = "hunter2";

pub(super) fn no_file(_: &Path) -> io::Result<String> {
    Err(io::ErrorKind::NotFound.into())
}

pub(super) fn load_from(
    line: &[&str],
    variables: &[(&str, &str)],
    file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Config, ConfigErrors> {
    let arguments = Arguments::parse(line.iter().map(OsString::from)).unwrap();
    Config::new(&arguments, &variables.iter().copied().collect(), 3, file)
}

/// Loads the settings, with a default key and worker ID.
pub(super) fn load(line: &[&str], variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let mut all = vec![("OZ_API_KEY", MARK), ("OZ_WORKER_ID", "w")];
    all.extend(variables);
    load_from(line, &all, &no_file)
}

/// Returns the error's text. Asserts that it is one line without the secret.
pub(super) fn message(result: Result<Config, ConfigErrors>) -> String {
    let ConfigErrors(errors) = result.unwrap_err();
    let [error] = errors.as_slice() else { panic!("{errors:?}") };
    let text = error.to_string();
    assert!(!format!("{text} {error:?}").contains(MARK), "{text}");
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn unset_settings_have_their_defaults() {
    let config = load(&[], &[]).unwrap();
    let expected = Config {
        api_key: Secret::new(MARK),
        api_key_file: None,
        worker_id: "w".into(),
        shared_id: false,
        web_socket_url: "ws://localhost:8080/api/v1/selfhosted/worker/ws".parse().unwrap(),
        server_root_url: "http://localhost:8080".into(),
        rest_url: "http://localhost:8080".into(),
        log_level: LevelFilter::Info,
        log_format: crate::logging::Format::Text,
        cleanup: true,
        keep_failed: Duration::ZERO,
        log_output_lines: 0,
        volumes: vec![],
        container: ContainerOptions::default(),
        env: vec![],
        max_concurrent_tasks: 6,
        pull: PullPolicy::Auto,
        default_image: Reference::parse("ubuntu:22.04").unwrap(),
        sidecar_image: None,
        admission: Admission {
            images: vec![],
            variables: vec![],
            denied_variables: vec![],
            default_image: Reference::parse("ubuntu:22.04").unwrap(),
            replaces_sidecar: false,
        },
        mount_paths: vec![],
        idle_on_complete: None,
        session_sharing_server_url: None,
        max_output: 4 << 20,
        task_timeout: Duration::from_secs(8 * 3600),
        drain_timeout: Duration::from_secs(300),
        stop_grace: Duration::from_secs(10),
        engine_timeout: Duration::from_secs(300),
        engine_start_timeout: None,
        reconcile_interval: Duration::from_secs(60),
        lost_runs: LostRuns::Stop,
        keep_sidecar_volumes: 2,
        min_free_disk: 1 << 30,
        metrics_listen: None,
        reconnect_max_attempts: 0,
        reconnect_window: Duration::ZERO,
        reconnect_spread: Duration::from_secs(15),
        ca_file: None,
        client: None,
        names: config.names.clone(),
        proxies: Proxies::default(),
        warnings: vec![],
    };
    assert_eq!(config, expected);
}

/// A setting with a flag and a variable.
struct Case {
    flag: &'static str,
    variable: &'static str,
    first: &'static str,
    second: &'static str,
    /// Reads the setting from the configuration.
    get: fn(&Config) -> String,
    /// What `get` returns for `first`.
    expected: &'static str,
}

const fn case(
    [flag, variable]: [&'static str; 2],
    [first, second]: [&'static str; 2],
    get: fn(&Config) -> String,
    expected: &'static str,
) -> Case {
    Case { flag, variable, first, second, get, expected }
}

const CASES: [Case; 33] = [
    case(["--api-key", "OZ_API_KEY"], ["first", "second"], |c| c.api_key.expose().into(), "first"),
    case(["--worker-id", "OZ_WORKER_ID"], [" first ", "second"], |c| c.worker_id.clone(), "first"),
    case(
        ["--web-socket-url", "OZ_WS_URL"],
        ["wss://first/x", "wss://second/x"],
        |c| c.web_socket_url.to_string(),
        "wss://first/x",
    ),
    case(
        ["--server-root-url", "OZ_SERVER_ROOT_URL"],
        ["https://first//", "https://second"],
        |c| c.server_root_url.clone(),
        "https://first",
    ),
    case(["--rest-url", "OZ_REST_URL"], ["http://a/b/", "http://c"], |c| c.rest_url.clone(), "http://a/b"),
    case(["--log-level", "OZ_LOG_LEVEL"], ["DEBUG", "error"], |c| c.log_level.to_string(), "DEBUG"),
    case(["--log-format", "OZ_LOG_FORMAT"], ["json", "text"], |c| format!("{:?}", c.log_format), "Json"),
    case(
        ["--log-output-lines", "OZ_LOG_OUTPUT_LINES"],
        ["20", "0"],
        |c| c.log_output_lines.to_string(),
        "20",
    ),
    case(["--keep-failed", "OZ_KEEP_FAILED"], ["1d", "0"], |c| format!("{:?}", c.keep_failed), "86400s"),
    case(
        ["--volumes", "OZ_VOLUMES"],
        ["/a:/b", "/c:/d"],
        |c| c.volumes.iter().map(ToString::to_string).collect(),
        "/a:/b",
    ),
    case(["--env", "OZ_ENV"], ["A=1", "B=2"], |c| c.env.iter().map(|(name, _)| name.as_str()).collect(), "A"),
    case(
        ["--max-concurrent-tasks", "OZ_MAX_CONCURRENT_TASKS"],
        ["17", "18"],
        |c| c.max_concurrent_tasks.to_string(),
        "17",
    ),
    case(["--pull", "OZ_PULL"], ["never", "always"], |c| format!("{:?}", c.pull), "Never"),
    case(
        ["--default-image", "OZ_DEFAULT_IMAGE"],
        [" first:1 ", "second"],
        |c| c.default_image.to_string(),
        "first:1",
    ),
    case(
        ["--sidecar-image", "OZ_SIDECAR_IMAGE"],
        ["r:1/first:2@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "second"],
        |c| format!("{:?}", c.sidecar_image.as_ref().map(|image| image.domain().to_owned())),
        "Some(\"r:1\")",
    ),
    case(
        ["--allow-image", "OZ_ALLOW_IMAGE"],
        ["docker.io/**", "**"],
        |c| c.admission.images.iter().map(ToString::to_string).collect(),
        "docker.io/**",
    ),
    case(
        ["--allow-env", "OZ_ALLOW_ENV"],
        ["A*", "B"],
        |c| c.admission.variables.iter().map(ToString::to_string).collect(),
        "A*",
    ),
    case(
        ["--deny-env", "OZ_DENY_ENV"],
        ["A*", "B"],
        |c| c.admission.denied_variables.iter().map(ToString::to_string).collect(),
        "A*",
    ),
    case(
        ["--allow-mount-path", "OZ_ALLOW_MOUNT_PATH"],
        ["/a/", "/b"],
        |c| c.mount_paths.iter().map(|path| path.display().to_string()).collect(),
        "/a/",
    ),
    case(
        ["--idle-on-complete", "OZ_IDLE_ON_COMPLETE"],
        [" 1h30m ", "0s"],
        |c| format!("{:?}", c.idle_on_complete),
        "Some(\"1h30m\")",
    ),
    case(
        ["--session-sharing-server-url", "OZ_SESSION_SHARING_SERVER_URL"],
        ["ws://127.0.0.1:8081", "wss://h/x"],
        |c| format!("{:?}", c.session_sharing_server_url),
        "Some(\"ws://127.0.0.1:8081\")",
    ),
    case(["--max-output", "OZ_MAX_OUTPUT"], ["2k", "3k"], |c| c.max_output.to_string(), "2048"),
    case(["--task-timeout", "OZ_TASK_TIMEOUT"], ["1h30m", "0"], |c| format!("{:?}", c.task_timeout), "5400s"),
    case(
        ["--drain-timeout", "OZ_DRAIN_TIMEOUT"],
        ["10m", "11m"],
        |c| format!("{:?}", c.drain_timeout),
        "600s",
    ),
    case(["--stop-grace", "OZ_STOP_GRACE"], ["1m", "0"], |c| format!("{:?}", c.stop_grace), "60s"),
    case(["--engine-timeout", "OZ_ENGINE_TIMEOUT"], ["7", "8"], |c| format!("{:?}", c.engine_timeout), "7s"),
    case(
        ["--engine-start-timeout", "OZ_ENGINE_START_TIMEOUT"],
        ["2m", "0"],
        |c| format!("{:?}", c.engine_start_timeout),
        "Some(120s)",
    ),
    case(
        ["--reconcile-interval", "OZ_RECONCILE_INTERVAL"],
        ["1d", "0"],
        |c| format!("{:?}", c.reconcile_interval),
        "86400s",
    ),
    case(["--lost-runs", "OZ_LOST_RUNS"], ["Finish", "stop"], |c| format!("{:?}", c.lost_runs), "Finish"),
    case(
        ["--keep-sidecar-volumes", "OZ_KEEP_SIDECAR_VOLUMES"],
        ["1", "1000"],
        |c| c.keep_sidecar_volumes.to_string(),
        "1",
    ),
    case(["--min-free-disk", "OZ_MIN_FREE_DISK"], ["2KiB", "0"], |c| c.min_free_disk.to_string(), "2048"),
    case(
        ["--metrics-listen", "OZ_METRICS_LISTEN"],
        ["[::1]:1", "2"],
        |c| format!("{:?}", c.metrics_listen),
        "Some((::1, 1))",
    ),
    case(["--ca-file", "OZ_CA_FILE"], ["/a b", "/c"], |c| format!("{:?}", c.ca_file), "Some(\"/a b\")"),
];

/// Except for switches, files, settings of containers and settings with only one valid value, which have separate tests.
#[test]
fn every_setting_with_a_flag_and_a_variable_has_a_case() {
    let values = SETTINGS.iter().filter(|setting| setting.value_name.is_some());
    let both = values.filter_map(|setting| Some((setting.flag?, setting.variable?)));
    let both: Vec<_> = both
        .filter(|(flag, _)| {
            !flag.starts_with("--client-")
                && !["--api-key-file", "--settings-file", "--backend"].contains(flag)
                && !containers::tests::LINE.iter().any(|word| word.starts_with(&format!("{flag}=")))
        })
        .collect();
    assert_eq!(CASES.map(|case| (case.flag, case.variable)).to_vec(), both);
}

#[test]
fn a_flag_overrides_its_variable_and_an_empty_variable_is_unset() {
    for Case { flag, variable, first, second, get, expected } in CASES {
        let value = |line: &[&str], variables: &[(&str, &str)]| get(&load(line, variables).unwrap());
        assert_eq!(value(&[flag, first], &[(variable, second)]), expected, "{flag}");
        assert_eq!(value(&[], &[(variable, first)]), expected, "{variable}");
        assert_ne!(value(&[flag, second], &[(variable, first)]), expected, "{flag}");
        match load(&[], &[(variable, "")]) {
            Ok(config) => assert_eq!(get(&config), value(&[], &[]), "{variable}"),
            Err(ConfigErrors(errors)) => match errors.as_slice() {
                [ConfigError::MissingApiKey] => assert_eq!(flag, "--api-key"),
                [ConfigError::MissingWorkerId] => assert_eq!(flag, "--worker-id"),
                other => panic!("{variable}: {other:?}"),
            },
        }
    }
}

#[test]
fn an_error_names_the_flag_or_the_variable_and_its_value() {
    // A blank list is empty, and an invalid entry is shown otherwise.
    let lists = ["--volumes", "--env"];
    for Case { flag, variable, .. } in CASES.into_iter().skip(1).filter(|case| !lists.contains(&case.flag)) {
        for bad in ["\u{1}", "  ", ""] {
            let text = message(load(&[&format!("{flag}={bad}")], &[]));
            assert!(text.starts_with(&format!("invalid {flag} {bad:?}: must")), "{text}");
        }
        let text = message(load(&[], &[(variable, " ")]));
        assert!(text.starts_with(&format!("invalid {variable} \" \": must")), "{text}");
        let variables = [("OZ_API_KEY", MARK.as_bytes()), ("OZ_WORKER_ID", b"w"), (variable, b"a\xff")];
        let environment = variables.map(|(name, value)| (name, OsString::from_vec(value.to_vec())));
        let environment = environment.into_iter().collect();
        let text = message(Config::new(&Arguments::default(), &environment, 1, &no_file));
        assert_eq!(text, format!("invalid {variable}: must be valid UTF-8"));
    }
}

#[test]
fn every_setting_with_a_value_is_checked() {
    for setting in SETTINGS.iter().filter(|setting| setting.value_name.is_some()) {
        if let Some(flag) = setting.flag.filter(|flag| *flag != "--print") {
            let text = message(load(&[&format!("{flag}=\u{1}")], &[]));
            assert!(text.contains(flag), "{flag}: {text}");
        }
        if let Some(variable) = setting.variable {
            // The key has precedence over the key file.
            let key = if variable == "OZ_API_KEY_FILE" { "" } else { MARK };
            let text = message(load(&[], &[("OZ_API_KEY", key), (variable, "\u{1}")]));
            assert!(text.contains(variable), "{variable}: {text}");
        }
    }
}

#[test]
fn bounds_are_inclusive() {
    let ids = ["a".repeat(256), "a".repeat(257), "ü".repeat(128), "ü".repeat(129)];
    let good = [
        ("--max-concurrent-tasks", "0"),
        ("--max-concurrent-tasks", "1"),
        ("--max-concurrent-tasks", "1024"),
        ("--max-output", "1024"),
        ("--max-output", "1k"),
        ("--max-output", "64MiB"),
        ("--max-output", "67108864"),
        ("--max-output", "65536kib"),
        ("--task-timeout", "365d"),
        ("--drain-timeout", "7d"),
        ("--engine-timeout", "24h"),
        ("--reconcile-interval", "86400"),
        ("--min-free-disk", "18446744073709551615"),
        ("--worker-id", &ids[0]),
        ("--worker-id", &ids[2]),
    ];
    for (flag, value) in good {
        assert!(load(&[flag, value], &[]).is_ok(), "{flag} {value}");
    }
    let bad = [
        ("--max-concurrent-tasks", "1025"),
        ("--max-concurrent-tasks", "-1"),
        ("--max-concurrent-tasks", "+1"),
        ("--max-concurrent-tasks", "1.0"),
        ("--max-concurrent-tasks", "99999999999999999999999"),
        ("--max-output", "1023"),
        ("--max-output", "67108865"),
        ("--max-output", "65m "),
        ("--max-output", "k"),
        ("--max-output", "18446744073709551615m"),
        ("--max-output", "4 GiB"),
        ("--task-timeout", "365d1s"),
        ("--drain-timeout", "604801"),
        ("--engine-timeout", "1d1s"),
        ("--reconcile-interval", "soon"),
        ("--lost-runs", "ignore"),
        ("--keep-sidecar-volumes", "0"),
        ("--keep-sidecar-volumes", "1001"),
        ("--min-free-disk", "10%"),
        ("--worker-id", &ids[1]),
        ("--worker-id", &ids[3]),
        ("--worker-id", "a\nb"),
        ("--log-level", "trace"),
        ("--pull", "sometimes"),
        ("--server-root-url", "http://h/?q"),
        ("--server-root-url", "ws://h/"),
        ("--web-socket-url", "http://h/"),
        ("--web-socket-url", "ws://h/?a=b&worker_id=1"),
        ("--volumes", "/a:b"),
    ];
    for (flag, value) in bad {
        let text = message(load(&[&format!("{flag}={value}")], &[]));
        assert!(text.starts_with(&format!("invalid {flag} \"")) && text.contains(": must "), "{text}");
        assert!(text.chars().count() < 250, "{text}");
    }
}

#[test]
fn the_default_size_of_the_pool_is_twice_the_cores_within_bounds() {
    let arguments = Arguments::parse(["--api-key=k", "--worker-id=w"].map(OsString::from)).unwrap();
    for (cores, size) in [(0, 4), (1, 4), (2, 4), (3, 6), (512, 1024), (513, 1024), (usize::MAX, 1024)] {
        let config = Config::new(&arguments, &Environment::default(), cores, &no_file).unwrap();
        assert_eq!(config.max_concurrent_tasks, size);
    }
}

#[test]
fn reconnect_variables_have_bounds() {
    let attempts = "OZ_RECONNECT_MAX_ATTEMPTS";
    let window = "OZ_RECONNECT_WINDOW_SECONDS";
    let config = load(&[], &[(attempts, "4294967295"), (window, "60")]).unwrap();
    assert_eq!((config.reconnect_max_attempts, config.reconnect_window.as_secs()), (u32::MAX, 60));
    for name in [attempts, window] {
        for bad in ["4294967296", "-1", "x", " "] {
            assert!(
                message(load(&[], &[(name, bad)])).starts_with(&format!("invalid {name} \"{bad}\": must"))
            );
        }
    }
}

#[test]
fn the_key_is_taken_in_order_of_precedence() {
    let file = |path: &Path| Ok(format!("\u{feff} from {} \r\nsecond", path.display()));
    let key = |line: &[&str], variables: &[(&str, &str)]| {
        let mut line = line.to_vec();
        line.push("--worker-id=w");
        load_from(&line, variables, &file).unwrap().api_key.expose().to_owned()
    };
    let both = [("OZ_API_KEY", "v"), ("OZ_API_KEY_FILE", "/v")];
    assert_eq!(key(&["--api-key", " t "], &both[..1]), "t");
    assert_eq!(key(&["--api-key-file", "/t"], &both), "from /t");
    assert_eq!(key(&["--api-key", " t "], &both), "from /v");
    assert_eq!(key(&[], &both), "from /v");
    assert_eq!(key(&[], &both[..1]), "v");
    assert_eq!(key(&[], &[("OZ_API_KEY", ""), ("OZ_API_KEY_FILE", "/v")]), "from /v");
    let line = ["--api-key", MARK, "--worker-id=w"];
    let warnings = load_from(&line, &both, &file).unwrap().warnings;
    assert_eq!(warnings[0], "API key not used setting=--api-key instead=OZ_API_KEY_FILE");
    assert!(warnings[1].starts_with("API key in the command line reason="), "{warnings:?}");
    assert!(warnings.len() == 2 && !warnings.iter().any(|warning| warning.contains(MARK)), "{warnings:?}");
}

#[test]
fn the_key_must_be_set_and_fit_into_a_header() {
    let text = message(load(&[], &[("OZ_API_KEY", "")]));
    assert_eq!(text, "missing API key: set OZ_API_KEY or OZ_API_KEY_FILE");
    for bad in ["hunter2\u{7f}", "hunter2\nX-A: b", "hunter2ö", " \t", ""] {
        assert!(
            message(load(&[&format!("--api-key={bad}")], &[])).starts_with("invalid --api-key: must "),
            "{bad:?}"
        );
    }
    assert!(message(load(&[], &[("OZ_API_KEY", "hunter2\u{0}")])).starts_with("invalid OZ_API_KEY: must "));
}

#[test]
fn an_invalid_key_file_is_an_error() {
    let line = ["--worker-id=w", "--api-key-file=/k"];
    let load = |content: io::Result<String>| {
        let content = std::cell::Cell::new(Some(content));
        load_from(&line, &[], &|_| content.take().unwrap())
    };
    let padding = "\n".repeat(KEY_FILE_LIMIT - 1);
    assert!(load(Ok(format!("k{padding}"))).is_ok());
    let text = message(load(Ok(format!("k{padding}\n"))));
    assert!(text.starts_with("invalid --api-key-file \"/k\": must be a file of at most 64 KiB"), "{text}");
    for blank in ["", "\n", " \r\nhunter2"] {
        assert_eq!(
            message(load(Ok(blank.into()))),
            "invalid first line of --api-key-file: must not be blank"
        );
    }
    let text = message(load(Ok("hunter2\u{1}".into())));
    assert_eq!(text, "invalid first line of --api-key-file: must be ASCII without control characters");
    let denied = load(Err(io::ErrorKind::PermissionDenied.into()));
    let right = "must be a file that this user may read";
    assert_eq!(message(denied), format!("cannot read --api-key-file \"/k\": {right}"));
    let text = ConfigError::key_file("N", "/run/secrets/k", io::ErrorKind::NotFound.into()).to_string();
    assert_eq!(
        text,
        format!("cannot read N \"/run/secrets/k\": {right}, in a Swarm a secret of the service")
    );
}

#[test]
fn task_variables_are_set_or_copied() {
    let line = ["-e", "A=1=2", "-e", "B=x", "-e", "OWN", "-e", "NONE=", "--env", "B=y", "-e", "BLANK"];
    let config = load(&line, &[("OWN", MARK), ("BLANK", "")]).unwrap();
    let env: Vec<_> = config.env.iter().map(|(key, value)| (key.as_str(), value.expose())).collect();
    assert_eq!(env, [("A", "1=2"), ("OWN", MARK), ("NONE", ""), ("B", "y"), ("BLANK", "")]);
    let cases = [
        ("=hunter2", "invalid --env \"\": must be KEY=VALUE or KEY"),
        ("A B=hunter2", "invalid --env \"A B\": must be KEY=VALUE or KEY"),
        ("A\0=hunter2", "invalid --env \"A\\0\": must be KEY=VALUE or KEY"),
        ("A=hunter2\0", "invalid --env \"A\": must not have a NUL"),
        ("UNSET", "invalid --env \"UNSET\": must be KEY=VALUE, or the name of a variable that is set"),
        ("", "invalid --env: must be KEY=VALUE or KEY"),
        ("TOKEN: hunter2", "invalid --env: must be KEY=VALUE or KEY"),
        // The rest of a value with a space.
        ("hunter2", "invalid --env: must be KEY=VALUE, or the name of a variable that is set"),
    ];
    for (entry, expected) in cases {
        let text = message(load(&[&format!("--env={entry}")], &[]));
        assert!(text.starts_with(expected) && !text.contains(MARK), "{text}");
    }
    let environment =
        [("OWN".to_string(), OsString::from_vec(b"hunter2\xff".to_vec()))].into_iter().collect();
    let arguments = Arguments::parse(["--api-key=k", "--worker-id=w", "-eOWN"].map(OsString::from)).unwrap();
    let text = message(Config::new(&arguments, &environment, 1, &no_file));
    assert!(text.starts_with("invalid --env \"OWN\": must be valid UTF-8"), "{text}");
}
