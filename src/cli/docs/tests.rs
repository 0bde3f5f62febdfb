//! The form of each page. `tests/docs` compares what the pages say.

use std::ffi::OsString;
use std::path::Path;

use super::*;
use crate::cli::{Config, SETTINGS};
use crate::logging::SettingNames;

const WORDS: [&str; 5] = ["man", "bash", "zsh", "fish", "environment"];

fn requested_by(line: &[&str]) -> Result<Option<String>, ConfigError> {
    let request = requested(&Arguments::parse(line.iter().map(OsString::from)).unwrap())?;
    Ok(request.map(|request| match request {
        Request::Text(text) => text,
        Request::Settings => "settings".to_owned(),
    }))
}

fn page_of(word: &str) -> String {
    requested_by(&["--print", word]).unwrap().unwrap()
}

#[test]
fn help_comes_before_the_version_and_the_version_before_a_page() {
    let text = |line: &[&str]| requested_by(line).unwrap();
    assert_eq!(text(&[]), None);
    assert!(text(&["--print=man", "-V", "-h"]).unwrap().contains("Usage: oz-agent-worker"));
    assert_eq!(text(&["--print=nonsense", "-V"]).unwrap(), format!("oz-agent-worker {VERSION}\n"));
    assert!(text(&["--print=man"]).unwrap().starts_with(".TH "));
    assert_eq!(text(&["--print=settings"]).unwrap(), "settings");
}

#[test]
fn an_unknown_page_is_an_error_that_lists_the_pages() {
    for word in ["html", "", "man bash"] {
        let error = requested_by(&["--print", word]).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("invalid --print {word:?}: must be one of man, bash, zsh, fish, environment, settings")
        );
    }
}

#[test]
fn every_page_ends_with_one_line_break_and_no_line_with_spaces() {
    for word in WORDS {
        let page = page_of(word);
        assert!(page.ends_with('\n') && !page.ends_with("\n\n"), "{word}");
        let bad = page
            .lines()
            .find(|line| line.trim_end() != *line || line.contains(['\t', '\r']) || line.contains("@NAME"));
        assert_eq!(bad, None, "{word}");
        assert!(page.is_ascii(), "{word}: some terminals and pagers show only ASCII");
    }
}

#[test]
fn the_pages_for_a_terminal_are_narrow() {
    for (word, width) in [("man", 78), ("environment", 78)] {
        let mut example = false;
        for line in page_of(word).lines() {
            example = line == ".EX" || example && line != ".EE";
            // Examples are not filled, so their width counts as it is shown.
            let shown = if example { line.replace("\\-", "-").replace("\\e", "\\") } else { line.to_owned() };
            let shown = shown.replace("\\(ti", "~").replace("\\(dq", "\"").replace("\\(aq", "'");
            assert!(shown.chars().count() <= width, "{word}: {line}");
        }
    }
}

#[test]
fn the_man_page_has_only_known_macros() {
    let known = ["TH", "SH", "SS", "PP", "TP", "IP", "br", "nr", "hy", "RS", "RE", "EX", "EE"];
    for line in page_of("man").lines() {
        assert!(!line.starts_with('\''), "{line}");
        if let Some(name) = line.strip_prefix('.') {
            assert!(known.contains(&name.split(' ').next().unwrap()), "{line}");
        }
    }
}

/// systemd continues a line after a backslash, even a comment.
#[test]
fn the_sample_sets_nothing_and_no_comment_continues_on_the_next_line() {
    let sample = page_of("environment");
    for line in sample.lines().filter(|line| !line.is_empty()) {
        assert!(line.starts_with('#') && !line.ends_with('\\'), "{line}");
    }
    let first = sample.lines().find(|line| line.contains('=') && !line.starts_with("# "));
    assert_eq!(first, Some("#OZ_API_KEY="));
}

#[test]
fn required_settings_are_marked_and_come_first() {
    let sample = page_of("environment");
    let (_, rest) = sample.split_once("---- Required settings ----").unwrap();
    let (required, rest) = rest.split_once("---- Optional settings ----").unwrap();
    let names: Vec<_> = required.lines().filter_map(variable_line).map(|(name, _)| name).collect();
    assert_eq!(names, ["OZ_API_KEY", "OZ_API_KEY_FILE", "OZ_WORKER_ID", "OZ_WS_URL", "OZ_SERVER_ROOT_URL"]);
    let marks = |text: &str| text.matches("Required").count();
    assert_eq!((marks(required), marks(rest)), (5, 0));
}

fn variable_line(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).and_then(|rest| rest.split_once('='))
}

/// Removing the `#` from every line with a value changes nothing.
#[test]
fn the_values_of_the_sample_are_the_defaults() {
    let sample = page_of("environment");
    let must = [("OZ_API_KEY", "k"), ("OZ_WORKER_ID", "w")];
    let values = sample.lines().filter_map(variable_line).filter(|(_, value)| !value.is_empty());
    let values: Vec<_> = values.collect();
    assert!(values.len() > 10, "{values:?}");
    let load = |environment: Environment| {
        let no_file = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
        let config = Config::new(&Arguments::default(), &environment, 3, &no_file).unwrap();
        Config { names: SettingNames::default(), ..config }
    };
    let all = load(must.into_iter().chain(values).collect());
    assert_eq!(all, load(must.into_iter().collect()));
}

#[test]
fn a_summary_is_the_first_sentence() {
    let of = |help| summary(&Setting { help, ..SETTINGS[0] });
    assert_eq!(of("One. Two."), "One");
    assert_eq!(of("One; two. Three."), "One");
    assert_eq!(of("1.5 of them: a, b."), "1.5 of them: a, b");
    for setting in SETTINGS {
        let summary = summary(setting);
        assert!((10..=130).contains(&summary.len()), "{summary}");
    }
}
