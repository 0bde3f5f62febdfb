//! The log in JSON, and on a journal. That text is logfmt is checked of every worker of every test, when it ends.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

use crate::support::control_plane::State;
use crate::support::logfmt;
use crate::support::stage::{DEADLINE, Stage, StageBuilder};
use crate::support::worker::binary;

/// Returns a stage whose workers have `JOURNAL_STREAM` as systemd sets it for their stderr, if `expression` is `%d:%i`.
fn on_journal(folder: &Path, expression: &str) -> Stage {
    let wrapper = folder.join("worker");
    let script = format!(
        "#!/bin/sh\nJOURNAL_STREAM=$(stat -L -c {expression} /dev/stderr)\nexport JOURNAL_STREAM\nexec {} \"$@\"",
        binary().display()
    );
    // A shell writes it: a program that another thread of the tests holds open for writing cannot be started.
    let write = format!("cat >\"$0\" <<'END'\n{script}\nEND\nchmod 755 \"$0\"");
    assert!(Command::new("/bin/sh").args(["-c", &write]).arg(&wrapper).status().unwrap().success());
    StageBuilder::new("journal").binary(&wrapper).build()
}

/// Returns the fields of each line, all of which are text.
fn objects(lines: &[String]) -> Vec<Map<String, Value>> {
    let object = |line: &String| match serde_json::from_str(line) {
        Ok(Value::Object(object)) if object.values().all(Value::is_string) => object,
        other => panic!("{other:?}: {line}"),
    };
    lines.iter().map(object).collect()
}

#[test]
fn every_line_in_json_is_one_object_with_the_fields_of_the_text() {
    let stage = Stage::new();
    let args = ["--log-format", "json", "--log-output-lines", "1", "--log-level", "debug"];
    let worker = stage.start(stage.worker().args(args));
    assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
    let odd = r#"printf 'level=x "a\\b" \033[1m\001\377\303\274 = end'; exit 3"#;
    assert_eq!(stage.run(&stage.spec(odd)).exit_code, Some(3));
    worker.wait_log(DEADLINE, |line| line.contains("task output"));
    let lines = worker.stderr().all();
    stage.stop(worker);
    let objects = objects(&lines);
    for object in &objects {
        let get = |field: &str| object[field].as_str().unwrap();
        assert!(get("time").len() == 24 && get("time").ends_with('Z'), "{object:?}");
        assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&get("level")), "{object:?}");
        assert!(get("target").starts_with("oz_agent_worker::"), "{object:?}");
        assert!(!get("message").contains(['=', '"']), "{object:?}");
        let is_message_of_text = get("message").starts_with(|c: char| c.is_alphabetic());
        assert!(is_message_of_text, "{object:?}");
    }
    let of = |message: &str| objects.iter().filter(|object| object["message"] == message).collect::<Vec<_>>();
    let ended = of("task ended");
    assert_eq!((ended.len(), &ended[0]["level"], &ended[1]["level"]), (2, &"INFO".into(), &"WARN".into()));
    assert_eq!((&ended[1]["exit_code"], &ended[1]["reason"]), (&"3".into(), &"container_exit".into()));
    assert!(ended[1]["task"].as_str().unwrap().len() > 8);
    let output = of("task output");
    assert_eq!(output[0]["line"], "level=x \"a\\b\" \u{1b}[1m\u{1}\u{fffd}ü = end");
}

/// As a service: the journal has the time and takes the level from the beginning of the line.
#[test]
fn on_a_journal_a_line_has_a_priority_and_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let stage = on_journal(folder.path(), "%d:%i");
    let worker = stage.start_worker();
    assert_eq!(stage.run(&stage.spec("exit 3")).exit_code, Some(3));
    worker.wait_log(DEADLINE, |line| {
        line.starts_with("<4>WARN  [oz_agent_worker::task") && line.contains("task ended")
    });
    for line in worker.stderr().all() {
        let (priority, rest) = line.split_at(3);
        let (level, rest) = rest.split_at(6);
        let expected = ["<3>ERROR ", "<4>WARN  ", "<6>INFO  "];
        assert!(expected.contains(&format!("{priority}{level}").as_str()), "{line}");
        let (_, event) = rest.split_once("] ").unwrap();
        logfmt::parse(event).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    stage.stop(worker);

    let worker = stage.start(stage.worker().args(["--log-format", "json"]));
    let lines = worker.stderr().all();
    let lines: Vec<_> = lines.iter().map(|line| line.strip_prefix("<6>").unwrap().to_owned()).collect();
    assert!(objects(&lines).iter().all(|object| !object.contains_key("time") && object["level"] == "INFO"));
    stage.stop(worker);

    // Also before the settings are known.
    let mut worker = stage.worker().args(["--pull", "sometimes", "--api-kex", "x"]).start();
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(2));
    assert!(worker.stderr().all().iter().all(|line| line.starts_with("<3>oz-agent-worker: ")));
}

/// Stderr was redirected after systemd had opened the journal.
#[test]
fn a_stream_that_is_not_the_journals_has_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let stage = on_journal(folder.path(), "%d:1%i");
    let worker = stage.start_worker();
    let lines = worker.stderr().all();
    assert!(!lines.is_empty() && lines.iter().all(|line| logfmt::event(line).is_some()), "{lines:#?}");
    stage.stop(worker);
}
