//! Settings: help and version, invalid settings, and flags over variables.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::control_plane::{Options, State};
use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::worker::{Worker, WorkerBuilder, binary, worker_id};

pub(super) const KEY: &str = "MARKER-key";

/// The exit code of a process, and its stdout and stderr.
pub(super) type End = (Option<i32>, String, String);

pub(super) fn end(mut worker: Worker) -> End {
    let code = worker.wait_exit(DEADLINE).code();
    let text = |lines: Vec<String>| lines.join("\n");
    (code, text(worker.stdout().all()), text(worker.stderr().all()))
}

/// Returns a worker with a key and an id, the only required settings.
pub(super) fn minimal() -> WorkerBuilder {
    WorkerBuilder::new(&binary()).env("OZ_API_KEY", KEY).args(["--worker-id", &worker_id()])
}

#[test]
fn help_and_version_go_to_stdout() {
    for flag in ["--help", "-h"] {
        let (code, out, err) = end(minimal().args([flag]).start());
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert!(out.contains("Usage: oz-agent-worker") && !out.contains(KEY), "{out}");
    }
    for flag in ["--version", "-V"] {
        let expected = format!("oz-agent-worker {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            end(WorkerBuilder::new(&binary()).args([flag]).start()),
            (Some(0), expected, String::new())
        );
    }
}

/// The tests can run any build of the worker, so they must not fall back to another one.
#[test]
fn the_worker_under_test_is_the_one_that_oz_test_worker_names() {
    let stage = Stage::new();
    let worker = stage.start_worker();
    let runs = std::fs::read_link(format!("/proc/{}/exe", worker.id())).unwrap();
    assert_eq!(runs, binary().canonicalize().unwrap());
    stage.stop(worker);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "worker::settings::help_and_version_go_to_stdout", "--nocapture"]);
    let output = command.env("OZ_TEST_WORKER", "/nonexistent/worker").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && stderr.contains("OZ_TEST_WORKER names no file"), "{stderr}");
}

/// OpenSSL itself ignores them silently.
#[test]
fn unusable_trusted_certificates_are_logged() {
    let folder = tempfile::tempdir().unwrap();
    let file = write_file(folder.path(), "bare.pem", b"no certificate\n");
    let start = || without_engine(&file, folder.path());
    let (code, _, err) = end(start().start());
    assert_eq!(code, Some(4), "{err}");
    for (variable, path) in
        [("SSL_CERT_FILE", file.as_str()), ("SSL_CERT_DIR", folder.path().to_str().unwrap())]
    {
        let warning = format!("certificates not usable variable={variable} path={path} error=");
        let lines: Vec<_> = err.lines().filter(|line| line.contains(&warning)).collect();
        assert!(lines.len() == 1 && lines[0].contains(" WARN "), "{variable}: {err}");
    }
    let (_, _, err) = end(start().env_remove("SSL_CERT_FILE").env("SSL_CERT_DIR", "").start());
    assert!(!err.contains("trusted certificates"), "{err}");
}

/// Returns a worker that exits at once, because there is no engine.
fn without_engine(file: &str, folder: &Path) -> WorkerBuilder {
    let builder = minimal().env("SSL_CERT_FILE", file).env("SSL_CERT_DIR", folder.to_str().unwrap());
    builder.env("DOCKER_HOST", "unix:///nonexistent/docker.sock").env("OZ_ENGINE_START_TIMEOUT", "0")
}

#[test]
fn a_closed_stdout_or_stderr_does_not_change_the_exit_code() {
    for (flag, expected) in [("--help", 0), ("--version", 0), ("--no-such-flag", 2)] {
        let closed = || {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            Stdio::from(writer)
        };
        let status = Command::new(binary()).arg(flag).stdout(closed()).stderr(closed()).status().unwrap();
        assert_eq!(status.code(), Some(expected), "{flag}");
    }
}

