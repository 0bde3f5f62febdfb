//! The URL path of a run, and what the body of the response says about it.

use super::scan::Found;
use crate::logging::value;
use crate::net::url::percent_encode;
use crate::protocol::{RunState, RunView, instant, is_path_segment};

/// The path of the API for runs.
const RUNS: &str = "/api/v1/agent/runs/";
/// The most characters of an unknown state that are shown.
const MAX_STATE: usize = 40;

/// Why a response has no valid state. A run contains secrets, so the texts show nothing of it except an unknown state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The body is not JSON, or is truncated.
    #[error("not valid JSON at byte {offset}")]
    Json {
        /// From 0.
        offset: u64,
    },
    /// The body is JSON, but not an object with a string `state`.
    #[error("no state")]
    NoState,
    /// `state` is none of [`RunState::ALL`].
    #[error("unknown state {}", value(state))]
    UnknownState {
        /// Its first 40 characters.
        state: String,
    },
    /// `run_id` is a different one.
    #[error("it is for another run")]
    OtherRun,
    /// The body exceeds the limit.
    #[error("the body is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: u64,
    },
    /// The head exceeds the limit.
    #[error("the head is longer than {limit} bytes")]
    LongHead {
        /// The limit.
        limit: usize,
    },
}

/// Returns the path of a run below the server root. `None` for an id that cannot be part of one.
pub(super) fn path(task_id: &str) -> Option<String> {
    is_path_segment(task_id).then(|| format!("{RUNS}{}", percent_encode(task_id, b"")))
}

/// Returns the run `task_id` from the `run_id`, `state` and `updated_at` of a response. Only `state` is required.
///
/// # Errors
/// The state is missing or unknown, or it is another run.
pub(super) fn view(task_id: &str, [run_id, state, updated_at]: [Found; 3]) -> Result<RunView, AnswerError> {
    // A proxy that decodes %2F may have requested another path.
    match run_id {
        Found::Nothing => {}
        Found::Text(id) if id == task_id => {}
        Found::Text(_) | Found::Other => return Err(AnswerError::OtherRun),
    }
    let Found::Text(name) = state else { return Err(AnswerError::NoState) };
    let state = RunState::ALL.into_iter().find(|state| state.word() == name);
    let state =
        state.ok_or_else(|| AnswerError::UnknownState { state: name.chars().take(MAX_STATE).collect() })?;
    let updated_at = match updated_at {
        Found::Text(text) => instant(&text),
        Found::Nothing | Found::Other => None,
    };
    Ok(RunView { state, updated_at })
}

#[cfg(test)]
mod tests {
    use super::super::scan::Scanner;
    use super::*;

    #[test]
    fn an_id_is_one_segment_of_the_path() {
        let cases = [
            ("0a-b_c.~", "0a-b_c.~"),
            ("a/b", "a%2Fb"),
            ("../health", "..%2Fhealth"),
            ("...", "..."),
            ("a?b#c&d=e+f", "a%3Fb%23c%26d%3De%2Bf"),
            ("%2e%2E", "%252e%252E"),
            ("ü \u{0}\r\n", "%C3%BC%20%00%0D%0A"),
        ];
        for (id, segment) in cases {
            assert_eq!(path(id).unwrap(), format!("/api/v1/agent/runs/{segment}"), "{id:?}");
        }
    }

    #[test]
    fn an_id_that_would_change_the_path_has_no_path() {
        for id in ["", ".", ".."] {
            assert_eq!(path(id), None, "{id}");
        }
    }

    /// Reads a body in pieces of `size` bytes.
    fn read(body: &[u8], size: usize) -> Result<RunView, AnswerError> {
        let mut scanner = Scanner::new();
        for piece in body.chunks(size) {
            if scanner.feed(piece)? {
                break;
            }
        }
        view("r", scanner.finish()?)
    }

    /// Reads a body in one piece and byte by byte, with the same result.
    fn run(body: impl AsRef<[u8]>) -> Result<RunView, AnswerError> {
        let body = body.as_ref();
        let whole = read(body, body.len().max(1));
        assert_eq!(read(body, 1), whole, "{}", body.escape_ascii());
        whole
    }

    fn state(body: impl AsRef<[u8]>) -> Result<RunState, AnswerError> {
        run(body).map(|run| run.state)
    }

    const TIME: &str = "2026-01-02T03:04:05.678Z";

