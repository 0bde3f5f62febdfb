//! Reads what a page says about the settings back out of its text.
//!
//! Owns the form of each page as its readers know it. It must not know the table of settings: what is found here is
//! compared, so it may only come from the text.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::{spans, table};

/// A setting as a page describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// In the order of the page: the short one first.
    pub(super) flags: Vec<String>,
    pub(super) variable: Option<String>,
    pub(super) default: Option<String>,
}

pub(super) type Entries = BTreeSet<Entry>;
/// Flags, and the words that are offered for the value of each; none for what is not one of a few words.
pub(super) type Offers = BTreeMap<String, Vec<String>>;

fn owned<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    words.into_iter().map(str::to_owned).collect()
}

fn insert(entries: &mut Entries, entry: Entry) {
    let shown = format!("{entry:?}");
    assert!(entries.insert(entry), "twice on one page: {shown}");
}

/// The flags or the variable with which a description begins: `-v, --volumes HOST`.
fn entry(names: &str) -> Entry {
    let words = names.split([' ', ',']).filter(|word| !word.is_empty());
    let flags: Vec<_> = words.clone().filter(|word| word.starts_with('-')).collect();
    let variable = if flags.is_empty() { words.into_iter().next() } else { None };
    Entry { flags: owned(flags), variable: variable.map(str::to_owned), default: None }
}

pub(super) fn help(text: &str) -> Entries {
    let (_, settings) = text.split_once("\nSettings").expect("settings");
    let (settings, _) = settings.split_once("\nExit codes:").expect("exit codes");
    let mut entries = Entries::new();
    for block in settings.split("\n\n").skip(1) {
        let mut lines = block.trim_matches('\n').lines();
        let mut found = entry(lines.next().unwrap().trim());
        for line in lines.map(str::trim) {
            found.variable = line.strip_prefix("Variable: ").map(str::to_owned).or(found.variable);
            found.default = line.strip_prefix("Default: ").map(str::to_owned).or(found.default);
        }
        insert(&mut entries, found);
    }
    entries
}

/// The table under `Settings`. A cell without a default says `off` or `required`, or nothing.
pub(super) fn readme() -> Entries {
    let mut entries = Entries::new();
    for row in table("Settings") {
        let default = row[2].replace('`', "");
        let none = default.is_empty() || default == "off" || default.starts_with("required");
        let found = Entry {
            flags: owned(spans(&row[0])),
            variable: spans(&row[1]).first().map(|name| (*name).to_owned()),
            default: (!none).then_some(default),
        };
        insert(&mut entries, found);
    }
    entries
}

/// The text of roff without its fonts and escapes.
fn plain(roff: &str) -> String {
    let fonts = ["\\fB", "\\fI", "\\fR", "\\&"];
    let text = fonts.iter().fold(roff.to_owned(), |text, font| text.replace(font, ""));
    let signs = [("\\-", "-"), ("\\(aq", "'"), ("\\(ti", "~"), ("\\e", "\\")];
    signs.iter().fold(text, |text, (escape, sign)| text.replace(escape, sign))
}

/// The items of a section of the man page: each with its name and its further lines.
pub(super) fn items(man: &str, section: &str) -> Vec<(String, Vec<String>)> {
    let (_, rest) = man.split_once(&format!("\n.SH {section}\n")).unwrap_or_else(|| panic!("no {section}"));
    let text = rest.split("\n.SH ").next().unwrap();
    let item = |item: &str| {
        let mut lines = item.lines().map(plain);
        (lines.next().unwrap(), lines.collect())
    };
    text.split(".TP\n").skip(1).map(item).collect()
}

/// The options, and what only a variable sets; then the variables that are not ours.
pub(super) fn man(page: &str) -> (Entries, BTreeSet<String>) {
    let value = |lines: &[String], before: &str| {
        lines.iter().find_map(|line| line.strip_prefix(before)).map(str::to_owned)
    };
    let mut entries = Entries::new();
    for (names, lines) in items(page, "OPTIONS") {
        let default = value(&lines, "Default: ");
        let variable = value(&lines, "Variable: ");
        insert(&mut entries, Entry { variable, default, ..entry(&names) });
    }
    let mut foreign = BTreeSet::new();
    for (name, lines) in items(page, "ENVIRONMENT") {
        let same = lines.first().and_then(|line| line.strip_prefix("The same as ")?.strip_suffix('.'));
        if let Some(flag) = same {
            let is_it = |entry: &Entry| {
                entry.variable.as_ref() == Some(&name) && entry.flags.iter().any(|other| other == flag)
            };
            assert!(entries.iter().any(is_it), "{name} is not what {flag} names");
        } else if name.starts_with("OZ_") {
            insert(&mut entries, Entry { default: value(&lines, "Default: "), ..entry(&name) });
        } else {
            assert!(foreign.insert(name.clone()), "{name} twice");
        }
    }
    // Each variable that an option names has its place among the variables too.
    let named: BTreeSet<_> = items(page, "ENVIRONMENT").into_iter().map(|(name, _)| name).collect();
    let missing =
        entries.iter().filter_map(|entry| entry.variable.as_ref()).find(|name| !named.contains(*name));
    assert_eq!(missing, None);
    (entries, foreign)
}

