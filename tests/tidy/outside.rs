//! What the project says and brings along: the README's tables, and what it depends on.

use std::process::Command;

use oz_agent_worker::exit::Exit;

use super::{read, root};

/// The rows of the table under a heading, each as its cells without blanks.
pub(crate) fn table(heading: &str) -> Vec<Vec<String>> {
    let text = read("README.md");
    let section = text.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("README.md has no section {heading}"));
    let cells = |line: &str| -> Vec<String> {
        // A bar inside of a code span is written with a backslash.
        let line = line.trim().trim_matches('|').replace("\\|", "\u{0}");
        line.split('|').map(|cell| cell.replace('\u{0}', "|").trim().to_owned()).collect()
    };
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with('|')).skip(2).map(cells).collect();
    assert!(!rows.is_empty(), "the section {heading} has no table");
    rows
}

/// The code spans of a cell.
pub(crate) fn spans(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_readme_has_every_exit_code() {
    let rows = table("Exit codes");
    let codes: Vec<_> = rows.iter().map(|row| row[0].replace('`', "")).collect();
    let expected: Vec<_> = Exit::ALL.iter().map(|(exit, _)| exit.code().to_string()).collect();
    assert_eq!(codes, expected);
    assert!(rows.iter().all(|row| row.len() == 2 && row[1].len() > 10), "{rows:#?}");
}

/// The product has no async runtime, no HTTP or Docker library, and no second TLS beside the system's.
#[test]
fn the_product_depends_on_nothing_that_was_ruled_out() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = ["tree", "--offline", "--locked", "-e", "normal", "--prefix", "none", "--format", "{p}"];
    let tree = Command::new(cargo).args(args).current_dir(root()).output().unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    let names: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"oz-agent-worker") && names.contains(&"tungstenite"), "{names:?}");
    let ruled_out =
        ["tokio", "async-std", "smol", "futures", "hyper", "bollard", "ring", "rustls", "reqwest"];
    let found: Vec<_> = names.iter().filter(|name| ruled_out.contains(name)).collect();
    assert_eq!(found, Vec::<&&str>::new());
}
