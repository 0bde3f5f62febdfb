//! The man page as mandoc and groff read it.

use std::process::Command;

use super::{page, page_file, quietly};
use crate::tidy::{read, sources, spans};

#[test]
fn mandoc_reports_no_problem() {
    let (_folder, file) = page_file("man");
    assert_eq!(quietly(Command::new("mandoc").args(["-T", "lint", "-W", "warning", &file])), "");
}

/// Proves that `mandoc` finds errors.
#[test]
fn mandoc_reports_an_unknown_macro() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page");
    std::fs::write(&file, page("man").replacen(".PP\n", ".PQ\n", 1)).unwrap();
    let output = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&file).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stdout).contains("PQ"), "{output:?}");
}

#[test]
fn the_manual_lists_every_call_to_the_engine() {
    let manual = read("src/cli/docs/manual/engine.md");
    let (_, section) = manual.split_once("## Calls").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let is_client = |path: &str| path.starts_with("src/docker/") && !path.contains("fuzz");
    let mut paths = Vec::new();
    for source in sources().into_iter().filter(|source| is_client(&source.path)) {
        for (_, line) in &source.code {
            for start in ["RequestTarget::of(\"", "?.then(\""] {
                paths.extend(
                    line.split(start).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned),
                );
            }
        }
    }
    assert!(paths.len() > 10, "{paths:?}");
    let missing: Vec<_> = paths.iter().filter(|path| !section.contains(path.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// With all warnings, as in checks of packages.
#[test]
fn groff_renders_the_page_without_a_warning_and_with_plain_dashes() {
    let (_folder, file) = page_file("man");
    let args = ["-man", "-Tutf8", "-ww", "-P-cbou", "-rLL=100n", &file];
    let shown = quietly(Command::new("groff").args(args));
    for section in [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
        "COMMANDS",
        "ENVIRONMENT",
        "EXIT STATUS",
        "SIGNALS",
        "FILES",
        "CONTAINERS",
        "CONTROL PLANE",
        "ENGINE",
        "CREDENTIALS",
        "STOPPING",
        "RECOVERY",
        "DISK",
        "SERVICE",
        "CONTAINER IMAGE",
        "DIAGNOSIS",
        "SECURITY",
        "LIMITS",
        "LOG",
        "MOVING FROM UPSTREAM'S WORKER",
        "EXAMPLES",
        "SEE ALSO",
    ] {
        assert_eq!(shown.lines().filter(|line| *line == section).count(), 1, "{section}: {shown}");
    }
    for setting in oz_agent_worker::cli::SETTINGS {
        for flag in [setting.flag, setting.short].into_iter().flatten() {
            let is_its_line = |line: &str| {
                let names = line.trim().split(", ");
                names.into_iter().any(|name| name.split(' ').next() == Some(flag))
            };
            assert!(shown.lines().any(is_its_line), "{flag} is not at the beginning of a line in\n{shown}");
        }
    }
    assert!(!shown.lines().any(|line| line.ends_with('\u{2010}')), "a word is hyphenated in\n{shown}");
    // Lines to copy are unchanged, and paths have an ASCII tilde.
    for typed in [
        "oz-agent-worker --api-key-file /etc/oz-agent-worker/key \\\n",
        "       ~/.docker/config.json\n",
        "oz-agent-worker - self-hosted worker",
    ] {
        assert!(shown.contains(typed), "{typed} is not in\n{shown}");
    }
}

/// An operator who searches for a line, or has an alert on it, must find the line that the worker writes.
#[test]
fn every_log_line_of_the_manual_is_one_of_the_worker_s() {
    let text: String =
        sources().iter().flat_map(|source| &source.code).map(|(_, line)| line.as_str()).collect();
    let manual = read("src/cli/docs/manual/log.md");
    let rows = manual
        .lines()
        .filter(|line| ["| ERROR ", "| WARN ", "| INFO "].iter().any(|level| line.starts_with(level)));
    let events: Vec<_> = rows.filter_map(|row| spans(row).first().copied()).collect();
    assert!(events.len() > 15, "{events:?}");
    let missing = events.iter().filter(|event| !text.contains(&format!("\"{event} ")));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&&str>::new());
}
