//! The monitoring pages of a running worker, read with curl and by clients that stall, flood and lie.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::notify::Manager;
use crate::support::control_plane::{Disconnect, State};
use crate::support::engine_proxy::EngineProxy;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::worker::{Worker, WorkerBuilder, binary};
use crate::tidy;

/// Returns a port of a loopback address that was free just now.
pub(super) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// The pages of one worker.
pub(super) struct Pages {
    port: u16,
}

impl Pages {
    pub(super) fn new() -> Self {
        Self { port: free_port() }
    }

    pub(super) fn on(&self, worker: WorkerBuilder) -> WorkerBuilder {
        worker.args(["--metrics-listen", &self.port.to_string()])
    }

    /// Returns the status and the body of a page.
    pub(super) fn get(&self, path: &str) -> (u16, String) {
        self.get_from("127.0.0.1", path)
    }

    fn get_from(&self, host: &str, path: &str) -> (u16, String) {
        let url = format!("http://{host}:{}{path}", self.port);
        let output =
            Command::new("curl").args(["-sS", "--max-time", "30", "-w", "\n%{http_code}", &url]).output();
        let output = output.expect("curl");
        assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    pub(super) fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status").1).unwrap()
    }

    /// Returns the value of a series.
    fn value(&self, series: &str) -> f64 {
        let (status, text) = self.get("/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{status}: {series} is missing in\n{text}")).parse().unwrap()
    }

    /// Polls a page until `holds` for its status and body.
    pub(super) fn wait(&self, path: &str, holds: impl Fn(u16, &str) -> bool) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let (status, body) = self.get(path);
            if holds(status, &body) {
                return body;
            }
            assert!(Instant::now() < end, "{path}: {status} {body}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends bytes and returns what comes back until the connection ends.
    fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The worker may have answered and closed already.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }
}