/// Each variable of the sample with the default that its comment names, and the value that is written there.
pub(super) fn environment(sample: &str) -> BTreeMap<String, (Option<String>, String)> {
    let mut found = BTreeMap::new();
    let mut default = None;
    for line in sample.lines() {
        match line.strip_prefix('#') {
            None => default = None,
            Some(comment) if comment.starts_with(' ') => {
                default = comment.trim().strip_prefix("Default: ").map(str::to_owned).or(default);
            }
            Some("") => {}
            Some(setting) => {
                let (name, value) = setting.split_once('=').unwrap_or_else(|| panic!("{line}"));
                let before = found.insert(name.to_owned(), (default.take(), value.to_owned()));
                assert_eq!(before, None, "{name} twice");
            }
        }
    }
    found
}

/// The list of all flags, and for each arm of the `case` with words its flags.
pub(super) fn bash(completion: &str) -> Offers {
    let (_, arms) = completion.split_once("case $flag in\n").expect("the case");
    let (arms, _) = arms.split_once("    esac\n").expect("its end");
    let mut offers = Offers::new();
    let mut valued = Offers::new();
    for arm in arms.split(";;\n").filter(|arm| !arm.trim().is_empty()) {
        let (names, action) = arm.split_once(")\n").unwrap();
        let words = action.split_once("words='").map(|(_, rest)| rest.split('\'').next().unwrap());
        let words = words.map(|words| owned(words.split(' '))).unwrap_or_default();
        if names.trim() == "*" {
            offers = words.into_iter().map(|flag| (flag, Vec::new())).collect();
        } else {
            valued.extend(names.trim().split(" | ").map(|flag| (flag.to_owned(), words.clone())));
        }
    }
    for (flag, words) in valued {
        assert!(offers.insert(flag.clone(), words).is_some(), "{flag} has values, but is not offered");
    }
    offers
}

/// The specifications given to `_arguments`.
pub(super) fn zsh(completion: &str) -> Offers {
    let (_, rest) = completion.split_once("_arguments \\\n").expect("the call");
    let (lines, _) = rest.split_once("\n}\n").expect("its end");
    let mut offers = Offers::new();
    for line in lines.lines().map(|line| line.trim().trim_end_matches(" \\")) {
        let (names, rest) = line.split_once('[').unwrap_or_else(|| panic!("{line}"));
        let names = names.replace("(- *)", "");
        // What is between brackets before the names is what they exclude.
        let names = names.rsplit(')').next().unwrap();
        let flags = names.split(['{', '}', ',', '\'', '*']).filter(|part| part.starts_with('-'));
        let words = rest.rsplit_once(":(").map(|(_, words)| words.trim_end_matches([')', '\'']));
        let words = words.map(|words| owned(words.split(' '))).unwrap_or_default();
        for flag in flags {
            let flag = flag.trim_end_matches(['=', '+']).to_owned();
            assert_eq!(offers.insert(flag, words.clone()), None, "twice: {line}");
        }
    }
    offers
}

/// The `complete` commands.
pub(super) fn fish(completion: &str) -> Offers {
    let mut offers = Offers::new();
    for line in completion.lines().filter(|line| line.starts_with("complete ") && line.contains(" -l ")) {
        // Neither the condition nor the description is of interest.
        let line = line.split(" -d '").next().unwrap();
        let line = if line.contains(" -n '") { line.splitn(3, '\'').nth(2).unwrap() } else { line };
        let mut words = Vec::new();
        let mut flags = Vec::new();
        let mut rest = line.split(' ');
        while let Some(word) = rest.next() {
            match word {
                "-s" => flags.push(format!("-{}", rest.next().unwrap())),
                "-l" => flags.push(format!("--{}", rest.next().unwrap())),
                "-a" => words = owned(rest.by_ref().map(|word| word.trim_matches('\''))),
                _ => {}
            }
        }
        for flag in flags {
            assert_eq!(offers.insert(flag, words.clone()), None, "twice: {line}");
        }
    }
    offers
}