#[test]
fn an_invalid_setting_is_named_and_the_key_is_not_shown() {
    let unset = |name: &str| WorkerBuilder::new(&binary()).env("OZ_API_KEY", KEY).env_remove(name);
    let with = |flag: &str, value: &str| minimal().args([flag, value]);
    let cases = [
        (minimal().env_remove("OZ_API_KEY"), "missing API key: set OZ_API_KEY or OZ_API_KEY_FILE"),
        (minimal().env("OZ_API_KEY", " "), "invalid OZ_API_KEY: must not be blank"),
        (minimal().env("OZ_API_KEY", "MARKER-key\n2"), "invalid OZ_API_KEY: must be ASCII"),
        (with("--api-key", "MARKER-key\u{e9}"), "invalid --api-key: must be ASCII"),
        (
            unset("X").args(["--worker-id", " "]),
            "invalid --worker-id \" \": must be 1 to 256 bytes and not blank",
        ),
        (unset("X").env("OZ_WORKER_ID", "a\nb"), "invalid OZ_WORKER_ID \"a\\nb\": must not contain control"),
        (minimal().args(["--no-such-flag"]), "unknown flag --no-such-flag; see --help"),
        (minimal().args(["--apikey=MARKER-key"]), "unknown flag --apikey; see --help"),
        (minimal().args(["MARKER-key"]), "argument 3 is not a flag"),
        (minimal().args(["--pull"]), "--pull needs a value"),
        (minimal().args(["--no-cleanup=1"]), "--no-cleanup takes no value"),
        (minimal().args(["--pull", "auto", "--pull", "never"]), "--pull is given more than once"),
        (with("--web-socket-url", "http://h/"), "invalid --web-socket-url \"http://h/\": must"),
        (
            with("--web-socket-url", "ws://u:MARKER-key@h/"),
            "invalid --web-socket-url \"ws://...@h/\": must not contain a user name",
        ),
        (with("--web-socket-url", "ws://h/?worker_id=x"), "must not have worker_id in its query"),
        (minimal().env("OZ_WS_URL", "nonsense"), "invalid OZ_WS_URL \"nonsense\": must"),
        (with("--server-root-url", "ftp://h"), "invalid --server-root-url \"ftp://h\": must"),
        (
            with("--log-level", "loud"),
            "invalid --log-level \"loud\": must be one of debug, info, warn, error",
        ),
        (
            with("--max-concurrent-tasks", "1025"),
            "invalid --max-concurrent-tasks \"1025\": must be a whole number from 0 to 1024",
        ),
        (minimal().env("OZ_MAX_CONCURRENT_TASKS", "-1"), "invalid OZ_MAX_CONCURRENT_TASKS \"-1\": must"),
        (
            with("--pull", "sometimes"),
            "invalid --pull \"sometimes\": must be one of auto, always, missing, never",
        ),
        (
            minimal().env("OZ_RECONNECT_MAX_ATTEMPTS", "many"),
            "invalid OZ_RECONNECT_MAX_ATTEMPTS \"many\": must be",
        ),
        (
            minimal().env("OZ_RECONNECT_WINDOW_SECONDS", "1.5"),
            "invalid OZ_RECONNECT_WINDOW_SECONDS \"1.5\": must be",
        ),
        (with("-v", "./x:/x"), "invalid --volumes \"./x:/x\": must begin with"),
        (with("-v", "/x:/agent"), "must not be mounted at /agent"),
        (with("-v", "/x:/y:rx"), "invalid --volumes \"/x:/y:rx\": must have a comma-separated list"),
        (
            with("-e", "NOT_SET_ANYWHERE"),
            "invalid --env \"NOT_SET_ANYWHERE\": must be KEY=VALUE, or the name of a variable that is set",
        ),
        (with("-e", "=MARKER-key"), "invalid --env \"\": must be KEY=VALUE or KEY"),
    ];
    cases.into_iter().for_each(|(builder, expected)| is_refused(builder, expected));
}

#[test]
fn an_invalid_duration_count_or_size_is_named() {
    let with = |flag: &str, value: &str| minimal().args([flag, value]);
    let cases = [
        (with("--max-output", "1023"), "invalid --max-output \"1023\": must be a size from 1024 to 64MiB"),
        (with("--max-output", "65MiB"), "invalid --max-output \"65MiB\": must be"),
        (with("--task-timeout", "8x"), "invalid --task-timeout \"8x\": must be a duration such as 90s"),
        (minimal().env("OZ_DRAIN_TIMEOUT", "8d"), "invalid OZ_DRAIN_TIMEOUT \"8d\": must be"),
        (with("--lost-runs", "keep"), "invalid --lost-runs \"keep\": must be one of stop, finish"),
        (with("--keep-sidecar-volumes", "0"), "must be a whole number from 1 to 1000"),
        (with("--min-free-disk", "1%"), "invalid --min-free-disk \"1%\": must be a size from 0 to"),
    ];
    cases.into_iter().for_each(|(builder, expected)| is_refused(builder, expected));
}

