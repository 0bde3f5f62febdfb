//! The completions in real shells: what each offers for a partly typed line.

use std::collections::BTreeSet;
use std::process::Command;

use super::{page, page_file, parse, quietly};

/// A line, and the completions of its last word.
type Case<'a> = (&'a str, &'a [&'a str]);

/// Completions that all shells share. Each treats `=` within a word in its own way.
const CASES: [Case<'_>; 21] = [
    ("--lo", &["--log-format", "--log-level", "--log-opt", "--log-output-lines", "--lost-runs"]),
    ("--no-cleanup --vers", &["--version"]),
    ("--nonsense", &[]),
    ("nonsense", &[]),
    ("--log-level ", &["debug", "info", "warn", "error"]),
    ("--log-level d", &["debug"]),
    ("--worker-id w --pull a", &["auto", "always"]),
    ("--lost-runs ", &["stop", "finish"]),
    ("--print ", &["man", "bash", "zsh", "fish", "environment", "settings"]),
    ("--worker-id ", &[]),
    ("-e ", &[]),
    ("st", &["status"]),
    ("he", &["health"]),
    ("health --met", &["--metrics-listen"]),
    ("check --js", &["--json"]),
    ("check --lost", &["--lost-runs"]),
    ("status --fo", &["--follow"]),
    ("status --follow ", &[]),
    ("status --max-", &[]),
    ("status --json --settings-file o", &["other"]),
    ("--worker-id w --max-", &["--max-concurrent-tasks", "--max-output"]),
];

/// A folder with two files, one with a space in its name, and a folder.
fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key one"), "k").unwrap();
    std::fs::write(folder.path().join("other"), "k").unwrap();
    std::fs::create_dir(folder.path().join("keys")).unwrap();
    folder
}

fn set<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    words.into_iter().filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn assert_offers(ask: &dyn Fn(&str) -> BTreeSet<String>, cases: &[Case<'_>]) {
    for (line, expected) in cases {
        assert_eq!(ask(line), set(expected.iter().copied()), "{line:?}");
    }
}

/// `COMP_WORDS` as bash sets it: an equals sign or a colon is a separate word.
fn comp_words(line: &str) -> Vec<String> {
    let mut words = vec!["oz-agent-worker".to_owned()];
    for word in line.split(' ') {
        let apart = word.replace('=', "\u{0}=\u{0}").replace(':', "\u{0}:\u{0}");
        let parts: Vec<_> = apart.split('\u{0}').map(str::to_owned).collect();
        // A sign at the end of the line is the word being typed.
        let end = if parts.len() > 1 && parts.last().is_some_and(String::is_empty) {
            parts.len() - 1
        } else {
            parts.len()
        };
        words.extend(parts.into_iter().take(end));
    }
    words
}

#[test]
fn bash_offers_flags_words_and_files() {
    let (_page, file) = page_file("bash");
    let folder = files();
    let ask = |line: &str| {
        let script = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
                      _oz_agent_worker; printf '%s\\n' \"${COMPREPLY[@]}\"";
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-u", "-c", script, "bash", &file]).args(comp_words(line));
        set(quietly(bash.current_dir(folder.path())).lines())
    };
    assert_offers(&ask, &CASES);
    assert_offers(
        &ask,
        &[
            ("--pull=", &["auto", "always", "missing", "never"]),
            ("--pull=al", &["always"]),
            ("--no-cleanup=", &[]),
            ("--pull=auto --vers", &["--version"]),
            ("--api-key-file k", &["key one", "keys"]),
            ("--api-key-file=ke", &["key one", "keys"]),
            ("-v o", &["other"]),
            ("--volumes ./o", &["./other"]),
            ("--volumes ./other:", &[]),
            ("--volumes ./other:k", &[]),
        ],
    );
    let all: BTreeSet<_> = parse::bash(&page("bash")).into_keys().collect();
    let names = oz_agent_worker::cli::COMMANDS.iter().map(|command| command.name.to_owned());
    assert_eq!(ask(""), all.iter().cloned().chain(names).collect());
    assert_eq!(ask("-v /a:/b "), all);
}

/// Other tests call the function directly, which does not prove that bash uses it.
#[test]
fn bash_calls_the_function_for_the_worker() {
    let (_page, file) = page_file("bash");
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", "source \"$1\"; complete -p oz-agent-worker", "bash", &file]);
    assert_eq!(quietly(&mut bash), "complete -F _oz_agent_worker oz-agent-worker");
}

#[test]
fn fish_offers_flags_words_and_files_and_no_flag_twice() {
    let (_page, file) = page_file("fish");
    quietly(Command::new("fish").args(["-N", "-n", &file]));
    let folder = files();
    let home = tempfile::tempdir().unwrap();
    let lines = |line: &str| {
        let script = "source $argv[1]; complete -C \"oz-agent-worker $argv[2]\"";
        let mut fish = Command::new("fish");
        fish.args(["-N", "-c", script, &file, line]).env("HOME", home.path());
        quietly(fish.current_dir(folder.path()))
    };
    // Fish 4 also offers words that only contain the letters.
    let ask = |line: &str| {
        let begun = line.rsplit(' ').next().unwrap();
        let lines = lines(line);
        let words = lines.lines().map(|line| line.split('\t').next().unwrap());
        set(words.filter(|word| word.starts_with(begun)))
    };
    assert_offers(&ask, &CASES);
    assert_offers(
        &ask,
        &[
            ("--pull=al", &["--pull=always"]),
            ("--api-key-file k", &["key one", "keys/"]),
            ("-v ./o", &["./other"]),
            ("--pull never --pu", &[]),
            ("--pull=never --pu", &[]),
            ("--no-cleanup --no-c", &[]),
            ("--help --hel", &[]),
            ("-v /a:/b --vo", &["--volumes"]),
        ],
    );
    let all: BTreeSet<_> = parse::fish(&page("fish")).into_keys().collect();
    assert_eq!(ask("-"), all);
    assert_eq!(
        lines("--web"),
        "--web-socket-url\tThe control plane's WebSocket URL for workers: ws:// or wss://"
    );
}

