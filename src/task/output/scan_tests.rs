use super::*;
use crate::sys::numbers::Numbers;

fn scan<'a>(parts: impl IntoIterator<Item = &'a str>) -> Found {
    let mut scanner = Scanner::default();
    let mut found = Found::default();
    parts.into_iter().for_each(|part| scanner.push(part, &mut found));
    scanner.finish(&mut found);
    found
}

/// A simple implementation for the whole text, without limits on lengths.
fn scan_whole(text: &str) -> Found {
    let mut artifacts: Vec<String> = vec![];
    for (start, _) in text.match_indices(PULL_REQUEST) {
        let url = pull_request_at(text.get(start..).unwrap());
        artifacts.extend(url.filter(|url| !artifacts.contains(url)));
    }
    let mentions = |line: &&str| line.to_ascii_lowercase().contains("session");
    let session_link = text.split('\n').filter(mentions).find_map(first_url);
    Found { artifacts, session_link }
}

fn pull_request_at(text: &str) -> Option<String> {
    let mut parts = text.strip_prefix(PULL_REQUEST)?.splitn(4, '/');
    let (owner, repo, pull, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let good = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
    };
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let is_one = good(owner) && good(repo) && pull == "pull" && !digits.is_empty();
    is_one.then(|| format!("https://github.com/{owner}/{repo}/pull/{digits}"))
}

fn first_url(line: &str) -> Option<String> {
    let lower = line.to_ascii_lowercase();
    let mut from = 0;
    loop {
        let here = lower.get(from..)?;
        let start = from + [here.find("http://"), here.find("https://")].into_iter().flatten().min()?;
        let run: String =
            line.get(start..)?.chars().take_while(|c| !c.is_ascii() || !ends_url(*c as u8)).collect();
        let run: String = run.chars().take_while(char::is_ascii).collect();
        let (scheme, rest) = run.split_once("://")?;
        let rest = rest.trim_end_matches(|c| ".,;:!?*)]}'\">".contains(c));
        if rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') {
            return Some(format!("{}://{rest}", scheme.to_ascii_lowercase()));
        }
        from = start + run.len();
    }
}

#[test]
fn pull_request_urls_are_found() {
    let cases: [(&str, &[&str]); 12] = [
        ("see https://github.com/o/r/pull/12.", &["12"]),
        ("https://github.com/o/r/pull/12/files#x https://github.com/o/r/pull/12", &["12"]),
        ("https://github.com/o/r/pull/12abc\nhttps://github.com/o/r/pull/1", &["12", "1"]),
        ("https://github.com/o/r/pull/2 https://github.com/o/r/pull/1", &["2", "1"]),
        ("https://github.com/https://github.com/o/r/pull/3", &["3"]),
        ("https://github.com/o/r/pull/https://github.com/o/r/pull/4", &["4"]),
        ("hhttps://githhttps://github.com/o/r/pull/5", &["5"]),
        ("\x1b[1mhttps://github.com/o/r/pull/6\x1b[0m7", &["6"]),
        ("https://github.com/o/r/pull/8é9", &["8"]),
        ("http://github.com/o/r/pull/1 https://github.com/o/pull/1 https://github.com//r/pull/1", &[]),
        ("https://github.com/o/r/pull/ https://github.com/o/r/pulls/1 https://github.com/o/r/pul/1", &[]),
        ("https://github.com/o r/pull/1 https://github.com/o/r/issues/1 https://github.com/o/r/pull", &[]),
    ];
    for (text, numbers) in cases {
        let expected: Vec<_> =
            numbers.iter().map(|number| format!("https://github.com/o/r/pull/{number}")).collect();
        assert_eq!(scan([text]).artifacts, expected, "{text}");
    }
    let odd = "https://github.com/A-b_c.d/0.-_Z/pull/0";
    assert_eq!(scan([odd]).artifacts, [odd]);
}