/// Checks for exit code 2 and one line that has `expected` in it.
fn is_refused(builder: WorkerBuilder, expected: &str) {
    let (code, out, err) = end(builder.env("DOCKER_HOST", "unix:///nonexistent").start());
    assert_eq!((code, out.as_str()), (Some(2), ""), "{expected}: {err}");
    assert!(err.starts_with("oz-agent-worker: ") && err.contains(expected), "{expected} is not in {err}");
    assert!(!err.contains("MARKER") && err.lines().count() == 1, "{err}");
}

pub(super) fn write_file(folder: &Path, name: &str, content: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_unusable_key_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let inside_a_file = format!("{}/x", write_file(folder.path(), "plain", b"x"));
    let readable = "must be a file that this user may read";
    let cases = [
        (path("missing"), "cannot read NAME \"PATH\": READABLE: No such file"),
        (write_file(folder.path(), "empty", b""), "invalid first line of NAME: must not be blank"),
        (
            write_file(folder.path(), "late", b"\nMARKER-key\n"),
            "invalid first line of NAME: must not be blank",
        ),
        (
            write_file(folder.path(), "binary", b"MARKER\xff"),
            "cannot read NAME \"PATH\": READABLE: stream did not contain valid UTF-8",
        ),
        (inside_a_file, "cannot read NAME \"PATH\": READABLE: Not a directory"),
        (folder.path().to_str().unwrap().to_owned(), "cannot read NAME \"PATH\": READABLE: Is a directory"),
        ("/dev/zero".to_owned(), "invalid NAME \"PATH\": must be a file of at most 64 KiB"),
    ];
    for (file, expected) in cases {
        let builder = || WorkerBuilder::new(&binary()).args(["--worker-id", &worker_id()]);
        let by_flag = end(builder().args(["--api-key-file", &file]).start());
        let by_variable = end(builder().env("OZ_API_KEY_FILE", &file).start());
        for ((code, _, err), name) in [(by_flag, "--api-key-file"), (by_variable, "OZ_API_KEY_FILE")] {
            assert_eq!(code, Some(2), "{err}");
            let expected =
                expected.replace("NAME", name).replace("PATH", &file).replace("READABLE", readable);
            assert!(err.contains(&expected) && !err.contains("MARKER"), "{expected}: {err}");
        }
    }
}

#[test]
fn variables_alone_are_enough_and_the_key_is_the_first_line_of_the_key_file() {
    let stage = Stage::with(Options { key: KEY.to_owned(), ..Options::default() });
    let folder = tempfile::tempdir().unwrap();
    let file = write_file(folder.path(), "key", format!("\u{feff} {KEY} \r\nanother line\n").as_bytes());
    let builder = WorkerBuilder::new(&binary())
        .env("OZ_API_KEY_FILE", &file)
        .env("OZ_WORKER_ID", &stage.worker_id)
        .env("OZ_WS_URL", &stage.plane.ws_url())
        .env("OZ_PULL", "missing")
        .env("OZ_LOG_LEVEL", "debug")
        .env("OZ_MAX_CONCURRENT_TASKS", "3")
        .env("OZ_SERVER_ROOT_URL", "")
        .env("FROM_HERE", "it's = here")
        .env("DOCKER_HOST", stage.engine.host())
        .args(["-e", "FROM_HERE"]);
    let worker = stage.start(builder);
    let script = r#"while [ "$1" != --server-root-url ]; do shift; done; echo "$2 $FROM_HERE""#;
    let run = stage.run(&stage.spec(script));
    // The root URL is derived from the WebSocket URL, because an empty variable is ignored.
    assert_eq!(run.output, Some(format!("{} it's = here\n", stage.plane.root_url())));
    let log = worker.stderr().all().join("\n");
    assert!(log.contains("slots=3") && log.contains("DEBUG") && !log.contains(KEY), "{log}");
    assert!(!log.contains("without encryption"), "no warning for a loopback address: {log}");
    stage.stop(worker);
}

