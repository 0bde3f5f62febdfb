//! A file of variables, in the syntax of systemd's `EnvironmentFile=`.

use std::path::PathBuf;

use super::names::misspelt_case;
use super::table::SETTINGS_FILE;
use crate::logging::message;
use crate::secret::Secret;
use crate::sys::environment::{Environment, FileVariable};

/// A settings file that was read.
#[derive(Debug)]
pub(crate) struct SettingsFile {
    path: PathBuf,
    variables: Vec<Variable>,
}

/// A variable of a settings file.
#[derive(Debug, PartialEq, Eq)]
struct Variable {
    name: String,
    value: Secret,
    /// The number of its first line, from 1.
    line: usize,
}

/// A line that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// Its number, from 1.
    pub(crate) line: usize,
    /// What it must be.
    pub(crate) right: String,
}

impl SettingsFile {
    /// Parses the text of the file at `path`.
    ///
    /// # Errors
    /// The first line that cannot be parsed.
    pub(crate) fn parse(path: PathBuf, bytes: &[u8]) -> Result<Self, BadLine> {
        let text = str::from_utf8(bytes).map_err(|error| {
            let before = bytes.iter().take(error.valid_up_to());
            let line = before.filter(|byte| **byte == b'\n').count() + 1;
            BadLine { line, right: "must be UTF-8".into() }
        })?;
        let variables = parse(text)?;
        variables.iter().try_for_each(check_name)?;
        Ok(Self { path, variables })
    }

    /// Returns the environment with the variables of the file that it does not set itself.
    pub(crate) fn below(&self, environment: &Environment) -> Environment {
        let path = message(&self.path.display().to_string()).to_string();
        environment.or(self.variables.iter().map(|variable| FileVariable {
            name: variable.name.clone(),
            value: variable.value.expose().to_owned(),
            origin: format!("{path}:{}", variable.line),
        }))
    }
}

/// Checks that a variable can be in a file.
fn check_name(variable: &Variable) -> Result<(), BadLine> {
    let own = SETTINGS_FILE.setting.variable.unwrap_or_default();
    let right = if variable.name.eq_ignore_ascii_case(own) {
        format!(
            "must not be {own}, because a settings file cannot name another; set {own} in the environment"
        )
    } else if let Some(name) = misspelt_case(&variable.name) {
        format!("must be {name}=VALUE, because names of variables are in upper case")
    } else {
        return Ok(());
    };
    Err(BadLine { line: variable.line, right })
}

