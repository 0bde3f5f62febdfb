//! The README's tables, and the product's dependencies.

use std::process::Command;

use oz_agent_worker::exit::Exit;

use super::{read, root};

/// Returns the rows of the table under a heading, each as its cells.
pub(crate) fn table(heading: &str) -> Vec<Vec<String>> {
    let text = read("README.md");
    let section = text.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("README.md has no section {heading}"));
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with('|')).skip(2).map(cells).collect();
    assert!(!rows.is_empty(), "the section {heading} has no table");
    rows
}

/// Returns the rows of the README's table with these column heads, in lower case.
pub(crate) fn table_with(heads: &[&str]) -> Vec<Vec<String>> {
    let text = read("README.md");
    let is_head = |line: &&str| line.starts_with('|') && cells(&line.to_lowercase()) == heads;
    let mut lines = text.lines().skip_while(|line| !is_head(line));
    assert!(lines.next().is_some(), "README.md has no table with the columns {heads:?}");
    lines.take_while(|line| line.starts_with('|')).skip(1).map(cells).collect()
}

/// Returns a row's cells, trimmed. A bar in a code span is written with a backslash.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim().trim_matches('|').replace("\\|", "\u{0}");
    line.split('|').map(|cell| cell.replace('\u{0}', "|").trim().to_owned()).collect()
}

/// Returns the code spans of a cell.
pub(crate) fn spans(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_readme_names_the_declared_rust() {
    let manifest = read("Cargo.toml");
    let declared = manifest.lines().find_map(|line| line.strip_prefix("rust-version = "));
    let needed = format!("Rust {} or newer", declared.unwrap().trim_matches('"'));
    let text = read("README.md").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains(&needed), "README.md does not say {needed:?}");
    let fuzz = read("tests/fuzz/Cargo.toml");
    assert!(fuzz.lines().any(|line| line.strip_prefix("rust-version = ") == declared));
}

#[test]
fn the_readme_has_every_exit_code() {
    let rows = table("Exit codes");
    let codes: Vec<_> = rows.iter().map(|row| row[0].replace('`', "")).collect();
    let expected: Vec<_> = Exit::ALL.iter().map(|(exit, _)| exit.code().to_string()).collect();
    assert_eq!(codes, expected);
    assert!(rows.iter().all(|row| row.len() == 2 && row[1].len() > 10), "{rows:#?}");
}

/// Checks the bans of `.deny.toml` without a tool; `make deny` checks more.
#[test]
fn the_product_depends_on_no_banned_crate() {
    let rules = read(".deny.toml");
    let list = rules.split_once("\ndeny = [").and_then(|(_, rest)| rest.split_once(']')).unwrap().0;
    let banned: Vec<_> = list.split('"').skip(1).step_by(2).collect();
    assert!(banned.contains(&"tokio") && banned.contains(&"rustls"), "{banned:?}");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = ["tree", "--offline", "--locked", "-e", "normal", "--prefix", "none", "--format", "{p}"];
    let tree = Command::new(cargo).args(args).current_dir(root()).output().unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    let names: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"oz-agent-worker") && names.contains(&"tungstenite"), "{names:?}");
    let found: Vec<_> = names.iter().filter(|name| banned.contains(name)).collect();
    assert_eq!(found, Vec::<&&str>::new());
}
