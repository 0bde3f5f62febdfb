//! What holds for each page by itself; `tests/pages` compares them with each other, as the binary prints them.

use std::path::Path;

use super::*;
use crate::cli::arguments::Cli;
use crate::cli::{Config, EXTERNAL, Environment, SETTINGS};

const WORDS: [&str; 5] = ["man", "bash", "zsh", "fish", "environment"];

fn page_of(word: &str) -> String {
    let cli = Cli { print: Some(word.to_owned()), ..Cli::default() };
    asked_for(&cli).unwrap().unwrap()
}

/// A page without what its language needs to show a name as it is.
fn plain(word: &str) -> String {
    let page = page_of(word);
    if word == "man" { page.replace("\\-", "-").replace("\\(ti", "~") } else { page }
}

#[test]
fn help_comes_before_the_version_and_that_before_a_page() {
    let asked = |help, version, print: Option<&str>| {
        asked_for(&Cli { help, version, print: print.map(str::to_owned), ..Cli::default() }).unwrap()
    };
    assert_eq!(asked(false, false, None), None);
    assert!(asked(true, true, Some("man")).unwrap().contains("Usage: oz-agent-worker"));
    assert_eq!(asked(false, true, Some("nonsense")).unwrap(), format!("oz-agent-worker {VERSION}\n"));
    assert!(asked(false, false, Some("man")).unwrap().starts_with(".TH "));
}

#[test]
fn every_page_ends_with_one_line_break_and_has_no_blanks_at_a_line_s_end() {
    for word in WORDS {
        let page = page_of(word);
        assert!(page.ends_with('\n') && !page.ends_with("\n\n"), "{word}");
        let bad = page
            .lines()
            .find(|line| line.trim_end() != *line || line.contains(['\t', '\r']) || line.contains("@NAME"));
        assert_eq!(bad, None, "{word}");
        assert!(page.is_ascii(), "{word}: not every terminal and pager shows more");
    }
}

#[test]
fn every_flag_is_in_each_page_for_the_command_line() {
    for setting in SETTINGS {
        for flag in flags(setting) {
            assert!(plain("man").contains(&format!("\\fB{flag}\\fR")), "{flag}");
            assert!(plain("bash").contains(&format!(" {flag}")), "{flag}");
            assert!(plain("zsh").contains(flag), "{flag}");
            let option = if flag.starts_with("--") { " -l " } else { " -s " };
            assert!(plain("fish").contains(&format!("{option}{} ", flag.trim_start_matches('-'))), "{flag}");
        }
    }
}

#[test]
fn every_variable_is_in_the_man_page_and_has_a_line_of_its_own_in_the_sample() {
    let ours = SETTINGS.iter().filter_map(|setting| setting.variable);
    for variable in ours.chain(EXTERNAL.iter().map(|external| external.variable)) {
        assert!(plain("man").contains(&format!(".TP\n\\fB{variable}\\fR\n")), "{variable}");
        let sample = page_of("environment");
        let lines = sample.lines().filter(|line| line.starts_with(&format!("#{variable}=")));
        assert_eq!(lines.count(), 1, "{variable}");
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
fn no_line_of_the_man_page_is_a_macro_by_mistake() {
    let known = ["TH", "SH", "SS", "PP", "TP", "IP", "br", "nr", "hy", "RS", "RE", "EX", "EE"];
    for line in page_of("man").lines() {
        assert!(!line.starts_with('\''), "{line}");
        if let Some(name) = line.strip_prefix('.') {
            assert!(known.contains(&name.split(' ').next().unwrap()), "{line}");
        }
    }
}

/// systemd goes on with the next line after a backslash, even in a comment.
#[test]
fn nothing_of_the_sample_is_set_and_no_comment_swallows_a_line() {
    let sample = page_of("environment");
    for line in sample.lines().filter(|line| !line.is_empty()) {
        assert!(line.starts_with('#') && !line.ends_with('\\'), "{line}");
    }
    let first = sample.lines().find(|line| line.contains('=') && !line.starts_with("# "));
    assert_eq!(first, Some("#OZ_API_KEY="));
}

#[test]
fn what_has_to_be_set_is_marked_and_comes_first() {
    let sample = page_of("environment");
    let (_, rest) = sample.split_once("---- What has to be set ----").unwrap();
    let (required, rest) = rest.split_once("---- What can be set ----").unwrap();
    let names: Vec<_> = required.lines().filter_map(variable_line).map(|(name, _)| name).collect();
    assert_eq!(names, ["OZ_API_KEY", "OZ_API_KEY_FILE", "OZ_WORKER_ID", "OZ_WS_URL", "OZ_SERVER_ROOT_URL"]);
    let mark = |line: &&str| line.starts_with("# Required") || line.starts_with("# This or ");
    assert_eq!((required.lines().filter(mark).count(), rest.lines().filter(mark).count()), (5, 0));
}

fn variable_line(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).and_then(|rest| rest.split_once('='))
}

/// To take the `#` away from every line that has a value changes nothing.
#[test]
fn the_values_of_the_sample_are_the_defaults() {
    let sample = page_of("environment");
    let must = [("OZ_API_KEY", "k"), ("OZ_WORKER_ID", "w")];
    let values = sample.lines().filter_map(variable_line).filter(|(_, value)| !value.is_empty());
    let values: Vec<_> = values.collect();
    assert!(values.len() > 10, "{values:?}");
    let load = |environment: Environment| {
        let no_file = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
        Config::new(&Cli::default(), &environment, 3, &no_file).unwrap()
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