/// Returns the exit code and the output of the sub-command `health`.
fn health(port: u16) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    let output = command.arg("health").env("OZ_METRICS_LISTEN", port.to_string()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn ready(status: u16, _: &str) -> bool {
    status == 200
}

#[test]
fn the_pages_follow_tasks_and_the_connection() {
    let (stage, pages) = (Stage::new(), Pages::new());
    let worker = stage.start(pages.on(stage.worker()).args(["--max-concurrent-tasks", "3"]));
    pages.wait("/readyz", ready);
    assert_eq!(pages.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(health(pages.port), (Some(0), "ok\n".to_owned()));
    assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
    assert_eq!(stage.run(&stage.spec("exit 3")).exit_code, Some(3));
    let waits = stage.plane.submit(stage.spec("trap 'exit 0' TERM; sleep 1000 & wait"));
    stage.wait_running(&waits);
    pages.wait("/status", |_, body| body.contains("\"running\""));
    let status = pages.status();
    let task = &status["tasks"][0];
    assert_eq!((&status["slots"], &status["tasks_active"]), (&3.into(), &1.into()), "{status:#}");
    assert_eq!((&task["task_id"], &task["phase"]), (&waits.as_str().into(), &"running".into()), "{status:#}");
    assert_eq!(
        (&status["state"], &status["worker_id"]),
        (&"connected".into(), &stage.worker_id.as_str().into())
    );
    let expected = [
        ("oz_worker_connected", 1.0),
        ("oz_worker_tasks_active", 1.0),
        ("oz_worker_tasks_max_concurrent", 3.0),
        ("oz_worker_tasks_claimed_total", 3.0),
        ("oz_worker_tasks_completed_total{result=\"succeeded\"}", 1.0),
        ("oz_worker_tasks_completed_total{result=\"failed\"}", 1.0),
        ("oz_worker_task_failures_total{phase=\"backend\",reason=\"container_exit\"}", 1.0),
        ("oz_worker_task_duration_seconds_count{result=\"succeeded\"}", 1.0),
        ("oz_worker_container_start_seconds_count", 3.0),
        ("oz_worker_sidecar_fill_seconds_count", 1.0),
        ("oz_worker_engine_up", 1.0),
    ];
    for (series, value) in expected {
        assert_eq!(pages.value(series), value, "{series}");
    }
    assert!(pages.value("oz_worker_disk_free_bytes") > 0.0 && pages.value("process_open_fds") > 3.0);
    check_with_promtool(&pages.get("/metrics").1);
    stage.plane.cancel(&waits);
    let cancelled = "\noz_worker_tasks_completed_total{result=\"cancelled\"} 1\n";
    pages.wait("/metrics", |_, body| body.contains(cancelled));

    stage.plane.refuse_with(Some(404));
    stage.plane.drop_connections(Disconnect::Rst);
    let reason = "not connected to the control plane: the control plane answered 404";
    pages.wait("/readyz", |status, body| status == 503 && body.starts_with(reason));
    assert_eq!(pages.get("/healthz").0, 200);
    assert_eq!(pages.value("oz_worker_websocket_reconnects_total{reason=\"remote_close\"}"), 1.0);
    assert!(pages.value("oz_worker_websocket_reconnects_total{reason=\"dial_failed\"}") >= 1.0);
    stage.plane.refuse_with(None);
    pages.wait("/readyz", ready);
    stage.stop(worker);
}

fn promtool() -> Command {
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/promtool");
    Command::new(if std::path::Path::new(tool).exists() { tool } else { "promtool" })
}

fn check_with_promtool(text: &str) {
    let mut promtool = promtool();
    let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    let promtool = promtool.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("promtool; run `make setup`");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let printed = [output.stderr, output.stdout].concat();
    assert!(output.status.success() && printed.is_empty(), "{}", String::from_utf8_lossy(&printed));
    for file in ["alerts.yml", "dashboard.json"] {
        let queries = tidy::read(&format!("packaging/monitoring/{file}"));
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let names: Vec<_> =
            queries.split(|c| !is_name(c)).filter(|name| name.starts_with("oz_worker_")).collect();
        assert!(names.len() > 5, "{file}: {names:?}");
        let unknown: Vec<_> = names.iter().filter(|name| !text.contains(&format!("\n{name}"))).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn promtool_accepts_the_alert_rules() {
    let rules = tidy::root().join("packaging/monitoring/alerts.yml");
    let output = promtool().args(["check", "rules"]).arg(rules).output().expect("promtool; run `make setup`");
    let printed =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && printed.contains("SUCCESS: 8 rules found"), "{printed}");
}

#[test]
fn a_client_that_is_not_local_gets_counts_only() {
    let (stage, pages) = (Stage::new(), Pages::new());
    let address = format!("0.0.0.0:{}", pages.port);
    let disk = ["--min-free-disk", "9000TiB"];
    let worker = stage.start(stage.worker().args(["--metrics-listen", &address]).args(disk));
    // Long before the first regular check.
    let soon = Duration::from_secs(30);
    worker.wait_log(soon, |line| {
        line.contains("WARN") && line.contains("disk low reason=\"the engine's disk has")
    });
    let local = pages.wait("/status", |_, body| body.contains("\"connected\": true"));
    assert!(local.contains(&stage.worker_id), "{local}");
    // A page in a browser can have any name resolved to a loopback address.
    let rebound = pages.send(b"GET /status HTTP/1.1\r\nHost: rebound.example:9464\r\n\r\n");
    assert!(rebound.contains("\"slots\"") && !rebound.contains(&stage.worker_id), "{rebound}");
    let rebound = pages.send(b"GET /readyz HTTP/1.1\r\nHost: rebound.example:9464\r\n\r\n");
    assert!(rebound.starts_with("HTTP/1.1 503 ") && rebound.ends_with("\r\n\r\ndisk full\n"), "{rebound}");
    stage.stop(worker);
}

#[test]
fn a_worker_without_an_engine_says_why_it_is_not_ready() {
    let (stage, pages) = (Stage::new(), Pages::new());
    let worker = pages.on(stage.worker()).env("DOCKER_HOST", "unix:///nonexistent/docker.sock").start();
    worker.wait_log(DEADLINE, |line| line.contains("waiting for the engine"));
    let body = pages.wait("/readyz", |status, body| status == 503 && body != "starting\n");
    assert!(body.starts_with("waiting for the engine: the docker engine at unix:///nonexistent"), "{body}");
    assert_eq!(pages.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!((pages.value("oz_worker_engine_up"), pages.value("oz_worker_connected")), (0.0, 0.0));
    assert_eq!(pages.status()["state"], "starting");
}

/// A service manager's watchdog makes the check more frequent than once a minute.
#[test]
fn an_engine_that_goes_while_the_worker_is_idle_is_noticed() {
    let proxy = EngineProxy::start(&crate::support::engine::host());
    let stage = Stage::new();
    let (pages, manager) = (Pages::new(), Manager::new());
    let worker = pages.on(stage.worker()).env("DOCKER_HOST", &proxy.host());
    let worker = worker.env("NOTIFY_SOCKET", &manager.address()).env("WATCHDOG_USEC", "600000");
    let worker = stage.start(worker);
    pages.wait("/readyz", ready);
    let socket = std::path::PathBuf::from(proxy.host().strip_prefix("unix://").unwrap());
    let away = socket.with_extension("away");
    std::fs::rename(&socket, &away).unwrap();
    worker.wait_log(DEADLINE, |line| line.contains("WARN") && line.contains("engine away tasks=0 error="));
    assert_eq!(pages.get("/readyz").0, 503);
    let status =
        manager.until_line(|line| line.starts_with("STATUS=connected, tasks: 0 of ") && line.contains("; "));
    assert!(status.contains(&"WATCHDOG=1".to_owned()), "{status:?}");
    assert_eq!(
        (pages.value("oz_worker_engine_up"), pages.value("oz_worker_engine_outages_total")),
        (0.0, 1.0)
    );
    std::fs::rename(&away, &socket).unwrap();
    worker.wait_log(DEADLINE, |line| line.contains("engine back"));
    pages.wait("/readyz", ready);
    assert!(pages.value("oz_worker_engine_outage_seconds_total") > 0.0);
    stage.stop(worker);
}

#[test]
fn an_address_that_cannot_be_used_ends_the_worker_and_one_in_use_does_not() {
    let stage = Stage::new();
    let cases = [
        ("192.0.2.1:9464", "invalid --metrics-listen 192.0.2.1:9464: must be an address of this host"),
        ("example.com:80", "invalid --metrics-listen \"example.com:80\": must be ADDR:PORT"),
    ];
    for (address, expected) in cases {
        let mut worker = stage.worker().args(["--metrics-listen", address]).start();
        let code = worker.wait_exit(DEADLINE).code();
        let log = worker.stderr().all().join("\n");
        assert!(code == Some(2) && log.contains(expected), "{code:?} {log}");
    }
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let worker = stage.start(stage.worker().args(["--metrics-listen", &address]));
    let line = worker.wait_log(DEADLINE, |line| line.contains("metrics not served"));
    let expected = format!("address={address} retry_in=30s error=\"Address");
    assert!(line.contains("WARN") && line.contains(&expected), "{line}");
    assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
    stage.stop(worker);
}

/// Returns a number from `/proc/PID/status`.
fn of_proc(worker: &Worker, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

fn open_files(worker: &Worker) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", worker.id())).unwrap().count()
}

#[test]
fn clients_that_stall_flood_or_lie_hurt_nobody() {
    let (stage, pages) = (Stage::new(), Pages::new());
    let worker = stage.start(pages.on(stage.worker()));
    pages.wait("/readyz", ready);
    assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
    let before = (open_files(&worker), of_proc(&worker, "VmRSS"), of_proc(&worker, "Threads"));

    // They stall: some send nothing, some a part, and some do not read.
    let stalled: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = pages.connect();
            let part: &[u8] = match number % 3 {
                0 => b"",
                1 => b"GET /metrics HTTP/1.1\r\nHost:",
                _ => b"GET /metrics HTTP/1.1\r\n\r\n",
            };
            // The oldest connections are closed for new ones.
            let _ = stream.write_all(part);
            stream
        })
        .collect();
    assert_eq!(pages.get("/healthz").0, 200);
    // At most 32 clients and some files of the check and of look-ups.
    assert!(open_files(&worker) <= before.0 + 40, "{} files, {before:?}", open_files(&worker));
    assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);

    lie(&pages);

    // They flood: many requests at once, and bodies that do not end.
    let floods = flood(pages.port);
    assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
    assert!(pages.get("/metrics").1.contains("\noz_worker_tasks_completed_total{result=\"succeeded\"} 3\n"));
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    drop(stalled);
    pages.wait("/readyz", ready);
    let after = (open_files(&worker), of_proc(&worker, "VmRSS"), of_proc(&worker, "Threads"));
    assert!(after.1 < before.1 + 8 * 1024, "{before:?} {after:?}, memory in KiB");
    assert!(after.2 <= before.2 + 1, "{before:?} {after:?}");
    stage.wait("the files are closed", || open_files(&worker) <= before.0 + 2);
    stage.stop(worker);
}

/// About the method, the length, the version and the protocol, and with heads without an end.
fn lie(pages: &Pages) {
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(1 << 20));
    let endless = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(100_000));
    let lies: [(&[u8], &str); 7] = [
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\nx", "HTTP/1.1 405 "),
        (
            b"GET /metrics HTTP/1.1\r\nContent-Length: 99999\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 ",
        ),
        (b"GET /metrics HTTP/7.7\r\n\r\n", "HTTP/1.1 400 "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "HTTP/1.1 400 "),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", "HTTP/1.1 404 "),
        (long.as_bytes(), "HTTP/1.1 431 "),
        (endless.as_bytes(), "HTTP/1.1 431 "),
    ];
    for (bytes, expected) in lies {
        let answer = pages.send(bytes);
        // A client that still sends may lose the answer.
        assert!(answer.starts_with(expected) || (answer.is_empty() && bytes.len() > 10_000), "{answer:?}");
    }
}

/// Starts clients that flood for two seconds.
fn flood(port: u16) -> Vec<std::thread::JoinHandle<()>> {
    (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let end = Instant::now() + Duration::from_secs(2);
                while Instant::now() < end {
                    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                    let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
                    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
                    let _ = stream.write_all(&[b'x'; 100_000]);
                }
            })
        })
        .collect()
}
