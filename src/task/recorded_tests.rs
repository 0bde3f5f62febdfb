//! The command line, environment, mounts and limits of every assignment that was recorded of the worker which the public control plane
//! documents, and of some at the old control plane.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::*;
use crate::protocol::{EncodedReport, Incoming, Outgoing, Report, RunResult, decode, encode};

/// The recorded assignments, and those of the old control plane.
const UPSTREAM: &str = include_str!("../../tests/data/upstream-tasks.json");
const OLD: &str = include_str!("../../tests/data/old-tasks.json");

type Entry<'a> = BTreeMap<String, &'a RawValue>;

fn entries(text: &str) -> Vec<Entry<'_>> {
    let file: BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap();
    serde_json::from_str(file["tasks"].get()).unwrap()
}

fn get(entry: &Entry<'_>, name: &str) -> Value {
    entry.get(name).map_or(Value::Null, |value| serde_json::from_str(value.get()).unwrap())
}

fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// The frame with the assignment.
fn frame(entry: &Entry<'_>) -> String {
    let mut data = entry["data"].get().to_owned();
    if let Some(servers) = get(entry, "raw_servers").as_str() {
        data = data.replace("\"RAW\"", servers);
    }
    format!(r#"{{"type":"task_assignment","data":{data}}}"#)
}

/// The operator's settings.
fn settings(entry: &Entry<'_>) -> TaskSettings {
    let operator = get(entry, "operator");
    let text = |name: &str| operator[name].as_str().map(str::to_owned);
    let variable = |pair: String| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), Secret::new(value))
    };
    let volume = |bind: String| {
        let (host, container) = bind.split_once(':').unwrap();
        VolumeBind { host: host.into(), container: container.into(), mode: String::new() }
    };
    TaskSettings {
        worker_id: "w1".into(),
        server_root_url: text("root_url").unwrap_or_else(|| "http://cp.example.test:8080".into()),
        volumes: texts(&operator["volumes"]).into_iter().map(volume).collect(),
        env: texts(&operator["variables"]).into_iter().map(variable).collect(),
        default_image: Reference::parse("ubuntu:22.04").unwrap(),
        idle_on_complete: text("idle"),
        session_sharing_server_url: text("session_url"),
        ..TaskSettings::plain()
    }
}

fn exposed(secrets: &[Secret]) -> Vec<String> {
    secrets.iter().map(|secret| secret.expose().to_owned()).collect()
}

/// The plan of an entry, or the reason with which the assignment is failed on the wire.
fn planned(entry: &Entry<'_>, host: Option<Dialect>) -> Result<Plan, String> {
    let failed = |key, dialect, result| {
        let report = Report { result, ..Report::failed(key, dialect, FailureReason::Internal, "") };
        let report = EncodedReport::new(report, "w1");
        let frame: Value = serde_json::from_str(&encode(&Outgoing::Report(Arc::new(report)), "w1")).unwrap();
        frame["data"]["failure_reason"].as_str().unwrap().to_owned()
    };
    let reason = FailureReason::InvalidAssignment;
    match decode(&frame(entry), host) {
        Ok(Incoming::Assignment(assignment)) => plan(&assignment, &settings(entry), 4).map_err(|error| {
            let PlanError { step, message } = error;
            let result = RunResult::Failed { reason, step, message, exit_code: None };
            failed(&assignment.key, assignment.dialect, result)
        }),
        Ok(other) => panic!("{other:?}"),
        Err(invalid) => {
            let result =
                RunResult::Failed { reason, step: reason, message: invalid.message, exit_code: None };
            Err(failed(&invalid.key.unwrap(), invalid.dialect, result))
        }
    }
}

/// Whether the plan is as recorded.
fn is_as_recorded(entry: &Entry<'_>, plan: &Result<Plan, String>, script: &[&str]) -> Result<(), String> {
    let plan = match (plan, get(entry, "fails").as_str()) {
        (Err(reason), Some(expected)) if reason == expected => return Ok(()),
        (Ok(_), Some(_)) if get(entry, "decided_by") == "engine" => return Ok(()),
        (Ok(plan), None) => plan,
        (plan, expected) => return Err(format!("{:?} is not {expected:?}", plan.as_ref().err())),
    };
    let command: Vec<_> = script.iter().map(|word| (*word).to_owned()).chain(exposed(&plan.args)).collect();
    let mut environment = exposed(&plan.env);
    environment.sort();
    let mode = |sidecar: &SidecarMount| if sidecar.read_write { "rw" } else { "ro" };
    let mounts: Vec<_> = plan.sidecars.iter().map(|one| json!([one.mount_path, mode(one)])).collect();
    let limits =
        json!({"nano_cpus": plan.limits.nano_cpus.unwrap_or(0), "memory": plan.limits.memory.unwrap_or(0)});
    let or = |name, default| Some(get(entry, name)).filter(|value| !value.is_null()).unwrap_or(default);
    let binds = texts(&get(entry, "operator")["volumes"]);
    for (what, found, expected) in [
        ("command", json!(command), get(entry, "command")),
        ("environment", json!(environment), get(entry, "environment")),
        ("mounts", json!(mounts), or("mounts", json!([]))),
        ("limits", limits, or("limits", json!({"nano_cpus": 0, "memory": 0}))),
        ("binds", json!(plan.binds), json!(binds)),
    ] {
        if found != expected {
            return Err(format!("{what}: {found} is not {expected}"));
        }
    }
    Ok(())
}

#[test]
fn every_recorded_assignment_has_the_recorded_plan() {
    let host = Dialect::of_host("oz.warp.dev");
    let entries = entries(UPSTREAM);
    let mut differ = 0;
    for entry in &entries {
        let name = get(entry, "name");
        let compared = is_as_recorded(entry, &planned(entry, host), &["/agent/entrypoint.sh"]);
        match get(entry, "differs").as_str() {
            None => assert_eq!(compared, Ok(()), "{name}"),
            Some(reason) => {
                differ += 1;
                assert!(compared.is_err(), "{name} no longer differs");
                assert!(reason.len() > 20, "{name} says why it differs");
            }
        }
    }
    assert_eq!((entries.len(), differ), (96, 4));
}

/// The four assignments of which this worker makes something else.
#[test]
fn what_differs_from_the_recording() {
    let host = Dialect::of_host("oz.warp.dev");
    let entries = entries(UPSTREAM);
    let planned =
        |name: &str| planned(entries.iter().find(|entry| get(entry, "name") == name).unwrap(), host);
    let args = exposed(&planned("snapshot-unknown-fields").unwrap().args);
    assert!(
        args.windows(3).any(|words| words == ["--computer-use", "--computer-use-model", "cm"]),
        "{args:?}"
    );
    assert_eq!(planned("extra-empty-path").unwrap_err(), "unknown");
    assert_eq!(planned("extra-with-colon").unwrap().sidecars[1].mount_path, "/mnt/x:rw");
    assert_eq!(planned("shape-huge-memory").unwrap().limits.memory, Some(1 << 52));
}

#[test]
fn an_old_assignment_has_the_command_line_that_it_always_had() {
    for entry in &entries(OLD) {
        let script = ["/bin/sh", "/agent/entrypoint.sh"];
        let compared = is_as_recorded(entry, &planned(entry, None), &script);
        assert_eq!(compared, Ok(()), "{}", get(entry, "name"));
    }
}