#[test]
fn a_flag_overrides_its_variable() {
    let stage = Stage::with(Options { key: KEY.to_owned(), ..Options::default() });
    let wrong = [
        ("OZ_API_KEY", "wrong"),
        ("OZ_WORKER_ID", "wrong"),
        ("OZ_WS_URL", "ws://127.0.0.1:1/"),
        ("OZ_SERVER_ROOT_URL", "http://wrong.example"),
        ("OZ_PULL", "always"),
        ("OZ_LOG_LEVEL", "debug"),
        ("OZ_MAX_CONCURRENT_TASKS", "7"),
        ("DOCKER_HOST", stage.engine.host()),
    ];
    let builder = wrong.iter().fold(stage.worker(), |builder, (name, value)| builder.env(name, value));
    let args = ["--api-key", KEY, "--log-level", "info", "--max-concurrent-tasks", "2", "--no-cleanup"];
    let mut worker = stage.start(builder.args(args));
    let run = stage.run(&stage.spec(r#"while [ "$1" != --server-root-url ]; do shift; done; echo "$2""#));
    assert_eq!((run.state, run.output), (State::Succeeded, Some(format!("{}\n", stage.plane.root_url()))));
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0));
    let log = worker.stderr().all().join("\n");
    assert!(
        log.contains("slots=2") && !log.contains("DEBUG") && log.contains("container kept task="),
        "{log}"
    );
    let kept = stage.engine.containers("label", &format!("oz-task-id={}", run.id));
    assert_eq!(
        (kept.len(), kept[0]["State"].as_str()),
        (1, Some("exited")),
        "--no-cleanup keeps the container"
    );
}

/// The order is flag, environment, file; a list in the file has quotes, and the key's file is used although there is a key.
#[test]
fn a_settings_file_is_read_after_flags_and_environment() {
    let folder = tempfile::tempdir().unwrap();
    let key = write_file(folder.path(), "key", b"MARKER-key-of-file\n");
    let text = format!(
        "# a comment\nOZ_API_KEY_FILE={key}\nOZ_WORKER_ID='of the file'\nOZ_LOG_LEVEL=debug\n\
         OZ_VOLUMES=\"/a:/a:ro '/b c:/b'\"\nOZ_TASKTIMEOUT=1h\nOZ_ENGINE_START_TIMEOUT=0\nDOCKER_HOST=unix:///nonexistent/of-file\n"
    );
    let file = write_file(folder.path(), "worker.env", text.as_bytes());
    let start = || WorkerBuilder::new(&binary()).env("OZ_SETTINGS_FILE", &file).env("OZ_API_KEY", KEY);
    let (code, _, err) = end(start().start());
    assert_eq!(code, Some(4), "{err}");
    for part in [
        "worker=\"of the file\"",
        "unix:///nonexistent/of-file",
        "API key not used setting=OZ_API_KEY instead=\"OZ_API_KEY_FILE (",
        "variable not known name=OZ_TASKTIMEOUT nearest=OZ_TASK_TIMEOUT",
        &format!("API key file readable by all users path={key}"),
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    assert!(!err.contains("MARKER"), "{err}");
    let (_, _, err) = end(start().env("OZ_WORKER_ID", "environment").start());
    assert!(err.contains("worker=environment"), "{err}");
    let (_, _, err) = end(start().env("OZ_WORKER_ID", "environment").args(["--worker-id", "flag"]).start());
    assert!(err.contains("worker=flag"), "{err}");

    let bad = write_file(folder.path(), "bad.env", b"A=1\n\nexport OZ_API_KEY=MARKER-key\n");
    let (code, _, err) = end(start().args(["--settings-file", &bad]).start());
    let expected = format!("invalid --settings-file {bad:?}, line 3: must be NAME=VALUE");
    assert!(code == Some(2) && err.contains(&expected) && !err.contains("MARKER"), "{err}");
    let (code, _, err) = end(start().args(["--settings-file", "/nonexistent"]).start());
    assert!(
        code == Some(2) && err.contains("cannot read --settings-file \"/nonexistent\": No such file"),
        "{err}"
    );
}

#[test]
fn all_errors_are_reported_at_once() {
    let worker = minimal().args(["--pull", "x"]).env("OZ_TASK_TIMEOUT", "y").env("OZ_API_KEY", "");
    let (code, _, err) = end(worker.start());
    assert_eq!((code, err.lines().count()), (Some(2), 3), "{err}");
    for part in ["missing API key", "invalid --pull \"x\"", "invalid OZ_TASK_TIMEOUT \"y\""] {
        assert!(err.contains(part), "{err}");
    }
}
