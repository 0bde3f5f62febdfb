//! Outputs that do not fit into the budget, from a scripted engine.

use std::os::unix::net::UnixStream;

use super::*;
use crate::sys::cancel::CancelReason;
use crate::task::scripted_engine::{ScriptedEngine, bytes, head, json};

const LIMITS: Limits = Limits {
    bytes: 300_000,
    time: Duration::from_secs(3600),
    ended: Duration::from_secs(3600),
    interrupted: Duration::from_secs(3600),
    tail: Duration::from_secs(60),
};

/// Returns a line of a log on standard output.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![1, 0, 0, 0];
    frame.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend(text.as_bytes());
    frame
}

/// Writes lines until the client is gone.
fn write_for_ever(stream: &mut UnixStream, line: &str) {
    let lines = frame(line).repeat(100);
    while bytes(stream, &lines) {}
}

fn collect(engine: &ScriptedEngine, limits: Limits, cancel: &CancelToken) -> Collected {
    let container = ContainerRef { name: "c".into(), id: Some("c".into()) };
    engine.with(&CancelToken::new(), |engine| {
        let before = None;
        let reading =
            Reading { engine, container: &container, cap: 4096, limits, was_ended: false, before, cancel };
        reading.collect()
    })
}

/// Returns the bytes that were searched, from the line that says so.
fn searched(output: &str) -> (u64, String) {
    let (_, line) = output.split_once("\n[... ").unwrap();
    let line = line.split(" ...]").find(|line| line.contains("bytes searched")).unwrap();
    let line = line.rsplit("[... ").next().unwrap();
    let (searched, of) = line.split_once(" of ").unwrap();
    (searched.parse().unwrap(), of.trim_end_matches(" bytes searched").to_owned())
}

#[test]
fn the_end_of_a_log_that_never_ends_is_read_by_itself() {
    let engine = ScriptedEngine::start(|line, stream| {
        if line.contains("/archive") {
            return json(stream, 404, "{}");
        }
        head(stream, "");
        if line.contains("tail=") {
            bytes(stream, &frame("the end https://github.com/o/r/pull/7\n"));
        } else {
            bytes(stream, &frame("the beginning https://github.com/o/r/pull/6\n"));
            write_for_ever(stream, "dots...............................................\n");
        }
    });
    let collected = collect(&engine, LIMITS, &CancelToken::new());
    assert!(collected.output.starts_with("the beginning "), "{}", collected.output);
    assert!(
        collected.output.ends_with(" ...]\nthe end https://github.com/o/r/pull/7\n"),
        "{}",
        collected.output
    );
    assert_eq!(collected.artifacts, ["https://github.com/o/r/pull/6", "https://github.com/o/r/pull/7"]);
    let (count, of) = searched(&collected.output);
    assert!((300_000..500_000).contains(&count) && of.starts_with("more than"), "{count} {of}");
    // As many lines as were kept of the beginning.
    assert_eq!(engine.count("tail="), 1);
}

#[test]
fn fewer_lines_are_asked_for_if_they_are_too_long() {
    let engine = ScriptedEngine::start(|line, stream| {
        if line.contains("/archive") {
            return json(stream, 404, "{}");
        }
        head(stream, "");
        if line.contains("tail=1&") {
            bytes(stream, &frame("short\n"));
        } else {
            write_for_ever(stream, &"long ".repeat(3000));
        }
    });
    let collected = collect(&engine, LIMITS, &CancelToken::new());
    assert!(collected.output.ends_with(" ...]\nshort\n"), "{}", collected.output);
}

/// An engine that needs long for many short lines.
#[test]
fn fewer_lines_are_asked_for_if_they_take_too_long() {
    let engine = ScriptedEngine::start(|line, stream| {
        if line.contains("/archive") {
            return json(stream, 404, "{}");
        }
        head(stream, "");
        if line.contains("tail=12&") {
            bytes(stream, &frame("the end\n"));
        } else {
            bytes(stream, &frame("short\n").repeat(100));
            // Until the client is gone.
            let _ = std::io::Read::read(stream, &mut [0]);
        }
    });
    let limits = Limits { time: Duration::from_millis(300), tail: Duration::from_secs(2), ..LIMITS };
    let collected = collect(&engine, limits, &CancelToken::new());
    assert!(collected.output.ends_with(" ...]\nthe end\n"), "{}", collected.output);
}

