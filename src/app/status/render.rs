//! The status as text and as JSON. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::app::disk::readable;
use crate::logging::value;
use crate::task::listing::{Listed, ListedTask};

/// The head of the table of tasks.
const COLUMNS: [&str; 9] =
    ["TASK", "EXECUTION", "STATE", "AGE", "CPU", "MEMORY", "WORKER", "IMAGE", "CONTAINER"];

/// All that is shown.
pub(super) struct Report {
    /// `None` if it cannot be used.
    pub(super) engine: Option<EngineView>,
    /// Why not.
    pub(super) error: Option<String>,
    /// Which containers `tasks` are.
    pub(super) listed: Listed,
    pub(super) tasks: Vec<Row>,
    pub(super) workers: Vec<WorkerView>,
    pub(super) daemons: Vec<DaemonView>,
}

/// The engine that was asked.
pub(super) struct EngineView {
    pub(super) address: String,
    pub(super) version: String,
    pub(super) api: String,
}

/// A task, and what it uses now.
pub(super) struct Row {
    pub(super) task: ListedTask,
    /// Of one processor; `None` if unknown.
    pub(super) cpu_percent: Option<f64>,
    /// In bytes; `None` if unknown.
    pub(super) memory: Option<u64>,
}

/// A worker, and its processes on this host.
pub(super) struct WorkerView {
    pub(super) worker_id: String,
    pub(super) processes: Vec<String>,
}

/// What a worker reports about itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DaemonView {
    /// Where it says so: a service, or a URL.
    pub(super) source: String,
    /// Text, or the fields of a JSON object.
    pub(super) says: Value,
}

impl Report {
    /// Returns the name of the list of containers.
    fn name(&self) -> &'static str {
        match self.listed {
            Listed::Tasks => "tasks",
            Listed::Kept => "kept",
        }
    }

    /// Returns the text, with a final line break.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        if let Some(EngineView { address, version, api }) = &self.engine {
            let (address, version) = (value(address), value(version));
            let (name, count) = (self.name(), self.tasks.len());
            let _ = writeln!(text, "engine  {address} version={version} api={api} {name}={count}");
        }
        for WorkerView { worker_id, processes } in &self.workers {
            let pids = match processes.join(",") {
                pids if pids.is_empty() => "not on this host, or in another network namespace".to_owned(),
                pids => format!("pid={pids}"),
            };
            let _ = writeln!(text, "worker  {} {pids}", value(worker_id));
        }
        for DaemonView { source, says } in &self.daemons {
            let _ = writeln!(text, "daemon  {} {}", value(source), fields(says));
        }
        if !self.tasks.is_empty() {
            text.push('\n');
            let rows = self.tasks.iter().map(Row::cells);
            let rows: Vec<_> = std::iter::once(COLUMNS.map(str::to_owned)).chain(rows).collect();
            text.push_str(&table(&rows));
        }
        text
    }

    /// Returns one JSON object, with a final line break.
    pub(super) fn json(&self) -> String {
        let engine = self
            .engine
            .as_ref()
            .map(|engine| json!({ "address": engine.address, "version": engine.version, "api": engine.api }));
        let worker = |worker: &WorkerView| {
            let pids: Vec<_> = worker.processes.iter().filter_map(|pid| pid.parse::<u32>().ok()).collect();
            json!({ "worker_id": worker.worker_id, "pids": pids })
        };
        let daemon = |daemon: &DaemonView| json!({ "source": daemon.source, "says": daemon.says });
        let object = json!({
            "engine": engine,
            "error": self.error,
            "workers": self.workers.iter().map(worker).collect::<Vec<_>>(),
            "daemons": self.daemons.iter().map(daemon).collect::<Vec<_>>(),
            self.name(): self.tasks.iter().map(Row::json).collect::<Vec<_>>(),
        });
        format!("{object:#}\n")
    }
}

impl Row {
    fn cells(&self) -> [String; 9] {
        let Self { task, cpu_percent, memory } = self;
        let shown = |text: &str| value(text).to_string();
        let unknown = || "-".to_owned();
        [
            shown(&task.key.task_id),
            task.key.execution_id.as_deref().map_or_else(unknown, shown),
            shown(&task.state),
            age(task.age),
            cpu_percent.map_or_else(unknown, |percent| format!("{percent:.0}%")),
            memory.map_or_else(unknown, readable),
            shown(&task.worker_id),
            shown(&task.image),
            shown(&task.container),
        ]
    }

    fn json(&self) -> Value {
        let Self { task, cpu_percent, memory } = self;
        json!({
            "task_id": task.key.task_id,
            "execution_id": task.key.execution_id,
            "worker_id": task.worker_id,
            "state": task.state,
            "age_s": task.age.as_secs(),
            "image": task.image,
            "container": task.container,
            "id": task.id,
            "cpu_percent": cpu_percent.map(|percent| (percent * 10.0).round() / 10.0),
            "memory_bytes": memory,
        })
    }
}

