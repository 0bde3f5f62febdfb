//! Every setting: precedence, both sides of every bound, and what the messages say and do not say.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use super::*;
use crate::cli::arguments;

const MARK: &str = "hunter2";

fn no_file(_: &Path) -> io::Result<String> {
    Err(io::ErrorKind::NotFound.into())
}

fn load_from(
    line: &[&str],
    variables: &[(&str, &str)],
    file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Config, ConfigError> {
    let cli = arguments::parse(line.iter().map(OsString::from)).unwrap();
    Config::new(&cli, &variables.iter().copied().collect(), 3, file)
}

/// With a key and an id, unless they are given.
fn load(line: &[&str], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut all = vec![("OZ_API_KEY", MARK), ("OZ_WORKER_ID", "w")];
    all.extend(variables);
    load_from(line, &all, &no_file)
}

/// Fails, on one line that has no secret, and gives the line.
fn message(result: Result<Config, ConfigError>) -> String {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(!format!("{text} {error:?}").contains(MARK), "{text}");
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn the_defaults() {
    let config = load(&[], &[]).unwrap();
    let expected = Config {
        api_key: Secret::new(MARK),
        worker_id: "w".into(),
        web_socket_url: "ws://localhost:8080/api/v1/selfhosted/worker/ws".parse().unwrap(),
        server_root_url: "http://localhost:8080".into(),
        log_level: LevelFilter::Info,
        cleanup: true,
        volumes: vec![],
        env: vec![],
        max_concurrent_tasks: 6,
        pull: PullPolicy::Auto,
        max_output: DEFAULT_OUTPUT,
        task_timeout: Duration::from_secs(8 * 3600),
        drain_timeout: Duration::ZERO,
        engine_timeout: Duration::from_secs(300),
        reconcile_interval: Duration::from_secs(60),
        lost_runs: LostRuns::Stop,
        keep_sidecar_volumes: 2,
        min_free_disk: 1 << 30,
        reconnect_max_attempts: 0,
        reconnect_window: Duration::ZERO,
    };
    assert_eq!(config, expected);
}

/// A flag, its variable, two good values that differ, and how the first shows in the configuration.
const SOURCES: [(&str, &str, &str, &str, &str); 14] = [
    ("--api-key", "OZ_API_KEY", "first", "second", "first"),
    ("--worker-id", "OZ_WORKER_ID", " first ", "second", "first"),
    ("--web-socket-url", "OZ_WS_URL", "wss://first/x", "wss://second/x", "wss://first/x"),
    ("--server-root-url", "OZ_SERVER_ROOT_URL", "https://first//", "https://second", "https://first"),
    ("--log-level", "OZ_LOG_LEVEL", "DEBUG", "error", "DEBUG"),
    ("--max-concurrent-tasks", "OZ_MAX_CONCURRENT_TASKS", "17", "18", "17"),
    ("--pull", "OZ_PULL", "never", "always", "Never"),
    ("--task-timeout", "OZ_TASK_TIMEOUT", "1h30m", "0", "5400s"),
    ("--drain-timeout", "OZ_DRAIN_TIMEOUT", "10m", "11m", "600s"),
    ("--engine-timeout", "OZ_ENGINE_TIMEOUT", "7", "8", "7s"),
    ("--reconcile-interval", "OZ_RECONCILE_INTERVAL", "1d", "0", "86400s"),
    ("--lost-runs", "OZ_LOST_RUNS", "Finish", "stop", "Finish"),
    ("--keep-sidecar-volumes", "OZ_KEEP_SIDECAR_VOLUMES", "1", "1000", "1"),
    ("--min-free-disk", "OZ_MIN_FREE_DISK", "2KiB", "0", "2048"),
];

fn shown(flag: &str, config: &Config) -> String {
    match flag {
        "--api-key" => config.api_key.expose().into(),
        "--worker-id" => config.worker_id.clone(),
        "--web-socket-url" => config.web_socket_url.to_string(),
        "--server-root-url" => config.server_root_url.clone(),
        "--log-level" => config.log_level.to_string(),
        "--max-concurrent-tasks" => config.max_concurrent_tasks.to_string(),
        "--pull" => format!("{:?}", config.pull),
        "--task-timeout" => format!("{:?}", config.task_timeout),
        "--drain-timeout" => format!("{:?}", config.drain_timeout),
        "--engine-timeout" => format!("{:?}", config.engine_timeout),
        "--reconcile-interval" => format!("{:?}", config.reconcile_interval),
        "--lost-runs" => format!("{:?}", config.lost_runs),
        "--keep-sidecar-volumes" => config.keep_sidecar_volumes.to_string(),
        "--min-free-disk" => config.min_free_disk.to_string(),
        _ => panic!("{flag}"),
    }
}

#[test]
fn a_flag_wins_over_its_variable_and_an_empty_variable_is_unset() {
    for (flag, variable, first, second, expected) in SOURCES {
        let typed = load(&[flag, first], &[(variable, second)]).unwrap();
        assert_eq!(shown(flag, &typed), expected, "{flag}");
        assert_eq!(shown(flag, &load(&[], &[(variable, first)]).unwrap()), expected, "{variable}");
        let other = load(&[flag, second], &[(variable, first)]).unwrap();
        assert_ne!(shown(flag, &other), expected, "{flag}");
        match load(&[], &[(variable, "")]) {
            Ok(config) => assert_eq!(shown(flag, &config), shown(flag, &load(&[], &[]).unwrap())),
            Err(error) => assert!(matches!(error, ConfigError::Missing { .. }), "{error}"),
        }
    }
}

#[test]
fn every_flag_and_variable_that_is_wrong_is_named_with_its_value() {
    for (flag, variable, ..) in SOURCES.into_iter().skip(1) {
        for bad in ["\u{1}", "  ", ""] {
            let text = message(load(&[&format!("{flag}={bad}")], &[]));
            assert!(text.starts_with(&format!("{flag} is {bad:?}: must")), "{text}");
        }
        let text = message(load(&[], &[(variable, " ")]));
        assert!(text.starts_with(&format!("{variable} ({flag}) is \" \": must")), "{text}");
        let variables = [(variable.into(), OsString::from_vec(vec![b'a', 0xff]))];
        let environment: Environment = [("OZ_API_KEY".into(), OsString::from(MARK))]
            .into_iter()
            .chain([("OZ_WORKER_ID".into(), OsString::from("w"))])
            .chain(variables)
            .collect::<Vec<(OsString, OsString)>>()
            .into_iter()
            .collect();
        let text = message(Config::new(&Cli::default(), &environment, 1, &no_file));
        assert_eq!(text, format!("{variable} must be valid UTF-8"));
    }
}

#[test]
fn bounds_on_both_sides() {
    let ids = ["a".repeat(256), "a".repeat(257), "ü".repeat(128), "ü".repeat(129)];
    let good = [
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
        ("--max-concurrent-tasks", "0"),
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
        assert!(text.starts_with(&format!("{flag} is \"")) && text.contains(": must "), "{text}");
        assert!(text.chars().count() < 250, "{text}");
    }
}

#[test]
fn the_pool_follows_the_cores() {
    let cli = arguments::parse(["--api-key=k", "--worker-id=w"].map(OsString::from)).unwrap();
    for (cores, size) in [(0, 4), (1, 4), (2, 4), (3, 6), (512, 1024), (513, 1024), (usize::MAX, 1024)] {
        let config = Config::new(&cli, &Environment::default(), cores, &no_file).unwrap();
        assert_eq!(config.max_concurrent_tasks, size);
    }
}

#[test]
fn the_reconnect_variables() {
    let attempts = "OZ_RECONNECT_MAX_ATTEMPTS";
    let window = "OZ_RECONNECT_WINDOW_SECONDS";
    let config = load(&[], &[(attempts, "4294967295"), (window, "60")]).unwrap();
    assert_eq!((config.reconnect_max_attempts, config.reconnect_window.as_secs()), (u32::MAX, 60));
    for name in [attempts, window] {
        for bad in ["4294967296", "-1", "x", " "] {
            assert!(message(load(&[], &[(name, bad)])).starts_with(&format!("{name} is \"{bad}\": must")));
        }
    }
}

#[test]
fn the_key_comes_from_the_first_source_there_is() {
    let file = |path: &Path| Ok(format!("\u{feff} from {} \r\nsecond", path.display()));
    let key = |line: &[&str], variables: &[(&str, &str)]| {
        let mut line = line.to_vec();
        line.push("--worker-id=w");
        load_from(&line, variables, &file).unwrap().api_key.expose().to_owned()
    };
    let both = [("OZ_API_KEY", "v"), ("OZ_API_KEY_FILE", "/v")];
    assert_eq!(key(&["--api-key", " t "], &both), "t");
    assert_eq!(key(&["--api-key-file", "/t"], &both), "from /t");
    assert_eq!(key(&[], &both), "v");
    assert_eq!(key(&[], &[("OZ_API_KEY", ""), ("OZ_API_KEY_FILE", "/v")]), "from /v");
    let text = message(load(&["--api-key", MARK, "--api-key-file", "/t"], &[]));
    assert_eq!(text, "--api-key must not be given together with --api-key-file");
}

#[test]
fn a_key_that_is_missing_or_cannot_be_sent() {
    let text = message(load(&[], &[("OZ_API_KEY", "")]));
    assert!(text.starts_with("--api-key (or OZ_API_KEY) or --api-key-file (or OZ_API_KEY_FILE) is missing"));
    for bad in ["hunter2\u{7f}", "hunter2\nX-A: b", "hunter2ö", " \t", ""] {
        assert!(message(load(&[&format!("--api-key={bad}")], &[])).starts_with("--api-key must "), "{bad:?}");
    }
    assert!(
        message(load(&[], &[("OZ_API_KEY", "hunter2\u{0}")])).starts_with("OZ_API_KEY (--api-key) must ")
    );
}

#[test]
fn a_key_file_that_is_no_good() {
    let line = ["--worker-id=w", "--api-key-file=/k"];
    let load = |content: io::Result<String>| {
        let content = std::cell::Cell::new(Some(content));
        load_from(&line, &[], &|_| content.take().unwrap())
    };
    let padding = "\n".repeat(KEY_FILE_LIMIT - 1);
    assert!(load(Ok(format!("k{padding}"))).is_ok());
    assert!(
        message(load(Ok(format!("k{padding}\n")))).starts_with("--api-key-file is \"/k\": must be a file of")
    );
    for blank in ["", "\n", " \r\nhunter2"] {
        assert!(message(load(Ok(blank.into()))).starts_with("--api-key-file must not be blank"));
    }
    assert!(message(load(Ok("hunter2\u{1}".into()))).starts_with("--api-key-file must have a key of ASCII"));
    let denied = load(Err(io::ErrorKind::PermissionDenied.into()));
    assert_eq!(message(denied), "--api-key-file is \"/k\", which cannot be read");
}

#[test]
fn one_url_is_enough() {
    let cases: [(&[&str], &str, &str); 5] = [
        (&["--web-socket-url=wss://h:1/x?y=z"], "wss://h:1/x?y=z", "https://h:1"),
        (
            &["--server-root-url=http://[::1]:9/"],
            "ws://[::1]:9/api/v1/selfhosted/worker/ws",
            "http://[::1]:9",
        ),
        (&["--server-root-url=https://h/p//"], "wss://h/api/v1/selfhosted/worker/ws", "https://h/p"),
        (&["--server-root-url=HTTPS://h"], "wss://h/api/v1/selfhosted/worker/ws", "https://h"),
        (&["--web-socket-url=ws://a/x", "--server-root-url=https://b"], "ws://a/x", "https://b"),
    ];
    for (line, link, root) in cases {
        let config = load(line, &[]).unwrap();
        assert_eq!(
            (config.web_socket_url.to_string().as_str(), config.server_root_url.as_str()),
            (link, root)
        );
    }
    let mixed = load(&["--server-root-url=https://b"], &[("OZ_WS_URL", "ws://a/x")]).unwrap();
    assert_eq!(mixed.web_socket_url.to_string(), "ws://a/x");
}

#[test]
fn a_url_with_a_password_is_refused_and_not_shown() {
    for url in ["ws://u:hunter2@h/", "ws://hunter2@h/", "hunter2@h", "ws://h/#hunter2", "http://h/?t=hunter2"]
    {
        let text = message(load(&["--web-socket-url", url], &[]));
        assert!(text.starts_with("--web-socket-url is \""), "{text}");
    }
}

#[test]
fn the_link_url_carries_the_id() {
    let config = load(&["--web-socket-url=wss://h/x?a=b", "--worker-id=a b/ü"], &[]).unwrap();
    assert_eq!(config.link_url(), "wss://h/x?a=b&worker_id=a%20b%2F%C3%BC");
}

#[test]
fn plain_text_to_another_machine_is_warned_about() {
    let warning = |url: &str| load(&["--web-socket-url", url], &[]).unwrap().plain_text_warning();
    assert!(warning("ws://h.example:1/x").unwrap().contains("h.example"));
    for url in ["wss://h.example/x", "ws://localhost/x", "ws://127.0.0.2:1/x", "ws://[::1]/x"] {
        assert_eq!(warning(url), None, "{url}");
    }
}

#[test]
fn variables_of_the_tasks() {
    let line = ["-e", "A=1=2", "-e", "B=x", "-e", "OWN", "-e", "NONE=", "--env", "B=y", "-e", "BLANK"];
    let config = load(&line, &[("OWN", MARK), ("BLANK", "")]).unwrap();
    let env: Vec<_> = config.env.iter().map(|(key, value)| (key.as_str(), value.expose())).collect();
    assert_eq!(env, [("A", "1=2"), ("OWN", MARK), ("NONE", ""), ("B", "y"), ("BLANK", "")]);
    let cases = [
        ("=hunter2", "--env is \"\": must"),
        ("A B=hunter2", "--env is \"A B\": must"),
        ("A\0=hunter2", "--env is \"A\\0\": must"),
        ("A=hunter2\0", "--env A must not have a NUL"),
        ("UNSET", "--env UNSET must be KEY=VALUE, or a variable that is set"),
        ("", "--env is \"\": must"),
    ];
    for (entry, expected) in cases {
        let text = message(load(&[&format!("--env={entry}")], &[]));
        assert!(text.starts_with(expected), "{text}");
    }
    let environment =
        [("OWN".to_string(), OsString::from_vec(b"hunter2\xff".to_vec()))].into_iter().collect();
    let cli = arguments::parse(["--api-key=k", "--worker-id=w", "-eOWN"].map(OsString::from)).unwrap();
    let text = message(Config::new(&cli, &environment, 1, &no_file));
    assert!(text.starts_with("--env OWN must be valid UTF-8"), "{text}");
}

#[test]
fn nothing_shows_a_secret() {
    let config = load(&["-e", "TOKEN=hunter2", "-e", "OWN"], &[("OWN", MARK)]).unwrap();
    let environment: Environment = [("OWN", MARK)].into_iter().collect();
    let shown = format!("{config:?} {environment:?}");
    assert!(shown.contains("TOKEN") && shown.contains("OWN") && !shown.contains(MARK), "{shown}");
}

#[test]
fn the_help_and_the_code_agree_on_the_defaults() {
    let config = load(&["--max-output", "4MiB"], &[]).unwrap();
    assert_eq!(config.max_output, DEFAULT_OUTPUT);
    let help = docs::asked_for(&Cli { help: true, ..Cli::default() }).unwrap().unwrap();
    for bound in [
        "at most 256 bytes",
        "1 to 1024",
        "1024 bytes to 64 MiB",
        "at most 64 KiB",
        "1 to 1000",
        "at most 365d",
        "at most 7d",
        "at most 1d",
    ] {
        let words: Vec<_> = bound.split(' ').collect();
        let all: Vec<_> = help.split_whitespace().collect();
        assert!(all.windows(words.len()).any(|window| {
            window.iter().zip(&words).all(|(word, bound)| word.trim_end_matches([',', '.', ';']) == *bound)
        }));
    }
}

/// What the completions offer is what is taken.
#[test]
fn each_word_of_the_table_is_a_good_value() {
    let mut seen = 0;
    for setting in SETTINGS {
        let (Some(flag), ValueHint::Words(words)) = (setting.flag, setting.values) else { continue };
        for word in words {
            match flag {
                "--print" => drop(page(word).unwrap()),
                _ => drop(load(&[flag, word], &[]).unwrap()),
            }
            seen += 1;
        }
    }
    assert!(seen >= 15, "{seen}");
}

#[test]
fn an_unknown_page_is_named_with_those_that_there_are() {
    for word in ["html", "", "man bash"] {
        let right = "must be one of man, bash, zsh, fish, environment";
        assert_eq!(page(word).unwrap_err().to_string(), format!("--print is {word:?}: {right}"));
    }
}
