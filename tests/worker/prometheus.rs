//! Debian's Prometheus, which scrapes a worker with tasks: every query of the dashboard and of the alert rules has data.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::monitoring::free_port;
use crate::support::control_plane::State;
use crate::support::process::Process;
use crate::support::stage::{DEADLINE, Stage};
use crate::tidy;

/// What stands for the dashboard's window and variables.
const VARIABLES: [(&str, &str); 3] = [("$__rate_interval", "30s"), ("$instance", ".*"), ("$job", ".*")];

/// What separates the parts of a query that have data also if an alert does not fire.
const OPERATORS: [&str; 8] = [" and ", " or on (instance) ", " == ", " >= ", " <= ", " > ", " < ", " / "];

struct Prometheus {
    process: Process,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it with the alert rules. It scrapes this port often.
    fn start(scraped: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = tidy::root().join("packaging/monitoring/alerts.yml");
        let config = format!(
            "global: {{scrape_interval: 250ms, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n\
             - {{job_name: oz, static_configs: [{{targets: ['127.0.0.1:{scraped}']}}]}}\n",
            rules.display()
        );
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let port = free_port();
        let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/prometheus");
        let mut command = Command::new(if Path::new(tool).exists() { tool } else { "prometheus" });
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        Self { process: Process::spawn(&mut command, None), port, _folder: folder }
    }

    /// Returns the answer to a request of the API, or `None` while it does not answer.
    fn get(&self, path: &str, query: &str) -> Option<Value> {
        let mut command = Command::new("curl");
        let url = format!("http://127.0.0.1:{}/api/v1/{path}", self.port);
        command.args(["-sS", "--max-time", "30", "-G", "--data-urlencode", &format!("query={query}"), &url]);
        let output = command.output().expect("curl");
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Returns how many series a query has.
    fn series(&self, query: &str) -> usize {
        let answer = self.get("query", query).unwrap_or_default();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().map_or(1, Vec::len)
    }

    fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + DEADLINE;
        while !holds() {
            assert!(Instant::now() < end, "{what}:\n{}", self.process.stderr().all().join("\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Returns every value of this key in a JSON document.
fn values<'a>(document: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match document {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|inner| values(inner, key, found));
        }
        Value::Array(list) => list.iter().for_each(|inner| values(inner, key, found)),
        _ => {}
    }
}

#[test]
fn every_query_of_the_dashboard_and_of_the_alerts_has_data_of_a_worker_under_load() {
    let (stage, port) = (Stage::new(), free_port());
    let args = ["--metrics-listen", &port.to_string(), "--max-concurrent-tasks", "2"];
    let worker = stage.start(stage.worker().args(args));
    let prometheus = Prometheus::start(port);
    let is_scraped = || {
        prometheus
            .get("query", "oz_worker_connected")
            .is_some_and(|answer| answer["data"]["result"][0].is_object())
    };
    prometheus.wait("the worker is scraped", is_scraped);
    let scripts = ["true", "exit 3"].into_iter().cycle().take(10);
    let tasks: Vec<_> = scripts.map(|script| stage.plane.submit(stage.spec(script))).collect();
    for task in &tasks {
        assert_ne!(stage.plane.wait_ended(task).state, State::InProgress);
    }
    let ended = "sum(increase(oz_worker_tasks_completed_total[1m])) > 5";
    prometheus.wait("the tasks are seen", || prometheus.series(ended) == 1);

    let dashboard: Value = serde_json::from_str(&tidy::read("packaging/monitoring/dashboard.json")).unwrap();
    let mut queries = Vec::new();
    values(&dashboard, "expr", &mut queries);
    let rules = prometheus.get("rules", "").unwrap();
    let mut expressions = Vec::new();
    values(&rules, "query", &mut expressions);
    assert!(queries.len() > 20 && expressions.len() == 8, "{queries:?} {expressions:?}");
    for query in queries.into_iter().chain(expressions) {
        let query =
            VARIABLES.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
        prometheus.series(&query);
        let parts = OPERATORS.iter().fold(vec![query.as_str()], |parts, operator| {
            parts.into_iter().flat_map(|part| part.split(operator)).collect()
        });
        let parts = parts.into_iter().filter(|part| part.contains("oz_worker_") || part.contains("process_"));
        for part in parts {
            assert!(prometheus.series(part) > 0, "no data: {part} of {query}");
        }
    }
    prometheus.wait("every rule is evaluated without an error", || {
        let (rules, mut health) = (prometheus.get("rules", "").unwrap_or_default(), Vec::new());
        values(&rules, "health", &mut health);
        health.len() == 8 && health.iter().all(|health| *health == "ok")
    });
    stage.stop(worker);
}