/// An interactive zsh on its own terminal, which lists its completions and exits.
const ZSHRC: &str = r#"
PROMPT= LISTMAX=10000
autoload -Uz compinit && compinit -u -d $ZDOTDIR/dump
[[ -z $COMPLETION ]] || source $COMPLETION
zle-line-init() { LBUFFER=$LINE; zle list-choices; exit }
zle -N zle-line-init
"#;
const TERMINAL: &str =
    "zmodload zsh/zpty; zpty inner 'zsh -d -i'; while zpty -r inner line; do print -rn -- $line; done";

struct Zsh {
    home: tempfile::TempDir,
    files: tempfile::TempDir,
}

impl Zsh {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(".zshrc"), ZSHRC).unwrap();
        std::fs::write(home.path().join("_oz-agent-worker"), page("zsh")).unwrap();
        Self { home, files: files() }
    }

    /// The lines of the list, without escapes of the terminal.
    fn lists(&self, line: &str, sourced: bool) -> Vec<String> {
        let mut zsh = Command::new("zsh");
        zsh.args(["-d", "-f", "-c", TERMINAL]).current_dir(self.files.path());
        zsh.env("ZDOTDIR", self.home.path()).env("LINE", format!("oz-agent-worker {line}"));
        zsh.env("TERM", "xterm").env("COLUMNS", "300").env("LINES", "100");
        if sourced {
            zsh.env("COMPLETION", self.home.path().join("_oz-agent-worker"));
        } else {
            zsh.env("FPATH", format!("{}:{}", self.home.path().display(), fpath()));
        }
        let screen = quietly(&mut zsh);
        // First the line itself, then the list, then the cursor moves back up to the line.
        let (_, after) = screen.split_once("\u{1b}[J\u{1b}[K").unwrap_or_else(|| panic!("{screen:?}"));
        assert!(after.contains(line.trim_end()), "{screen:?}");
        let Some((_, list)) = after.split_once("\u{1b}[J") else { return Vec::new() };
        let Some((list, _)) = list.split_once("\u{1b}[A").or_else(|| split_up(list)) else {
            return Vec::new();
        };
        list.replace("\u{1b}[K", "").lines().map(|line| line.trim().to_owned()).collect()
    }

    /// The completions: flags are before their descriptions, words and files side by side.
    fn offers(&self, line: &str) -> BTreeSet<String> {
        let lists = self.lists(line, true);
        let names = lists.iter().flat_map(|line| line.split(" -- ").next().unwrap().split("  "));
        set(names.map(str::trim))
    }
}

/// Splits the list before the cursor moves up by more than one line.
fn split_up(list: &str) -> Option<(&str, &str)> {
    let place = list.match_indices("\u{1b}[").find(|(place, _)| {
        let rest = list.get(place + 2..).unwrap_or_default();
        rest.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('A')
    });
    list.split_at_checked(place?.0)
}

/// The folders of zsh's own functions.
fn fpath() -> String {
    quietly(Command::new("zsh").args(["-d", "-f", "-c", "print -r -- $FPATH"]).env_remove("FPATH"))
}

#[test]
fn zsh_offers_flags_words_and_files_and_no_flag_twice() {
    let zsh = Zsh::new();
    quietly(Command::new("zsh").arg("-n").arg(zsh.home.path().join("_oz-agent-worker")));
    assert_offers(&|line| zsh.offers(line), &CASES);
    assert_offers(
        &|line| zsh.offers(line),
        &[
            ("--pull=al", &["always"]),
            ("--api-key-file k", &["key\\ one", "keys/"]),
            ("-v ./o", &["other"]),
            ("-v./o", &["other"]),
            ("--pull never --pu", &[]),
            ("--pull=never --pu", &[]),
            ("--no-cleanup --no-c", &[]),
            ("--help --vers", &[]),
            ("-v /a:/b --vo", &["--volumes"]),
        ],
    );
}

/// From a folder of `fpath`, as packages install it.
#[test]
fn zsh_loads_the_completion_from_a_folder_and_shows_descriptions() {
    let zsh = Zsh::new();
    let lines = zsh.lists("-", false);
    let described = |line: &String| {
        let (names, words) = line.split_once(" -- ").unwrap_or_else(|| panic!("{lines:?}"));
        (names.split_whitespace().map(str::to_owned).collect::<Vec<_>>(), words.trim().to_owned())
    };
    let shown: Vec<_> = lines.iter().map(described).collect();
    let flags: BTreeSet<_> = shown.iter().flat_map(|(flags, _)| flags.clone()).collect();
    assert_eq!(flags, parse::zsh(&page("zsh")).into_keys().collect());
    let words = "The control plane's WebSocket URL for workers: ws:// or wss://";
    assert!(shown.contains(&(vec!["--web-socket-url".to_owned()], words.to_owned())), "{shown:?}");
}