/// Returns the columns aligned, two spaces apart.
fn table(rows: &[[String; 9]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Returns the two largest units of a time, rounded down.
fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Returns a text as it is on one line, and an object as `key=value` with the keys of what it contains behind dots.
fn fields(says: &Value) -> String {
    fn add(name: &str, says: &Value, found: &mut Vec<String>) {
        let shown = match says {
            Value::Object(inner) => {
                let dot = if name.is_empty() { "" } else { "." };
                return inner.iter().for_each(|(key, says)| add(&format!("{name}{dot}{key}"), says, found));
            }
            Value::String(text) => value(text).to_string(),
            Value::Null => return,
            // The table has the tasks.
            Value::Array(list) if list.is_empty() || list.iter().any(Value::is_object) => return,
            Value::Array(list) => {
                let texts: Vec<_> = list.iter().map(|text| text.as_str().unwrap_or_default()).collect();
                value(&texts.join("; ")).to_string()
            }
            other => value(&other.to_string()).to_string(),
        };
        found.push(if name.is_empty() { shown } else { format!("{name}={shown}") });
    }
    let mut found = Vec::new();
    add("", says, &mut found);
    found.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ExecutionKey;

    fn row(task_id: &str, execution: Option<&str>) -> Row {
        let task = ListedTask {
            key: ExecutionKey::new(task_id, execution),
            worker_id: "w 1".into(),
            state: "running".into(),
            age: Duration::from_secs(3725),
            image: "ubuntu:22.04".into(),
            container: "oz-task-a".into(),
            id: "a".repeat(64),
        };
        Row { task, cpu_percent: Some(12.34), memory: Some(5 << 20) }
    }

    fn seen() -> Report {
        let engine = EngineView { address: "unix:///s".into(), version: "20.10".into(), api: "1.41".into() };
        let worker = |worker_id: &str, processes: &[&str]| WorkerView {
            worker_id: worker_id.into(),
            processes: processes.iter().map(|pid| (*pid).to_owned()).collect(),
        };
        let daemon = |source: &str, says| DaemonView { source: source.into(), says };
        Report {
            engine: Some(engine),
            error: None,
            listed: Listed::Tasks,
            tasks: vec![row("t", Some("e")), Row { cpu_percent: None, memory: None, ..row("a\nb", None) }],
            workers: vec![worker("w 1", &["12"]), worker("x", &[])],
            daemons: vec![
                daemon("oz-agent-worker.service", json!("connected, tasks: 1")),
                daemon(
                    "http://127.0.0.1:9464",
                    json!({ "link": "up", "disk": { "free": 5, "why": null }, "reasons": ["a", "b c"], "tasks": [{}] }),
                ),
            ],
        }
    }

    #[test]
    fn the_text_is_a_line_for_each_part_and_an_aligned_table() {
        let expected = r#"engine  unix:///s version=20.10 api=1.41 tasks=2
worker  "w 1" pid=12
worker  x not on this host, or in another network namespace
daemon  oz-agent-worker.service "connected, tasks: 1"
daemon  http://127.0.0.1:9464 disk.free=5 link=up reasons="a; b c"

TASK    EXECUTION  STATE    AGE    CPU  MEMORY  WORKER  IMAGE         CONTAINER
t       e          running  1h02m  12%  5 MiB   "w 1"   ubuntu:22.04  oz-task-a
"a\nb"  -          running  1h02m  -    -       "w 1"   ubuntu:22.04  oz-task-a
"#;
        assert_eq!(seen().text(), expected);
    }

    #[test]
    fn the_json_has_the_same() {
        let object: Value = serde_json::from_str(&seen().json()).unwrap();
        assert_eq!(object["engine"], json!({ "address": "unix:///s", "version": "20.10", "api": "1.41" }));
        assert_eq!(object["workers"][0], json!({ "worker_id": "w 1", "pids": [12] }));
        assert_eq!(object["daemons"][0]["says"], "connected, tasks: 1");
        let task = &object["tasks"][0];
        assert_eq!((&task["task_id"], &task["execution_id"]), (&json!("t"), &json!("e")));
        assert_eq!((&task["age_s"], &task["cpu_percent"]), (&json!(3725), &json!(12.3)));
        assert_eq!((&task["memory_bytes"], &object["error"]), (&json!(5 << 20), &Value::Null));
        assert_eq!(object["tasks"][1]["memory_bytes"], Value::Null);
        let kept = Report { listed: Listed::Kept, ..seen() };
        let object: Value = serde_json::from_str(&kept.json()).unwrap();
        assert!(object["kept"][0]["task_id"] == "t" && object.get("tasks").is_none());
        assert!(kept.text().starts_with("engine  unix:///s version=20.10 api=1.41 kept=2\n"));
    }

    #[test]
    fn without_an_engine_there_is_no_table() {
        let seen = Report { engine: None, error: Some("gone".into()), tasks: Vec::new(), ..seen() };
        let (text, object) = (seen.text(), serde_json::from_str::<Value>(&seen.json()).unwrap());
        assert!(text.starts_with("worker  ") && !text.contains("TASK"), "{text}");
        assert_eq!((&object["engine"], &object["error"]), (&Value::Null, &json!("gone")));
    }

    #[test]
    fn a_time_has_its_two_largest_units() {
        let cases =
            [(0, "0s"), (59, "59s"), (60, "1m00s"), (3599, "59m59s"), (86_399, "23h59m"), (90_000, "1d01h")];
        for (seconds, expected) in cases {
            assert_eq!(age(Duration::from_secs(seconds)), expected);
        }
    }
}
