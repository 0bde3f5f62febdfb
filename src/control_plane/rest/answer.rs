//! What is asked and what is answered: the path of a run, and the state in the body that comes back.
//!
//! Pure. Owns the words of the states and what a body must have. It must not know how either travels.

use serde::Deserialize;
use serde_json::Value;
use serde_json::error::Category;

use crate::logging::value;
use crate::net::url::percent_encode;
use crate::protocol::RunState;

/// Where a run is.
const RUNS: &str = "/api/v1/agent/runs/";
/// Characters of a foreign word that are shown.
const LONGEST_WORD: usize = 40;

/// Why an answer tells no state. It shows nothing of the body but a state's first characters: a run has secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It breaks off, or never was JSON.
    #[error("it is not JSON, from line {line}, column {column} on")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// It is JSON, but no object with a `state` that is a word.
    #[error("it has no state")]
    NoState,
    /// A word that is no state.
    #[error("its state is {}, which is none", value(word))]
    State {
        /// At most 40 characters of it.
        word: String,
    },
    /// Its `run_id` is not the one that was asked for.
    #[error("it is about another run")]
    OtherRun,
    /// The body is longer than the bound.
    #[error("it is longer than {limit} bytes")]
    TooLong {
        /// The bound.
        limit: u64,
    },
    /// The head is longer than the bound.
    #[error("its head is longer than {limit} bytes")]
    LongHead {
        /// The bound.
        limit: usize,
    },
}

#[derive(Deserialize)]
struct Body {
    state: Value,
    run_id: Option<Value>,
}

/// The path of a run below the control plane's root. None for an id that no path can name: whoever reads `.` or `..`,
/// percent-encoded or not, may take it for a step.
pub(super) fn path(task_id: &str) -> Option<String> {
    match task_id {
        "" | "." | ".." => None,
        id => Some(format!("{RUNS}{}", percent_encode(id))),
    }
}

/// The state that a body tells of the run `task_id`. A body without `run_id` is taken to be about it.
///
/// # Errors
/// When it is not what the protocol says.
pub fn state_of(task_id: &str, body: &[u8]) -> Result<RunState, AnswerError> {
    let body: Body = serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => AnswerError::NoState,
        _ => AnswerError::Json { line: error.line(), column: error.column() },
    })?;
    // A proxy that reads an encoded slash as a step leads elsewhere.
    if body.run_id.is_some_and(|id| id != task_id) {
        return Err(AnswerError::OtherRun);
    }
    let word = body.state.as_str().ok_or(AnswerError::NoState)?;
    let state = RunState::ALL.into_iter().find(|state| state.word() == word);
    state.ok_or_else(|| AnswerError::State { word: word.chars().take(LONGEST_WORD).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_step_of_the_path_whatever_is_in_it() {
        let cases = [
            ("0a-b_c.~", "0a-b_c.~"),
            ("a/b", "a%2Fb"),
            ("../health", "..%2Fhealth"),
            ("...", "..."),
            ("a?b#c&d=e+f", "a%3Fb%23c%26d%3De%2Bf"),
            ("%2e%2E", "%252e%252E"),
            ("ü \u{0}\r\n", "%C3%BC%20%00%0D%0A"),
        ];
        for (id, step) in cases {
            assert_eq!(path(id).unwrap(), format!("/api/v1/agent/runs/{step}"), "{id:?}");
        }
    }

    #[test]
    fn what_would_be_a_step_of_its_own_is_not_asked_for() {
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
        let ended: Vec<_> = RunState::ALL.into_iter().filter(|state| state.ended()).collect();
        assert_eq!(ended, [RunState::Succeeded, RunState::Failed, RunState::Cancelled]);
    }

    #[test]
    fn a_body_on_every_prefix_is_no_state() {
        let body = br#"{"run_id":"r","state":"CANCELLED"}"#;
        for cut in 0..body.len() {
            assert!(matches!(state_of("r", &body[..cut]), Err(AnswerError::Json { .. })), "{cut}");
        }
    }

    #[test]
    fn what_the_protocol_does_not_say_is_no_state() {
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
    fn a_word_that_is_no_state_is_named_in_one_short_line() {
        for word in ["failed", " FAILED", "", "DONE"] {
            let error = state_of("r", format!(r#"{{"state":"{word}"}}"#).as_bytes()).unwrap_err();
            assert_eq!(error, AnswerError::State { word: word.to_owned() });
        }
        let long = format!(r#"{{"state":"a\nb{}"}}"#, "x".repeat(60_000));
        let told = state_of("r", long.as_bytes()).unwrap_err().to_string();
        assert!(told.starts_with("its state is \"a\\nbxxx") && told.len() < 80, "{told}");
    }

    #[test]
    fn an_answer_about_another_run_is_refused() {
        for id in [r#""q""#, r#""""#, "7", "{}"] {
            let body = format!(r#"{{"run_id":{id},"state":"CANCELLED"}}"#);
            assert_eq!(state_of("r", body.as_bytes()), Err(AnswerError::OtherRun), "{id}");
        }
    }

    #[test]
    fn an_error_shows_nothing_else_of_the_body() {
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
