//! Secrets in the pages of a worker, in what `status` shows, and in the log of a failed task's output.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::search::Places;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::{WorkerBuilder, binary};
use crate::worker::monitoring::free_port;

/// Adds every page of a worker.
pub(super) fn read(port: &str, places: &mut Places) {
    for page in ["/", "/metrics", "/healthz", "/readyz", "/status", "/none"] {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(format!("GET {page} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        places.add(page, answer);
    }
}

/// The output of a task is not the worker's: in `--follow` only its own lines are searched, and the report is what it is for.
#[test]
fn neither_the_logged_output_nor_a_page_nor_a_status_has_a_secret() {
    for format in ["text", "json"] {
        let (stage, sync, mut places) = (Stage::new(), SyncDir::new(), Places::default());
        let port = free_port().to_string();
        let args = [
            "--log-format",
            format,
            "--log-level",
            "debug",
            "--log-output-lines",
            "20",
            "--keep-failed",
            "1h",
        ];
        let worker = stage.worker().args(args).args(["--metrics-listen", &port, "-v", &sync.mount()]);
        let worker = stage.start(worker.env("OZ_ENV", "'OP=MARKER-operator \"=x'"));
        let script = "echo \"$TOKEN;$OP\"; printf '%s' \"x$TOKEN\" >&2; echo >> /sync/log; ";
        let mut spec = stage.spec(&format!("{script}{WAIT}; echo \"$LINES\"; exit 3"));
        spec.env_vars.insert("TOKEN".to_owned(), "MARKER-env \u{1b}\"\\".to_owned());
        spec.env_vars.insert("LINES".to_owned(), "MARKER-a\nMARKER-b\n".to_owned());
        let id = stage.plane.submit(spec);
        sync.wait_lines(&stage, 1);
        read(&port, &mut places);
        let status = |args: &[&str]| {
            let all = std::iter::once("status").chain(args.iter().copied());
            let status = WorkerBuilder::new(&binary()).args(all).env("DOCKER_HOST", stage.engine.host());
            status.env("OZ_API_KEY", "MARKER-key").env("OZ_METRICS_LISTEN", &port).start()
        };
        places.end("status", status(&[]));
        places.end("status", status(&["--json"]));
        let mut follow = status(&["--follow", &id]);
        follow.wait_log(DEADLINE, |line| line.contains("following"));
        sync.release(1);
        follow.wait_exit(DEADLINE);
        let own = follow.stderr().all().into_iter().filter(|line| line.contains("oz-agent-worker: "));
        // A line without an end of the task may be in front.
        places.lines(
            "follow",
            own.map(|line| line.split("oz-agent-worker: ").last().unwrap().to_owned()).collect(),
        );
        assert_eq!(stage.plane.wait_ended(&id).exit_code, Some(3));
        worker.wait_log(DEADLINE, |line| line.contains("container kept"));
        places.end("status", status(&["--kept"]));
        worker.wait_log(DEADLINE, |line| line.contains("task output"));
        stage.engine.containers_of(&stage.worker_id).iter().for_each(|container| {
            stage.engine.remove_container(container["Id"].as_str().unwrap());
        });
        let log = worker.stderr().all();
        stage.stop(worker);
        places.lines("log", log);
        places.assert_searched("(hidden)", &["log"]);
        places.assert_searched(&id, &["status", "follow", "log", "/status"]);
        places.assert_clean(&["MARKER"]);
    }
}
