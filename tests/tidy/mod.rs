//! Rules that neither the compiler nor clippy can check, checked on the source text. No engine, no network.

mod files;
mod imports;
mod modules;
mod outside;

use std::path::{Path, PathBuf};

pub(crate) use outside::{spans, table};

/// A source file of the product.
pub(crate) struct Source {
    /// From the repository's root, as `src/docker/conn.rs`.
    pub(crate) path: String,
    /// Its lines of code, without comments and tests, with their numbers.
    pub(crate) code: Vec<(usize, String)>,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every file outside of `target` and `.git` with its path from the root.
pub(crate) fn files() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            match path.is_dir() {
                true if matches!(name.as_str(), "target" | ".git") => {}
                true => folders.push(path),
                false => found.push((name, path)),
            }
        }
    }
    found.retain(|(name, _)| name != ".git");
    found.sort();
    found
}

/// Returns a file's text by its path from the root.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the files in `src` that contain product code.
pub(crate) fn sources() -> Vec<Source> {
    let is_test = |name: &str| name.ends_with("/tests.rs") || name.ends_with("_tests.rs");
    let names = files().into_iter().map(|(name, _)| name);
    let names = names.filter(|name| name.starts_with("src/") && !is_test(name));
    let sources: Vec<Source> = names.map(|path| Source { code: code(&read(&path)), path }).collect();
    assert!(sources.len() > 40, "only {} files were found", sources.len());
    sources
}

/// Returns the lines that are neither blank nor a comment nor part of an item with `#[cfg(test)]`, which ends with the first
/// line's semicolon or with a brace in its own column.
fn code(text: &str) -> Vec<(usize, String)> {
    let mut code = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        let indent = line.strip_suffix(line.trim_start()).unwrap_or_default();
        if line.trim() == "#[cfg(test)]" {
            let item = lines.by_ref().map(|(_, line)| line).find(|line| !line.trim().starts_with('#'));
            if !item.unwrap_or_default().ends_with(';') {
                let end = format!("{indent}}}");
                lines.by_ref().find(|(_, line)| *line == end);
            }
        } else if !line.trim().is_empty() && !line.trim().starts_with("//") {
            code.push((number, line.to_owned()));
        }
    }
    code
}

/// Returns each line of code that has any of these words, as `path:line: text`.
pub(crate) fn places<'a>(sources: impl IntoIterator<Item = &'a Source>, words: &[&str]) -> Vec<String> {
    let has = |line: &str| words.iter().any(|word| line.contains(word));
    let of = |source: &'a Source| {
        let lines = source.code.iter().filter(|(_, line)| has(line));
        let place = |(number, line): &(usize, String)| format!("{}:{number}: {}", source.path, line.trim());
        lines.map(place).collect::<Vec<_>>()
    };
    sources.into_iter().flat_map(of).collect()
}

#[test]
fn items_for_tests_are_left_out() {
    let text = "a\n#[cfg(test)]\n#[path = \"x\"]\nmod x;\nb\n    #[cfg(test)]\n    fn f() {\n        c\n    }\n// d\n\n\
                #[cfg(test)]\nmod tests {\n    e\n}\nf";
    let lines: Vec<_> = code(text).into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines, ["a", "b", "f"]);
}