#[test]
fn session_links_are_found() {
    let cases = [
        ("session https://s.example/1", Some("https://s.example/1")),
        ("Session: (https://s.example/1).", Some("https://s.example/1")),
        ("open <http://s.example/SESSIONS/1?a=b&c=d#e>;", Some("http://s.example/SESSIONS/1?a=b&c=d#e")),
        ("https://a.example https://b.example session", Some("https://a.example")),
        ("https://a.example\nsession\nhttps://b.example", None),
        (
            "https://a.example\nmy session https://b.example\nsession https://c.example",
            Some("https://b.example"),
        ),
        ("sess ion https://a.example", None),
        ("sesession=\"https://a.example/x\",\"https://b.example\"", Some("https://a.example/x")),
        ("session \x1b[4mhttps://a.example/x\x1b[0m.", Some("https://a.example/x")),
        ("\x1b]8;;https://a.example/x\x1b\\session\x1b]8;;\x1b\\", Some("https://a.example/x")),
        ("\x1b]8;;https://a.example/x\x07session", Some("https://a.example/x")),
        ("session http://, https://... https://a.example", Some("https://a.example")),
        ("session hhttphttps://a.example", Some("https://a.example")),
        ("session HTTPS://A.example/X", Some("https://A.example/X")),
        ("session [link](https://a.example/x_y(1))", Some("https://a.example/x_y(1")),
        ("session https://[::1]:8080/x", Some("https://[::1]:8080/x")),
        ("session **https://a.example/x!**", Some("https://a.example/x")),
        ("session https://a.example/xé", Some("https://a.example/x")),
        ("session ftp://a.example", None),
    ];
    for (text, link) in cases {
        assert_eq!(scan([text]).session_link.as_deref(), link, "{text}");
    }
}

#[test]
fn the_result_does_not_depend_on_the_split() {
    let texts = [
        "xhttps://github.com/o/r/pull/12 https://github.com/a/b/pull/3",
        "https://github.com/https://github.com/o/r/pull/3é",
        "hhttp://a.example/é\nsesSession \"https://b.example/1\".",
    ];
    for text in texts {
        let whole = scan_whole(text);
        assert_ne!(whole, Found::default());
        let borders: Vec<_> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
        for first in &borders {
            for second in borders.iter().filter(|second| *second >= first) {
                let (left, right) = text.split_at(*second);
                let (left, middle) = left.split_at(*first);
                assert_eq!(scan([left, middle, right]), whole, "{text} {first} {second}");
            }
        }
    }
}

const FRAGMENTS: [&str; 33] = [
    "https://",
    "http://",
    "HTTP",
    "h",
    "ht",
    "github.com/",
    "https://github.com/",
    "o/r",
    "/",
    "pull",
    "/pull/",
    "1",
    "23",
    "session",
    "SESSION",
    "ses",
    "sion",
    " ",
    " ",
    "\n",
    "\n",
    ".",
    ",",
    "\"",
    "a.example",
    "é",
    "\x1b[0m",
    "https://github.com/o/r/pull/",
    "x",
    "_",
    "[",
    ")",
    ":",
];

#[test]
fn random_texts_give_the_result_of_the_simple_implementation() {
    let mut numbers = Numbers(42);
    let mut with_artifact = 0;
    let mut with_link = 0;
    for _ in 0..20_000 {
        let parts: Vec<_> =
            (0..numbers.below(24)).map(|_| FRAGMENTS[numbers.below(FRAGMENTS.len())]).collect();
        let whole = scan_whole(&parts.concat());
        with_artifact += usize::from(!whole.artifacts.is_empty());
        with_link += usize::from(whole.session_link.is_some());
        assert_eq!(scan(parts.iter().copied()), whole, "{:?}", parts.concat());
    }
    assert!(with_artifact > 300 && with_link > 300, "{with_artifact} {with_link}");
}

/// The state of a scanner, which the bytes that were skipped must not change.
fn state(scanner: &Scanner) -> impl PartialEq + std::fmt::Debug {
    let Scanner { pull_request, session } = scanner;
    let candidate =
        pull_request.candidate.as_ref().map(|found| (found.url.clone(), found.part, found.length));
    let needles = [&pull_request.site, &session.word, &session.plain, &session.secure];
    let matched = needles.map(|needle| needle.matched);
    (candidate, matched, session.mentioned, session.first.clone(), session.candidate.clone())
}

