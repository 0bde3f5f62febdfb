//! The form of a file: its header and its length.

use super::{files, read, sources};

/// Lines of code, without comments and tests.
const LONGEST: usize = 400;

fn rust() -> Vec<String> {
    let names = files().into_iter().map(|(name, _)| name);
    names.filter(|name| name.ends_with(".rs")).collect()
}

#[test]
fn each_file_starts_with_a_header() {
    let is_test = |name: &str| name.ends_with("/tests.rs") || name.ends_with("_tests.rs");
    let has_none = |name: &String| !is_test(name) && !read(name).starts_with("//! ");
    assert_eq!(rust().into_iter().filter(has_none).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn no_file_is_longer_than_the_limit() {
    for source in sources() {
        assert!(source.code.len() <= LONGEST, "{} has {} lines of code", source.path, source.code.len());
    }
    for name in rust() {
        let lines = read(&name).lines().count();
        assert!(lines <= LONGEST + LONGEST / 4, "{name} has {lines} lines with its tests and comments");
    }
}

#[test]
fn main_is_short() {
    assert!(read("src/main.rs").lines().count() <= 20);
}

/// Files must not refer to pages outside of the repository, because a reader has only the repository.
#[test]
fn no_file_refers_to_a_page_outside_of_the_repository() {
    let pages = ["PROTOCOL", "ENGINE", "DESIGN", "STATIC"].map(|page| format!("{page}.md"));
    let words: Vec<String> = pages.into_iter().chain([["..", "shared"].join("/")]).collect();
    let mut seen = 0;
    for (name, path) in files() {
        let bytes = std::fs::read(path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let found: Vec<_> = words.iter().filter(|word| text.contains(word.as_str())).collect();
        assert!(found.is_empty(), "{name} mentions {found:?}");
        seen += 1;
    }
    assert!(seen > 100, "only {seen} files were looked at");
}
