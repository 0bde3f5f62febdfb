//! The URL path of a run, and the state in the body of the response.

use serde::Deserialize;
use serde_json::Value;
use serde_json::error::Category;

use crate::logging::value;
use crate::net::url::percent_encode;
use crate::protocol::RunState;

/// The path of the API for runs.
const RUNS: &str = "/api/v1/agent/runs/";
/// The most characters of an unknown state that are shown.
const MAX_STATE: usize = 40;

/// Why a response has no valid state. A run contains secrets, so the texts show nothing of it except an unknown state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The body is not JSON, or is truncated.
    #[error("not valid JSON at line {line}, column {column}")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
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

#[derive(Deserialize)]
struct Body {
    state: Value,
    run_id: Option<Value>,
}

/// Returns the path of a run below the server root. `None` for an empty id and for `.` and `..`, which servers and proxies
/// may resolve even if they are percent-encoded.
pub(super) fn path(task_id: &str) -> Option<String> {
    match task_id {
        "" | "." | ".." => None,
        id => Some(format!("{RUNS}{}", percent_encode(id, b""))),
    }
}

/// Returns the state of the run `task_id` from the body of a response. `run_id` may be missing from the body.
///
/// # Errors
/// The body is not a run with a known state, or it is another run.
pub(super) fn state_of(task_id: &str, body: &[u8]) -> Result<RunState, AnswerError> {
    let body: Body = serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => AnswerError::NoState,
        _ => AnswerError::Json { line: error.line(), column: error.column() },
    })?;
    // A proxy that decodes %2F may have requested another path.
    if body.run_id.is_some_and(|id| id != task_id) {
        return Err(AnswerError::OtherRun);
    }
    let name = body.state.as_str().ok_or(AnswerError::NoState)?;
    let state = RunState::ALL.into_iter().find(|state| state.word() == name);
    state.ok_or_else(|| AnswerError::UnknownState { state: name.chars().take(MAX_STATE).collect() })
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn every_state_is_read() {
        for state in RunState::ALL {
            let body = format!(r#" {{"run_id": "r", "prompt": {{"a": [1]}}, "state": "{state}"}} "#);
            assert_eq!(state_of("r", body.as_bytes()), Ok(state));
        }
        assert_eq!(state_of("r", br#"{"state":"FAILED"}"#), Ok(RunState::Failed), "without an id");
        assert_eq!(state_of("r", br#"{"state":"FAILED","run_id":null}"#), Ok(RunState::Failed));
    }

    #[test]
    fn a_truncated_body_has_no_state() {
        let body = br#"{"run_id":"r","state":"CANCELLED"}"#;
        for cut in 0..body.len() {
            assert!(matches!(state_of("r", &body[..cut]), Err(AnswerError::Json { .. })), "{cut}");
        }
    }

    #[test]
    fn an_invalid_body_has_no_state() {
        let bodies = [
            "[]",
            "null",
            "\"CANCELLED\"",
            "{}",
            r#"{"state":null}"#,
            r#"{"state":3}"#,
            r#"{"state":["FAILED"]}"#,
            r#"{"State":"FAILED"}"#,
            r#"{"state":"FAILED","state":"PENDING"}"#,
        ];
        for body in bodies {
            assert_eq!(state_of("r", body.as_bytes()), Err(AnswerError::NoState), "{body}");
        }
        for body in ["<html>", r#"{"state":"FAILED"} x"#, "{\"state\":\"FAILED\u{0}\"}"] {
            assert!(matches!(state_of("r", body.as_bytes()), Err(AnswerError::Json { .. })), "{body}");
        }
        let deep = "[".repeat(60_000);
        assert!(state_of("r", deep.as_bytes()).is_err());
        assert!(state_of("r", b"{\"state\":\"FAILED\xff\"}").is_err());
    }

    #[test]
    fn an_unknown_state_is_shown_in_one_short_line() {
        for name in ["failed", " FAILED", "", "DONE"] {
            let error = state_of("r", format!(r#"{{"state":"{name}"}}"#).as_bytes()).unwrap_err();
            assert_eq!(error, AnswerError::UnknownState { state: name.to_owned() });
        }
        let long = format!(r#"{{"state":"a\nb{}"}}"#, "x".repeat(60_000));
        let text = state_of("r", long.as_bytes()).unwrap_err().to_string();
        assert!(text.starts_with("unknown state \"a\\nbxxx") && text.len() < 80, "{text}");
    }

    #[test]
    fn a_body_of_another_run_is_refused() {
        for id in [r#""q""#, r#""""#, "7", "{}"] {
            let body = format!(r#"{{"run_id":{id},"state":"CANCELLED"}}"#);
            assert_eq!(state_of("r", body.as_bytes()), Err(AnswerError::OtherRun), "{id}");
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
            let error = state_of("r", body.as_bytes()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