/// Returns the variables of a file, in its order.
///
/// Lines are `NAME=VALUE`, blank, or comments that begin with `#` or `;`. A value may be in 'single' or "double" quotes, also over
/// several lines; it then begins with one, and quotes within other text are part of it. Outside quotes and in double quotes a backslash before a character means that character, and one at the end of a line
/// continues the line.
///
/// # Errors
/// The first line that is none of these.
fn parse(text: &str) -> Result<Vec<Variable>, BadLine> {
    let mut variables = Vec::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    loop {
        let line = text.split_at(text.len() - rest.len()).0.matches('\n').count() + 1;
        let (head, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if head.trim().is_empty() || head.trim_start().starts_with(['#', ';']) {
            if after.is_empty() {
                return Ok(variables);
            }
            rest = after;
            continue;
        }
        let (name, value) = rest.split_once('=').filter(|(name, _)| is_name(name.trim())).ok_or(BadLine {
            line,
            right: "must be NAME=VALUE without export, or a comment that begins with #".into(),
        })?;
        let (value, after) =
            value_of(value).ok_or(BadLine { line, right: "must have a closing quote".into() })?;
        variables.push(Variable { name: name.trim().to_owned(), value: Secret::new(value), line });
        rest = after;
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Where in a value a character is.
enum Part {
    /// Between parts in quotes, and before the first. White space here is no part of the value.
    Between,
    /// In quotes of this kind.
    Quoted(char),
    /// In text that did not begin with a quote. Quotes have no meaning here.
    Plain,
}

/// Returns the value at the start of a text, and what follows its line. `None` if a quote is not closed.
fn value_of(text: &str) -> Option<(String, &str)> {
    let (mut value, mut kept) = (String::new(), 0);
    let mut part = Part::Between;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (&part, c) {
            (Part::Between | Part::Plain, '\n') => {
                value.truncate(kept);
                return Some((value, chars.as_str()));
            }
            (Part::Between, '\'' | '"') => part = Part::Quoted(c),
            (Part::Between, ' ' | '\t' | '\r') => continue,
            (Part::Quoted(open), c) if c == *open => part = Part::Between,
            (Part::Between | Part::Plain | Part::Quoted('"'), '\\') => {
                let is_quoted = matches!(part, Part::Quoted(_));
                if !is_quoted {
                    part = Part::Plain;
                }
                match chars.next() {
                    Some('\n') | None => {}
                    // systemd keeps the backslash before other characters in double quotes.
                    Some(next) if is_quoted && !"\"\\`$".contains(next) => value.extend(['\\', next]),
                    Some(next) => value.push(next),
                }
            }
            (Part::Plain, ' ' | '\t' | '\r') => {
                value.push(c);
                continue;
            }
            (Part::Between, c) => {
                part = Part::Plain;
                value.push(c);
            }
            (Part::Quoted(_) | Part::Plain, c) => value.push(c),
        }
        kept = value.len();
    }
    value.truncate(kept);
    (!matches!(part, Part::Quoted(_))).then_some((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_systemd_reads_them() {
        let cases = [
            ("A=b", "b"),
            ("\n# c\n ; d\n  A = b c \t\r\n", "b c"),
            ("A='a $key with \\ and \"'", "a $key with \\ and \""),
            ("A=\"x \\\" \\\\ \\$ \\n\"", "x \" \\ $ \\n"),
            ("A=a\\ b\\\nc  ", "a bc"),
            ("A='two\nlines' ", "two\nlines"),
            ("A='a b' \"c \"\t'd' ", "a bc d"),
            // Quotes within text stay, for lists: they are as the settings split them.
            ("A=a'b 'c\"d \"", "a'b 'c\"d \""),
            ("A=/a:/a '/b c:/b'", "/a:/a '/b c:/b'"),
            ("A=it's", "it's"),
            ("A='a'b'", "ab'"),
            ("A=\\'a b'", "'a b'"),
            ("A=", ""),
            ("A=a#b", "a#b"),
            ("A=x=y", "x=y"),
        ];
        for (text, value) in cases {
            let found = parse(text).unwrap();
            let [variable] = found.as_slice() else { panic!("{text}: {found:?}") };
            assert_eq!((variable.name.as_str(), variable.value.expose()), ("A", value), "{text}");
        }
        assert_eq!(parse(""), Ok(vec![]));
    }

    #[test]
    fn the_last_line_of_a_variable_counts_and_the_environment_comes_first() {
        let text = "\u{feff}A=1\r\nB='2\n2'\n\n#x\nA=3\nC=hunter2\nD=4";
        let file = SettingsFile::parse("/f".into(), text.as_bytes()).unwrap();
        let environment = file.below(&Environment::from_iter([("C", "5"), ("D", "")]));
        let get = |name| environment.get(name).and_then(|value| value.to_str());
        assert_eq!(["A", "B", "C", "D", "E"].map(get), [Some("3"), Some("2\n2"), Some("5"), Some("4"), None]);
        let origins = ["A", "B", "C", "D", "E"].map(|name| environment.origin(name));
        assert_eq!(origins, [Some("/f:6"), Some("/f:2"), None, Some("/f:8"), None]);
        assert!(!format!("{file:?}").contains("hunter2"));
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let cases = [
            ("A=1\nexport B=2", 2),
            ("x\nA=1", 1),
            ("\n\n=a", 3),
            ("A='1\n2'\n3", 3),
            ("1A=b", 1),
            ("A=1\nB='x", 2),
            ("#a\nA-B=1", 2),
        ];
        for (text, line) in cases {
            assert_eq!(parse(text).unwrap_err().line, line, "{text}");
        }
        let error = SettingsFile::parse("/f".into(), b"A=1\nB=2\nC=\xff\nD=4").unwrap_err();
        assert_eq!(error, BadLine { line: 3, right: "must be UTF-8".into() });
    }

    #[test]
    fn a_name_that_no_file_can_have_is_an_error_with_the_right_one() {
        const NO_OTHER: &str = "must not be OZ_SETTINGS_FILE, because a settings file cannot name another; set OZ_SETTINGS_FILE in the environment";
        let cases = [
            ("OZ_SETTINGS_FILE=/g", NO_OTHER),
            ("oz_settings_file=", NO_OTHER),
            ("oz_api_key=hunter2", "must be OZ_API_KEY=VALUE, because names of variables are in upper case"),
            ("Oz_Pull=never", "must be OZ_PULL=VALUE, because names of variables are in upper case"),
            ("docker_host=x", "must be DOCKER_HOST=VALUE, because names of variables are in upper case"),
            (
                "oz_worker_args=-h",
                "must be OZ_WORKER_ARGS=VALUE, because names of variables are in upper case",
            ),
        ];
        for (text, right) in cases {
            let error = SettingsFile::parse("/f".into(), format!("A=1\n{text}").as_bytes()).unwrap_err();
            assert_eq!(error, BadLine { line: 2, right: right.into() });
        }
        // Programs read these in lower case, and others are the tasks' own.
        for text in ["https_proxy=http://p", "no_proxy=x", "path=x", "oz_other=1"] {
            SettingsFile::parse("/f".into(), text.as_bytes()).unwrap();
        }
    }
}
