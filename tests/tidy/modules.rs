//! Which module may use which: dependencies point one way.

use std::collections::{BTreeMap, BTreeSet};

use super::outside::{spans, table_with};
use super::{read, sources};

/// Each module of `src` and the modules that it may use. README.md shows the same table.
///
/// A module's fuzz entry points (`*/fuzz.rs`, `*/fuzz/`) are part of `fuzz`.
const MAY_USE: [(&str, &[&str]); 16] = [
    ("app", &[ALL]),
    ("cli", &["docker", "exit", "logging", "net", "policy", "secret", "sys"]),
    ("control_plane", &["job", "logging", "net", "protocol", "secret", "sys"]),
    ("coordinator", &["exit", "job", "logging", "metrics", "policy", "protocol", "sys"]),
    ("docker", &["logging", "net", "secret", "sys"]),
    ("exit", &[]),
    ("fuzz", &["cli", "control_plane", "docker", "logging", "policy", "protocol", "secret", "sys", "task"]),
    ("job", &["protocol", "sys"]),
    ("logging", &[]),
    ("metrics", &["sys"]),
    ("net", &["logging", "secret", "sys"]),
    ("policy", &["docker", "protocol"]),
    ("protocol", &["logging", "metrics", "secret"]),
    ("secret", &[]),
    ("sys", &[]),
    ("task", &["docker", "job", "logging", "metrics", "policy", "protocol", "secret", "sys"]),
];

/// Every module but `fuzz`, used or not.
const ALL: &str = "all others";

/// Returns each edge between two modules with the files that have it.
fn used() -> BTreeMap<(String, String), Vec<String>> {
    let mut edges: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for source in sources() {
        let path = source.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        if matches!(path, "lib" | "main") {
            continue;
        }
        let is_fuzz = path.split('/').any(|part| part == "fuzz");
        let from = if is_fuzz { "fuzz" } else { path.split('/').next().unwrap() };
        let lines: Vec<_> = source.code.iter().map(|(_, line)| line.as_str()).collect();
        for to in from_root(&lines.join("\n"), path.split('/').count()) {
            if to != from {
                edges.entry((from.to_owned(), to)).or_default().push(source.path.clone());
            }
        }
    }
    edges
}

/// Returns the first name of every path that starts at the crate's root, in a module `depth` levels below it.
fn from_root(code: &str, depth: usize) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for root in ["crate::".to_owned(), "super::".repeat(depth)] {
        for rest in code.split(&root).skip(1) {
            match rest.strip_prefix('{') {
                Some(group) => names.extend(first_names(group)),
                None => names.extend(name(rest)),
            }
        }
    }
    names
}

/// Returns the first name of every path in a group, up to its closing brace.
fn first_names(group: &str) -> Vec<String> {
    let (mut flat, mut depth) = (String::new(), 1);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            c if depth == 1 => flat.push(c),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    flat.split(',').filter_map(name).collect()
}

/// Returns the identifier at the start of a text, unless it is a type's.
fn name(text: &str) -> Option<String> {
    let name = text.trim_start().split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()?;
    let is_module = name.starts_with(|c: char| c.is_ascii_lowercase());
    (is_module && !matches!(name, "self" | "super")).then(|| name.to_owned())
}

/// Returns the modules that a file declares.
fn declared(path: &str) -> BTreeSet<String> {
    let text = read(path);
    let item = |line: &str| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
    };
    text.lines().filter_map(item).collect()
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let table = BTreeMap::from(MAY_USE);
    let is_allowed = |from: &str, to: &str| {
        let list = table.get(from).unwrap_or_else(|| panic!("{from} is not in the table"));
        list.contains(&to) || (list.contains(&ALL) && to != "fuzz")
    };
    let found: Vec<_> = used().into_iter().filter(|((from, to), _)| !is_allowed(from, to)).collect();
    assert!(found.is_empty(), "not in the table: {found:#?}");
}

#[test]
fn the_table_has_no_edge_that_no_file_uses() {
    let used = used();
    let edges = MAY_USE.iter().flat_map(|(from, list)| list.iter().map(move |to| (*from, *to)));
    let is_used = |from: &str, to: &str| used.contains_key(&(from.to_owned(), to.to_owned()));
    let unused: Vec<_> = edges.filter(|(from, to)| *to != ALL && !is_used(from, to)).collect();
    assert!(unused.is_empty(), "no file uses: {unused:#?}");
}

#[test]
fn the_table_has_no_cycle() {
    let mut left = BTreeMap::from(MAY_USE);
    let all = left.remove("app");
    assert_eq!(all, Some([ALL].as_slice()));
    assert!(left.values().all(|list| !list.contains(&"app") && !list.contains(&ALL)), "{left:#?}");
    loop {
        let keys: BTreeSet<_> = left.keys().copied().collect();
        left.retain(|_, list| list.iter().any(|to| keys.contains(to)));
        if left.len() == keys.len() {
            break;
        }
    }
    assert!(left.is_empty(), "a cycle is among {left:#?}");
}

#[test]
fn the_table_and_the_dead_code_check_have_every_module() {
    let modules = declared("src/lib.rs");
    assert_eq!(BTreeSet::from_iter(MAY_USE.map(|(module, _)| module.to_owned())), modules);
    let mut product = modules;
    assert!(product.remove("fuzz"));
    assert_eq!(declared("tests/tidy/unused.rs"), product);
}

/// All but `fuzz`, which is not in the product.
#[test]
fn the_readme_has_the_table_of_modules() {
    let rows = table_with(&["module", "may use", "purpose"]);
    let list = |cell: &str| match cell {
        ALL => vec![ALL.to_owned()],
        cell => spans(cell).into_iter().map(str::to_owned).collect(),
    };
    let shown: Vec<_> = rows.iter().map(|row| (list(&row[0]), list(&row[1]))).collect();
    let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let product = MAY_USE.iter().filter(|(module, _)| *module != "fuzz");
    let expected: Vec<_> = product.map(|(module, list)| (owned(&[module]), owned(list))).collect();
    assert_eq!(shown, expected);
}

#[test]
fn uses_are_found_in_all_their_forms() {
    let found = |code: &str, depth| from_root(code, depth).into_iter().collect::<Vec<_>>();
    assert_eq!(found("use crate::net::{a, b};\nlet x = crate::sys::pool();", 1), ["net", "sys"]);
    assert_eq!(
        found("use crate::{\n    docker::{x, y::z},\n    job,\n    Type, task::{self},\n};", 2),
        ["docker", "job", "task"]
    );
    assert_eq!(found("use super::protocol::Report;\nuse super::{net, Other};", 1), ["net", "protocol"]);
    assert_eq!(found("use super::error::Error;\nuse super::super::exit::Exit;", 2), ["exit"]);
}