#[test]
fn a_log_that_drips_is_read_for_a_limited_time() {
    let engine = ScriptedEngine::start(|line, stream| {
        if line.contains("/archive") {
            return json(stream, 404, "{}");
        }
        head(stream, "");
        bytes(stream, &frame("one\n"));
        // Until the client is gone.
        let _ = std::io::Read::read(stream, &mut [0]);
    });
    let limits = Limits { time: Duration::from_millis(300), tail: Duration::from_millis(300), ..LIMITS };
    let collected = collect(&engine, limits, &CancelToken::new());
    assert_eq!(collected.output, "one\n\n[... 4 of more than 4 bytes searched ...]\n");
}

#[test]
fn a_cancel_ends_the_reading_and_keeps_what_was_read() {
    let cancel = CancelToken::new();
    let token = cancel.clone();
    let engine = ScriptedEngine::start(move |line, stream| {
        if line.contains("/archive") {
            return json(stream, 404, "{}");
        }
        head(stream, "");
        bytes(stream, &frame("one\n"));
        bytes(stream, &[1, 0, 0, 0, 0, 0]);
        token.cancel(CancelReason::Sibling);
        let _ = std::io::Read::read(stream, &mut [0]);
    });
    let collected = collect(&engine, LIMITS, &cancel);
    assert!(collected.output.ends_with(" bytes searched ...]\n"), "{}", collected.output);
    assert_eq!(engine.count("tail="), 0);
}

/// A file of 64 GiB.
#[test]
fn the_first_part_of_a_huge_file_is_reported() {
    let engine = ScriptedEngine::start(|line, stream| {
        if line.contains("/logs") {
            return json(stream, 500, "{}");
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(64 << 30);
        header.set_cksum();
        head(stream, "");
        bytes(stream, header.as_bytes());
        bytes(stream, b"https://github.com/o/r/pull/6\n");
        while bytes(stream, &[b'.'; 65536]) {}
    });
    let collected = collect(&engine, LIMITS, &CancelToken::new());
    assert!(collected.output.starts_with("https://github.com/o/r/pull/6\n"), "{}", collected.output);
    let (count, of) = searched(&collected.output);
    assert!((300_000..340_000).contains(&count), "{count}");
    assert_eq!(of, (64_u64 << 30).to_string());
    assert_eq!(collected.artifacts, ["https://github.com/o/r/pull/6"]);
}

#[test]
fn an_output_within_the_budget_has_no_such_line() {
    let engine = ScriptedEngine::start(|line, stream| {
        if line.contains("/archive") {
            return json(stream, 404, "{}");
        }
        head(stream, "");
        bytes(stream, &frame("https://github.com/o/r/pull/6"));
    });
    let collected = collect(&engine, LIMITS, &CancelToken::new());
    assert_eq!(collected.output, "https://github.com/o/r/pull/6");
    assert_eq!(collected.artifacts, ["https://github.com/o/r/pull/6"]);
}

/// As with a log driver that cannot be read.
#[test]
fn an_output_that_the_engine_does_not_give_is_empty() {
    let engine = ScriptedEngine::start(|line, stream| {
        let status = if line.contains("/archive") { 404 } else { 501 };
        json(stream, status, r#"{"message":"configured logging driver does not support reading"}"#);
    });
    assert_eq!(collect(&engine, LIMITS, &CancelToken::new()), Collected::default());
}

#[test]
fn an_output_that_breaks_off_says_how_much_was_searched() {
    let engine = ScriptedEngine::start(|line, stream| {
        if line.contains("/archive") {
            return json(stream, 404, "{}");
        }
        head(stream, "");
        bytes(stream, &frame("one\n"));
        // No frame begins like this.
        bytes(stream, b"not framed");
    });
    let collected = collect(&engine, LIMITS, &CancelToken::new());
    assert_eq!(collected.output, "one\n\n[... 4 of more than 4 bytes searched ...]\n");
}
