//! The list of settings: each value with its origin, and no secret.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::config_tests::{MARK, load};
use super::*;
use crate::sys::environment::Environment;

fn list(line: &[&str], variables: &[(&str, &str)], file: &str) -> String {
    let arguments = Arguments::parse(line.iter().map(OsString::from)).unwrap();
    let given: Environment = variables.iter().copied().collect();
    let file = SettingsFile::parse("/etc/w.env".into(), file.as_bytes()).unwrap();
    let merged = file.below(&given);
    let read = |path: &Path| match path.to_str().unwrap() {
        "/proc/sys/kernel/hostname" => Ok("build-1\n".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let listing = Listing { arguments: &arguments, environment: &merged, cores: 3 };
    let text = listing.text(&read);
    assert!(!text.contains(MARK), "{text}");
    text
}

/// Returns the origin and the value of a setting.
fn row(text: &str, name: &str) -> (String, String) {
    let is_its = |line: &&str| line.split(' ').next() == Some(name);
    let line = text.lines().find(is_its).unwrap_or_else(|| panic!("{name}: {text}"));
    let rest = line.strip_prefix(name).unwrap().trim_start();
    let (origin, value) = rest.split_once("  ").unwrap_or((rest, ""));
    (origin.to_owned(), value.trim_start().to_owned())
}

#[track_caller]
fn check(text: &str, cases: &[(&str, &str, &str)]) {
    for (name, origin, value) in cases {
        assert_eq!(row(text, name), ((*origin).to_owned(), (*value).to_owned()), "{name}");
    }
}

#[test]
fn every_setting_is_listed_once_and_has_its_default() {
    let text = list(&[], &[], "");
    let own = SETTINGS.iter().filter(|setting| setting.occurs != Occurs::Alone);
    let own = own.map(|setting| setting.variable.or(setting.flag).unwrap());
    let expected: Vec<_> =
        own.chain(["OZ_WORKER_ARGS"]).chain(EXTERNAL.iter().map(|external| external.variable)).collect();
    let names: Vec<_> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, expected);
    check(
        &text,
        &[
            ("OZ_API_KEY", "unset", ""),
            ("OZ_WORKER_ID", "default", "build-1"),
            ("OZ_WS_URL", "default", "ws://localhost:8080/api/v1/selfhosted/worker/ws"),
            ("OZ_REST_URL", "default", "http://localhost:8080"),
            ("OZ_MAX_CONCURRENT_TASKS", "default", "6"),
            ("OZ_TASK_TIMEOUT", "default", "8h"),
            ("OZ_ENGINE_START_TIMEOUT", "default", "no limit"),
            ("OZ_NO_CLEANUP", "unset", ""),
            ("DOCKER_HOST", "unset", ""),
        ],
    );
}

#[test]
fn a_value_has_the_origin_that_counts() {
    let line = ["--pull", "never", "--shared-id", "-v/a:/b", "-v", "/c d:/e", "--worker-id={hostname}-2"];
    let variables =
        [("OZ_PULL", "always"), ("OZ_LOG_LEVEL", "debug"), ("OZ_LOST_RUNS", ""), ("no_proxy", "h")];
    let file = "OZ_PULL=missing\nOZ_LOG_LEVEL=error\n\nOZ_LOST_RUNS=finish\nOZ_SERVER_ROOT_URL='https://h/base/'\n\
                OZ_TASK_TIMEOUT=x y\nHTTPS_PROXY=http://p:3128\n";
    check(
        &list(&line, &variables, file),
        &[
            ("OZ_PULL", "--pull", "never"),
            ("OZ_SHARED_ID", "--shared-id", "true"),
            ("OZ_VOLUMES", "--volumes", "/a:/b \"/c d:/e\""),
            ("OZ_WORKER_ID", "--worker-id", "build-1-2"),
            ("OZ_LOG_LEVEL", "environment", "debug"),
            ("OZ_LOST_RUNS", "/etc/w.env:4", "finish"),
            ("OZ_SERVER_ROOT_URL", "/etc/w.env:5", "https://h/base/"),
            ("OZ_WS_URL", "from OZ_SERVER_ROOT_URL", "wss://h/base/api/v1/selfhosted/worker/ws"),
            ("OZ_REST_URL", "default", "https://h/base"),
            // Invalid, and listed nevertheless.
            ("OZ_TASK_TIMEOUT", "/etc/w.env:6", "\"x y\""),
            ("HTTPS_PROXY", "/etc/w.env:7", "http://p:3128"),
            ("no_proxy", "environment", "h"),
        ],
    );
    let text = list(&["--web-socket-url=wss://h:1/x"], &[], "");
    check(&text, &[("OZ_SERVER_ROOT_URL", "from --web-socket-url", "https://h:1")]);
}

#[test]
fn no_secret_is_listed_wherever_it_is_set() {
    let variables = [
        ("OZ_API_KEY", MARK),
        ("WARP_API_KEY", MARK),
        ("OZ_ENV", "A=hunter2 'B=x hunter2' C=x hunter2 OWN"),
        ("OZ_WS_URL", "wss://u:hunter2@h/x?token=hunter2"),
        ("OZ_SERVER_ROOT_URL", "https://hunter2@h"),
        ("OZ_REST_URL", "https://u:hun?hunter2@h"),
        ("HTTPS_PROXY", "http://u:hunter2@p:1"),
        ("http_proxy", "socks5://u:#hunter2@p"),
        ("ALL_PROXY", "u:hunter2@p"),
        ("DOCKER_HOST", "tcp://u:hunter2@h:2375"),
        (
            "OZ_WORKER_ARGS",
            "--api-key hunter2 --api-key=hunter2 -e A=hunter2 -eB=hunter2 --env=C=hunter2 --no-cleanup hunter2 \
             --apikey=hunter2 --rest-url http://hunter2@h --pull never -e D",
        ),
    ];
    let text = list(&[], &variables, "");
    check(
        &text,
        &[
            ("OZ_API_KEY", "environment", "(hidden)"),
            ("OZ_ENV", "environment", "A=(hidden) B=(hidden) C=(hidden) (hidden) OWN"),
            ("OZ_WS_URL", "environment", "wss://...@h/x?..."),
            ("OZ_REST_URL", "environment", "https://..."),
            ("HTTPS_PROXY", "environment", "http://...@p:1"),
            ("http_proxy", "environment", "socks5://..."),
            ("ALL_PROXY", "environment", "...@p"),
            (
                "OZ_WORKER_ARGS",
                "environment",
                "--api-key (hidden) --api-key=(hidden) -e A=(hidden) -e=B=(hidden) --env=C=(hidden) --no-cleanup \
                 (hidden) (hidden) --rest-url http://...@h --pull never -e D",
            ),
        ],
    );
    let file: String = variables.iter().map(|(name, value)| format!("{name}=\"{value}\"\n")).collect();
    check(&list(&[], &[], &file), &[("OZ_API_KEY", "/etc/w.env:1", "(hidden)")]);
    let line = ["--api-key", MARK, "-e", "A=hunter2", "-e", "x hunter2", "--web-socket-url=ws://u:hunter2@h"];
    check(
        &list(&line, &[], ""),
        &[("OZ_API_KEY", "--api-key", "(hidden)"), ("OZ_ENV", "--env", "A=(hidden) (hidden)")],
    );
    for text in ["A='hunter2", "hunter2 \"x"] {
        check(
            &list(&[], &[("OZ_ENV", text), ("OZ_WORKER_ARGS", text)], ""),
            &[("OZ_ENV", "environment", "(hidden)"), ("OZ_WORKER_ARGS", "environment", "(hidden)")],
        );
    }
}

/// A value cannot make a second line, or one that looks like another setting.
#[test]
fn each_setting_has_one_line() {
    let lines = |text: String| text.lines().count();
    let usual = lines(list(&[], &[], ""));
    let evil = "x\nOZ_PULL  environment  never";
    let names = SETTINGS.iter().filter_map(|setting| setting.variable);
    for name in names.chain(EXTERNAL.iter().map(|external| external.variable)).chain(["OZ_WORKER_ARGS"]) {
        assert_eq!(lines(list(&[], &[(name, evil)], "")), usual, "{name}");
    }
}

#[test]
fn debug_shows_no_secret() {
    let config = load(&["-e", "TOKEN=hunter2", "-e", "OWN"], &[("OWN", MARK)]).unwrap();
    let environment: Environment = [("OWN", MARK)].into_iter().collect();
    let shown = format!("{config:?} {environment:?}");
    assert!(shown.contains("TOKEN") && shown.contains("OWN") && !shown.contains(MARK), "{shown}");
}
