//! All texts that the binary prints agree on flags, variables, defaults, words and exit codes.

use std::collections::BTreeSet;
use std::process::Command;

use oz_agent_worker::cli::{EXTERNAL, SETTINGS};
use oz_agent_worker::exit::Exit;

use super::parse::{self, Entries, Entry, Offers};
use super::{page, printed};
use crate::support::worker::binary;
use crate::tidy;

fn expected() -> Entries {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let entry = |setting: &oz_agent_worker::cli::Setting| Entry {
        flags: [setting.short, setting.flag].into_iter().flatten().map(str::to_owned).collect(),
        variable: owned(setting.variable),
        default: owned(setting.default),
    };
    SETTINGS.iter().map(entry).collect()
}

/// Panics with the differences only, not with two long lists.
fn assert_same<T: Ord + Clone + std::fmt::Debug>(what: &str, found: &BTreeSet<T>, expected: &BTreeSet<T>) {
    let missing: Vec<_> = expected.difference(found).collect();
    let extra: Vec<_> = found.difference(expected).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{what}: {missing:#?} missing, {extra:#?} unexpected");
}

#[test]
fn the_help_and_the_man_page_have_exactly_the_settings_of_the_table() {
    let expected = expected();
    assert_same("--help", &parse::help(&printed(&["--help"])), &expected);
    assert_same("the man page", &parse::man(&page("man")).0, &expected);
}

#[test]
fn the_settings_of_the_readme_are_in_the_help_with_the_same_variables_and_defaults() {
    let help = parse::help(&printed(&["--help"]));
    let rows = parse::readme();
    let wrong: Vec<_> = rows.difference(&help).collect();
    assert!(wrong.is_empty(), "not in the help: {wrong:#?}");
    let known: BTreeSet<_> =
        help.into_iter().flat_map(|entry| entry.flags.into_iter().chain(entry.variable)).collect();
    let names = parse::readme_names();
    let unknown: Vec<_> = names.difference(&known).collect();
    assert!(unknown.is_empty(), "not in the help: {unknown:?}");
}

#[test]
fn the_sample_has_the_variables_of_the_help_with_their_defaults_and_the_external_ones() {
    let sample = parse::environment(&page("environment"));
    let help = parse::help(&printed(&["--help"]));
    let ours = help.into_iter().filter_map(|entry| Some((entry.variable?, entry.default)));
    let external = EXTERNAL.iter().map(|external| (external.variable.to_owned(), None));
    // Only the systemd unit reads it; the tests of the packages run the unit.
    let arguments = ("OZ_WORKER_ARGS".to_owned(), None);
    let found = sample.iter().map(|(name, (default, _))| (name.clone(), default.clone())).collect();
    assert_same("the sample", &found, &ours.chain(external).chain([arguments]).collect());
    for (name, (default, value)) in &sample {
        let words = default.as_ref().is_some_and(|default| default.contains(' '));
        let expected = if words { "" } else { default.as_deref().unwrap_or_default() };
        assert_eq!(value, expected, "{name}");
    }
}

/// The file that packages install is written by hand, so that it does not change with each version.
#[test]
fn the_installed_settings_file_names_known_variables_and_sets_none() {
    let file = tidy::read("packaging/systemd/worker.env");
    let named: Vec<_> =
        file.lines().filter_map(|line| line.strip_prefix("#OZ_")?.strip_suffix('=')).collect();
    let known = |name: &&str| SETTINGS.iter().any(|setting| setting.variable == Some(&format!("OZ_{name}")));
    assert!(named.len() == 3 && named.iter().all(known), "{named:?}");
    assert!(file.lines().all(|line| line.is_empty() || line.starts_with('#')), "{file}");
}

#[test]
fn the_external_variables_are_those_that_the_code_reads() {
    let table: BTreeSet<_> = EXTERNAL.iter().map(|external| external.variable.to_owned()).collect();
    assert_same("the man page", &parse::man(&page("man")).1, &table);
    let sources = tidy::sources();
    let lines = sources.iter().flat_map(|source| &source.code);
    let names =
        lines.flat_map(|(_, line)| line.split("get(\"").skip(1).filter_map(|rest| rest.split('"').next()));
    let is_variable = |name: &&str| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    // The helper of credentials searches the PATH of the environment that it gets.
    let read = names.filter(is_variable).chain(["PATH"]).map(str::to_owned).collect();
    assert_same("the table", &table, &read);
}

#[test]
fn the_completions_offer_the_flags_of_the_help_and_the_same_words() {
    let help = parse::help(&printed(&["--help"]));
    let flags: BTreeSet<_> = help.iter().flat_map(|entry| entry.flags.clone()).collect();
    let all: [(&str, Offers); 3] = [
        ("bash", parse::bash(&page("bash"))),
        ("zsh", parse::zsh(&page("zsh"))),
        ("fish", parse::fish(&page("fish"))),
    ];
    for (shell, offers) in &all {
        assert_same(shell, &offers.keys().cloned().collect(), &flags);
        assert_eq!(offers, &all[0].1, "{shell}");
    }
    let with_words: Vec<_> = all[0].1.iter().filter(|(_, words)| !words.is_empty()).collect();
    assert_eq!(with_words.len(), 6, "{with_words:?}");
    for (flag, words) in with_words {
        assert_eq!(words, &accepted(flag), "{flag}");
    }
}

/// The valid words that the error about an invalid word lists.
fn accepted(flag: &str) -> Vec<String> {
    let mut command = Command::new(binary());
    command.args([flag, "nonsense"]).env_clear().env("OZ_API_KEY", "k").env("OZ_WORKER_ID", "w");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let (_, words) = stderr.trim_end().split_once("must be one of ").unwrap_or_else(|| panic!("{stderr}"));
    words.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_help_and_the_man_page_have_the_same_exit_codes() {
    let help = printed(&["--help"]);
    let (_, codes) = help.split_once("\nExit codes:\n").unwrap();
    let help: Vec<_> = codes.lines().map(|line| line.trim().split_once(' ').unwrap()).collect();
    let help: Vec<_> =
        help.into_iter().map(|(code, words)| (code.to_owned(), words.trim().to_owned())).collect();
    let man = parse::items(&page("man"), "EXIT STATUS");
    let man: Vec<_> = man.into_iter().map(|(code, lines)| (code, lines.join(" "))).collect();
    assert_eq!(man, help);
    let codes: Vec<_> = help.into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, Exit::ALL.map(|(exit, _)| exit.code().to_string()));
}