    #[test]
    fn every_state_is_read() {
        for expected in RunState::ALL {
            let body = format!(r#" {{"run_id": "r", "prompt": {{"a": [1]}}, "state": "{expected}"}} "#);
            assert_eq!(state(body), Ok(expected));
        }
        assert_eq!(state(r#"{"state":"FAILED"}"#), Ok(RunState::Failed), "without an id");
        assert_eq!(state(r#"{"state":"FAILED","run_id":null}"#), Ok(RunState::Failed));
        assert_eq!(state(r#"{"\u0073tate":"FA\u0049LED"}"#), Ok(RunState::Failed), "escaped");
    }

    #[test]
    fn the_time_of_the_last_change_is_read() {
        let at =
            |time: &str| run(format!(r#"{{"updated_at":{time},"state":"CLAIMED"}}"#)).unwrap().updated_at;
        assert_eq!(at(&format!("\"{TIME}\"")), instant(TIME));
        assert!(instant(TIME).is_some());
        for missing in ["null", "7", "\"yesterday\"", "\"\"", "[]", &format!("\"{}\"", "2".repeat(70_000))] {
            assert_eq!(at(missing), None);
        }
        assert_eq!(run(r#"{"state":"CLAIMED"}"#).unwrap().updated_at, None);
    }

    /// The fields of inner objects, and texts that look like fields, are not the run's.
    #[test]
    fn only_the_fields_of_the_run_itself_count() {
        let body = format!(
            r#"{{"a":{{"state":"FAILED","x":["}}",{{}}]}},"b":"\"state\":\"FAILED\"\\","c":[["state"]],"n":-1.5e+3,
            "state":"CLAIMED","t":true,"updated_at":"{TIME}"}}"#
        );
        assert_eq!(run(body), Ok(RunView { state: RunState::Claimed, updated_at: instant(TIME) }));
    }

    #[test]
    fn what_follows_the_two_fields_is_not_read() {
        let body = format!(r#"{{"state":"CLAIMED","updated_at":"{TIME}""#);
        for rest in ["", "}", ",\"output\":\"", " oops"] {
            assert_eq!(state(format!("{body}{rest}")), Ok(RunState::Claimed), "{rest}");
        }
        let mut scanner = Scanner::new();
        let long = [b"{\"output\":\"".as_slice(), &b"x".repeat(3 << 20)].concat();
        assert_eq!(scanner.feed(&long), Ok(false));
        assert_eq!(scanner.feed(format!("\",{}", body.trim_start_matches('{')).as_bytes()), Ok(true));
        assert!(scanner.is_small());
    }

    #[test]
    fn a_truncated_body_has_no_state() {
        let body = br#"{"run_id":"r","state":"CANCELLED"}"#;
        for cut in 0..body.len() {
            assert_eq!(state(&body[..cut]), Err(AnswerError::Json { offset: cut as u64 }), "{cut}");
        }
    }

    #[test]
    fn an_invalid_body_has_no_state() {
        let without =
            ["{}", r#"{"state":null}"#, r#"{"state":3}"#, r#"{"state":["FAILED"]}"#, r#"{"State":"FAILED"}"#];
        for body in without {
            assert_eq!(state(body), Err(AnswerError::NoState), "{body}");
        }
        let long = format!(r#"{{"state":"{}"}}"#, "x".repeat(70_000));
        assert_eq!(state(long), Err(AnswerError::NoState));
        let deep = "[".repeat(60_000);
        let invalid = [
            "[]",
            "null",
            "\"CANCELLED\"",
            "<html>",
            r#"{"state":"FAILED"} x"#,
            "{\"state\":\"FAILED\u{0}\"}",
            r#"{"state" "FAILED"}"#,
            r#"{"state":"FAILED",}"#,
            r#"{"state":,}"#,
            r#"{"a":1 2}"#,
            &deep,
        ];
        for body in invalid {
            assert!(matches!(state(body), Err(AnswerError::Json { .. })), "{body}");
        }
        assert!(state(b"{\"state\":\"FAILED\xff\"}").is_err());
    }

    #[test]
    fn an_unknown_state_is_shown_in_one_short_line() {
        for name in ["failed", " FAILED", "", "DONE"] {
            let error = state(format!(r#"{{"state":"{name}"}}"#)).unwrap_err();
            assert_eq!(error, AnswerError::UnknownState { state: name.to_owned() });
        }
        let long = format!(r#"{{"state":"a\nb{}"}}"#, "x".repeat(60_000));
        let text = state(long).unwrap_err().to_string();
        assert!(text.starts_with("unknown state \"a\\nbxxx") && text.len() < 80, "{text}");
    }

    #[test]
    fn a_body_of_another_run_is_refused() {
        for id in [r#""q""#, r#""""#, "7", "{}", &format!("\"{}\"", "r".repeat(70_000))] {
            let body = format!(r#"{{"run_id":{id},"state":"CANCELLED"}}"#);
            assert_eq!(state(body), Err(AnswerError::OtherRun));
        }
    }

    #[test]
    fn errors_do_not_show_the_body() {
        for body in [
            "\"hunter2\"",
            "hunter2",
            r#"{"state":{"hunter2":1}}"#,
            r#"{"run_id":"hunter2","state":"FAILED"}"#,
        ] {
            let error = state(body).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
