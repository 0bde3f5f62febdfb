//! Parses the settings back out of each text. Uses nothing but the text, so that the results can be compared.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::{read, spans, table};

/// A setting as a page describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// The short one first.
    pub(super) flags: Vec<String>,
    pub(super) variable: Option<String>,
    pub(super) default: Option<String>,
}

pub(super) type Entries = BTreeSet<Entry>;
/// The flags that completions offer, and the words that they offer for the value of each.
pub(super) type Offers = BTreeMap<String, Vec<String>>;

fn owned<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    words.into_iter().map(str::to_owned).collect()
}

fn insert(entries: &mut Entries, entry: Entry) {
    let shown = format!("{entry:?}");
    assert!(entries.insert(entry), "on one page twice: {shown}");
}

/// The flags or the variable in the first line of a description, such as `-v, --volumes HOST`.
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

/// The rows of the README's table of settings. A cell without a default is empty, or says `off` or `required`.
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

/// Every flag and variable of the worker in the README's text.
pub(super) fn readme_names() -> BTreeSet<String> {
    let text = read("README.md");
    let mut names = BTreeSet::new();
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        // Other variables belong to the tests and to the systemd unit.
        if word.starts_with("OZ_") && !word.starts_with("OZ_TEST_") && word != "OZ_WORKER_ARGS" {
            names.insert(word.to_owned());
        }
    }
    // Code spans with a flag, alone or with a value. Longer spans are commands of other programs.
    for span in spans(&text).into_iter().filter(|span| span.starts_with('-') && span.split(' ').count() <= 2)
    {
        names.insert(span.split([' ', '=']).next().unwrap().to_owned());
    }
    assert!(names.len() > 10, "{names:?}");
    names
}

/// Text of roff without fonts and escapes.
fn plain(roff: &str) -> String {
    let fonts = ["\\fB", "\\fI", "\\fR", "\\&"];
    let text = fonts.iter().fold(roff.to_owned(), |text, font| text.replace(font, ""));
    let signs = [("\\-", "-"), ("\\(aq", "'"), ("\\(ti", "~"), ("\\e", "\\")];
    signs.iter().fold(text, |text, (escape, sign)| text.replace(escape, sign))
}

/// The items of a section of the man page: the name and the lines of each.
pub(super) fn items(man: &str, section: &str) -> Vec<(String, Vec<String>)> {
    let (_, rest) = man.split_once(&format!("\n.SH {section}\n")).unwrap_or_else(|| panic!("no {section}"));
    let text = rest.split("\n.SH ").next().unwrap();
    let item = |item: &str| {
        let mut lines = item.lines().map(plain);
        (lines.next().unwrap(), lines.collect())
    };
    text.split(".TP\n").skip(1).map(item).collect()
}

/// The settings of the man page, and the variables of other programs.
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
    let mut external = BTreeSet::new();
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
            assert!(external.insert(name.clone()), "{name} twice");
        }
    }
    // Each variable of an option is in the section of variables too.
    let named: BTreeSet<_> = items(page, "ENVIRONMENT").into_iter().map(|(name, _)| name).collect();
    let missing =
        entries.iter().filter_map(|entry| entry.variable.as_ref()).find(|name| !named.contains(*name));
    assert_eq!(missing, None);
    (entries, external)
}

/// The variables of the sample: the default in the comment of each, and its value.
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

/// The flags of the last arm of the `case`, with the words of the other arms.
pub(super) fn bash(completion: &str) -> Offers {
    let (_, arms) = completion.split_once("case $flag in\n").expect("the case");
    let (arms, _) = arms.split_once("    esac\n").expect("its end");
    let mut offers = Offers::new();
    let mut valued = Offers::new();
    for arm in arms.split(";;\n").filter(|arm| !arm.trim().is_empty()) {
        let (names, action) = arm.split_once(")\n").unwrap();
        let words = action.replace("words+='", "words='");
        let words = words.split_once("words='").map(|(_, rest)| rest.split('\'').next().unwrap());
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
    let (_, rest) = completion.split_once("_arguments $own \\\n").expect("the call");
    let (lines, _) = rest.split_once("\n}\n").expect("its end");
    let mut offers = Offers::new();
    for line in lines.lines().map(|line| line.trim().trim_end_matches(" \\")) {
        let (names, rest) = line.split_once('[').unwrap_or_else(|| panic!("{line}"));
        let names = names.replace("(- *)", "");
        // The flags in parentheses before the names are those that they exclude.
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

/// Whether a line offers a flag of the worker, and not one of a sub-command.
fn is_of_worker(line: &&str) -> bool {
    line.starts_with("complete ")
        && line.contains(" -l ")
        && !line.contains(" -n '__fish_seen_subcommand_from")
}

/// The `complete` commands.
pub(super) fn fish(completion: &str) -> Offers {
    let mut offers = Offers::new();
    for line in completion.lines().filter(is_of_worker) {
        // Without the condition and the description.
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