#[test]
fn skipping_gives_the_state_of_the_bytes_one_by_one() {
    let long = ["o".repeat(LONGEST_PART), "x".repeat(LONGEST_LINK), "session ".repeat(30)];
    let mut numbers = Numbers(77);
    for _ in 0..5_000 {
        let (mut fast, mut slow) = (Scanner::default(), Scanner::default());
        let (mut fast_found, mut slow_found) = (Found::default(), Found::default());
        for _ in 0..numbers.below(6) {
            let mut text = String::new();
            for _ in 0..numbers.below(12) {
                text.push_str(match numbers.below(60) {
                    0 => &long[numbers.below(long.len())],
                    _ => FRAGMENTS[numbers.below(FRAGMENTS.len())],
                });
            }
            fast.push(&text, &mut fast_found);
            for byte in text.bytes() {
                slow.pull_request.step(byte, &mut slow_found.artifacts);
                if slow_found.session_link.is_none() {
                    slow_found.session_link = slow.session.step(byte);
                }
            }
            assert_eq!(fast_found, slow_found, "{text:?}");
            assert_eq!(state(&fast), state(&slow), "{text:?}");
        }
    }
}

#[test]
fn the_word_is_found_at_every_place_in_any_case() {
    for length in 0..40 {
        for start in 0..=length {
            let text = |word: &str| format!("{}{word}{}", "s".repeat(start), "S".repeat(length - start));
            assert!(mentions_session(text("SeSsIoN").as_bytes()), "{length} {start}");
            for other in ["sessio", "sesion", "ssssss", "s\u{17f}ssion", "SESS\0ION"] {
                assert!(!mentions_session(text(other).as_bytes()), "{other:?} {length} {start}");
            }
        }
    }
}

#[test]
fn the_number_of_artifacts_is_bounded() {
    let text: String = (0..2 * MAX_ARTIFACTS).map(|n| format!("https://github.com/o/r/pull/{n} ")).collect();
    let found = scan([text.as_str()]);
    assert_eq!(found.artifacts.len(), MAX_ARTIFACTS);
    assert_eq!(found.artifacts.last().unwrap(), "https://github.com/o/r/pull/99");
}

#[test]
fn urls_beyond_the_limits_are_ignored() {
    let digits = "1".repeat(LONGEST_PART);
    let fits = format!("https://github.com/o/r/pull/{digits}");
    assert_eq!(scan([fits.as_str()]).artifacts, [fits.as_str()]);
    assert!(scan([fits.as_str(), "1 "]).artifacts.is_empty());
    assert!(scan(["https://github.com/", &"o".repeat(LONGEST_PART + 1), "/r/pull/1"]).artifacts.is_empty());
    let link = format!("https://a.example/{}", "x".repeat(LONGEST_LINK - 18));
    assert_eq!(scan(["session ", &link]).session_link.as_deref(), Some(link.as_str()));
    let next = scan(["session ", &link, "x https://b.example"]).session_link;
    assert_eq!(next.as_deref(), Some("https://b.example"));
}

#[test]
fn an_endless_line_needs_no_memory() {
    let mut scanner = Scanner::default();
    let mut found = Found::default();
    scanner.push("https://a.example/ https://github.com/", &mut found);
    for _ in 0..1000 {
        scanner.push(&"o".repeat(1000), &mut found);
    }
    assert!(scanner.pull_request.candidate.is_none());
    scanner.push(" https://b.example/ session\nhttps://", &mut found);
    for _ in 0..1000 {
        scanner.push(&"o".repeat(1000), &mut found);
    }
    assert_eq!(found.session_link.as_deref(), Some("https://a.example/"));
    let mut fresh = Scanner::default();
    fresh.push("http://", &mut Found::default());
    fresh.push(&"o".repeat(100_000), &mut Found::default());
    assert!(fresh.session.candidate.is_some_and(|url| url.len() <= LONGEST_LINK + 1));
}
