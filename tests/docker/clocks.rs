//! How long an adopted task has run, for engines and machines whose clocks are wrong or were changed.

use std::time::Duration;

use oz_agent_worker::docker::Endpoint;
use oz_agent_worker::sys::cancel::CancelToken;
use oz_agent_worker::task::adopt;
use oz_agent_worker::task::processes::Processes;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

use crate::support::fake_docker::{FakeDocker, Script, client, hello, json, write};
use crate::support::stage::container_name;

const HOUR: Duration = Duration::from_secs(60 * 60);
/// How long the container has run.
const RAN: Duration = Duration::from_secs(3);
/// How much a test may take.
const MARGIN: Duration = Duration::from_secs(120);

/// Where an engine shows its time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shows {
    Date,
    SystemTime,
    Nothing,
}

/// Returns the answers of an engine at `time`: to a connecting client, and to the search for tasks, of which there is one that
/// was started at `started`.
fn answers(shows: Shows, time: OffsetDateTime, started: OffsetDateTime) -> Vec<Script> {
    let text = time.format(&Rfc3339).unwrap();
    let system_time = if shows == Shows::SystemTime { json!(text) } else { json!(null) };
    let info = json!({"NCPU": 4, "SystemTime": system_time}).to_string();
    let date = time.format(&Rfc2822).unwrap().replace("+0000", "GMT");
    let date = if shows == Shows::Date { format!("Date: {date}\r\n") } else { String::new() };
    let info = format!("HTTP/1.1 200 OK\r\n{date}Content-Length: {}\r\n\r\n{info}", info.len());
    let labels = json!({"oz-worker-id": "w", "oz-task-id": "t"});
    let name = format!("/{}", container_name("w", "t", None));
    let id = "f".repeat(64);
    let list = json!([{"Id": id, "Names": [name], "Labels": labels, "State": "running"}]);
    let started = started.format(&Rfc3339).unwrap();
    let state = json!({"Status": "running", "Running": true, "StartedAt": started});
    let container =
        json!({"Id": id, "Name": name, "Image": "i", "Config": {"Labels": labels}, "State": state});
    let mut answers = hello("1.41");
    answers.pop();
    answers.push(vec![write(&info)]);
    answers.push(vec![json(200, r#"{"Volumes":[]}"#)]);
    answers.push(vec![json(200, &list.to_string())]);
    answers.push(vec![json(200, &container.to_string())]);
    answers
}

/// Returns how long the task has run when a worker adopts it.
fn ran(fake: &FakeDocker) -> Duration {
    let docker = client(&CancelToken::new(), fake.endpoint().clone(), None).unwrap();
    let found = adopt::find(&docker, &CancelToken::new(), "w", &Processes::without_lock("p")).unwrap();
    assert_eq!(found.tasks.len(), 1);
    found.tasks[0].ran.expect("it is running")
}

#[test]
fn an_adopted_task_is_as_old_as_the_engine_s_clock_says() {
    let own = OffsetDateTime::now_utc();
    for (shows, ahead) in [
        (Shows::Date, -2 * time::Duration::HOUR),
        (Shows::SystemTime, -2 * time::Duration::HOUR),
        (Shows::Date, 2 * time::Duration::HOUR),
        (Shows::Nothing, time::Duration::ZERO),
    ] {
        let time = own + ahead;
        let fake = FakeDocker::start_tcp(answers(shows, time, time - RAN));
        let ran = ran(&fake);
        // `Date` has whole seconds.
        assert!(ran + Duration::from_secs(1) >= RAN && ran < RAN + MARGIN, "{ahead}: {ran:?}");
    }
}

/// The clock was corrected after the container was started.
#[test]
fn a_container_of_this_machine_is_not_older_than_its_boot() {
    let now = OffsetDateTime::now_utc();
    let started = now - time::Duration::days(365 * 30);
    let fake = FakeDocker::start(answers(Shows::Date, now, started));
    assert!(matches!(fake.endpoint(), Endpoint::Unix(_)));
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
    assert!(ran(&fake) < Duration::from_secs_f64(uptime) + MARGIN);
    // Nothing is known about another machine.
    let fake = FakeDocker::start_tcp(answers(Shows::Date, now, started));
    assert!(ran(&fake) > 24 * HOUR);
}
