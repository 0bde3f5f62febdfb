//! The lines of a check, and its JSON.

use serde_json::{Value, json};

use crate::app::print;
use crate::exit::Exit;

/// What a step has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ok,
    Warning,
    Failed,
}

/// One step and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) state: State,
    /// What was found, and what to do; one line.
    pub(super) text: String,
}

impl Step {
    pub(super) fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, state: State::Ok, text: text.into() }
    }

    pub(super) fn warning(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, state: State::Warning, text: text.into() }
    }

    pub(super) fn failed(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, state: State::Failed, text: text.into() }
    }

    /// Returns the line for people, with a line break.
    fn line(&self) -> String {
        // Parts of the text may come from others.
        let text: String = self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("{:<7}  {:<10}  {text}\n", self.state.word(), self.name)
    }

    fn json(&self) -> Value {
        json!({ "step": self.name, "state": self.state.word(), "text": self.text })
    }
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// The results so far. As text each is printed at once, because the next one may take a while.
pub(super) struct Report {
    json: bool,
    steps: Vec<Step>,
    printed: Exit,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self { json, steps: Vec::new(), printed: Exit::Success }
    }

    pub(super) fn add(&mut self, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            if !self.json && self.printed == Exit::Success {
                self.printed = print(&step.line());
            }
            self.steps.push(step);
        }
    }

    /// Prints what is left to print. Returns the exit code.
    pub(super) fn finish(self) -> Exit {
        let failed = self.steps.iter().any(|step| step.state == State::Failed);
        let printed = if self.json { print(&self.object()) } else { self.printed };
        if failed { Exit::Failure } else { printed }
    }

    fn object(&self) -> String {
        let ok = !self.steps.iter().any(|step| step.state == State::Failed);
        let steps: Vec<_> = self.steps.iter().map(Step::json).collect();
        format!("{:#}\n", json!({ "ok": ok, "steps": steps }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_one_line_with_its_state_first() {
        assert_eq!(Step::ok("dns", "h").line(), "ok       dns         h\n");
        assert_eq!(Step::warning("key file", "a\nb\u{1b}[0m").line(), "warning  key file    a b [0m\n");
        assert_eq!(Step::failed("engine", "x").line(), "failed   engine      x\n");
    }

    #[test]
    fn one_failed_step_is_a_failure_and_a_warning_is_not() {
        let of = |steps: Vec<Step>| {
            let mut report = Report::new(true);
            report.add(steps);
            let object: Value = serde_json::from_str(&report.object()).unwrap();
            (object["ok"] == true, report.finish())
        };
        assert_eq!(of(vec![Step::ok("a", ""), Step::warning("b", "")]), (true, Exit::Success));
        assert_eq!(of(vec![Step::ok("a", ""), Step::failed("b", "")]), (false, Exit::Failure));
    }
}
