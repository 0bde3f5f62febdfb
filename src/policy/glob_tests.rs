use super::*;
use crate::sys::numbers::Numbers;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn image(text: &str) -> Glob {
    Glob::image(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_star_ends_at_a_slash_and_two_do_not() {
    let by_digest = format!("ghcr.io/acme/x@{DIGEST}");
    let cases = [
        ("ghcr.io/acme/*", "ghcr.io/acme/x:latest", true),
        ("ghcr.io/acme/*", &by_digest, true),
        ("ghcr.io/acme/*", "ghcr.io/acme/x/y:1", false),
        ("ghcr.io/acme/**", "ghcr.io/acme/x/y:1", true),
        ("ghcr.io/acme/*", "evil.example/ghcr.io/acme/x:latest", false),
        ("ghcr.io/acme/**", "evil.example/ghcr.io/acme/x:latest", false),
        ("ghcr.io/acme/*", "ghcr.io/acme-evil/x:latest", false),
        ("ghcr.io/acme/*", "ghcr.io:443/acme/x:latest", false),
        ("**/ghcr.io/acme/*", "evil.example/ghcr.io/acme/x:latest", true),
        ("*.example.com/app:*", "a.b.example.com/app:1", true),
        ("*.example.com/app:*", "evil.example/a.example.com/app:1", false),
        ("ghcr.io/acme/app:1.*", "ghcr.io/acme/app:1.2", true),
        ("ghcr.io/acme/app:1.*", &by_digest, false),
        ("ghcr.io/acme/app:1.?", "ghcr.io/acme/app:1.2", true),
        ("ghcr.io/acme/app:1.?", "ghcr.io/acme/app:1.22", false),
        ("ghcr.io/*/app:1", "ghcr.io/a/b/app:1", false),
        ("ghcr.io/**/app:1", "ghcr.io/a/b/app:1", true),
        ("ghcr.io/**/app:1", "ghcr.io/app:1", false),
        ("localhost:5000/**", "localhost:5000/a:1", true),
        ("[::1]:5000/*", "[::1]:5000/a:1", true),
        ("**", "docker.io/library/alpine:latest", true),
        ("docker.io/library/alpine:latest", "docker.io/library/alpine:latest", true),
        ("docker.io/library/alpine:latest", "docker.io/library/alpine:latest2", false),
        ("docker.io/library/alpine:latest", "docker.io/library/alpine:lates", false),
    ];
    for (glob, name, expected) in cases {
        assert_eq!(image(glob).matches(name), expected, "{glob} {name}");
    }
}

#[test]
fn a_pattern_of_variables_has_no_separator_and_keeps_the_case() {
    let cases = [
        ("GITHUB_*", "GITHUB_TOKEN", true),
        ("GITHUB_*", "GITHUB_", true),
        ("GITHUB_*", "github_token", false),
        ("*TOKEN*", "A/TOKEN/B", true),
        ("LD_*", "LD_/PRELOAD", true),
        ("A?", "A/", true),
        ("A?", "A", false),
        ("?", "ä", true),
        ("*", "", true),
        ("A", "", false),
    ];
    for (glob, name, expected) in cases {
        assert_eq!(Glob::variable(glob).unwrap().matches(name), expected, "{glob} {name}");
    }
}

#[test]
fn a_glob_that_cannot_match_is_refused_with_what_would_be_valid() {
    let long = format!("ghcr.io/{}*", "a".repeat(MAX_GLOB));
    let cases = [
        ("", "a pattern of names"),
        ("ghcr.io/a b:*", "a pattern of names"),
        ("ghcr.io/{a,b}:*", "a pattern of names"),
        ("!ghcr.io/a:*", "a pattern of names"),
        ("ghcr.io/ä:*", "a pattern of names"),
        ("alpine", "complete names"),
        ("alpine:*", "complete names"),
        ("acme/*", "complete names"),
        ("*", "complete names"),
        ("*:latest", "complete names"),
        ("/a:*", "complete names"),
        ("ghcr.io/acme/app", "a tag, a digest or *"),
        ("ghcr.io/acme/", "a tag, a digest or *"),
        ("GHCR.io/acme/*", "lower case"),
        ("ghcr.io/Acme/*", "lower case"),
        ("ghcr.io/acme/A*", "lower case"),
        ("ghcr.io/A?c/x:*", "lower case"),
        (&long, "1024 bytes"),
    ];
    for (text, right) in cases {
        let error = Glob::image(text).unwrap_err();
        assert!(error.starts_with("must ") && error.contains(right), "{text}: {error}");
    }
    for text in ["ghcr.io/acme/app:V1", "*/app:*", "registry*/a:?", "localhost/a:1", "a:5000/x@*", "**A"] {
        assert_eq!(image(text).to_string(), text);
    }
    for text in ["", "A=B", "A B", "A\n", "\0", &"A".repeat(MAX_GLOB + 1)] {
        assert!(Glob::variable(text).unwrap_err().starts_with("must "), "{text}");
    }
}

/// The definition, which takes exponential time.
fn is_match(glob: &[char], name: &[char], separator: Option<char>) -> bool {
    let Some((first, rest)) = glob.split_first() else { return name.is_empty() };
    let stars = glob.iter().take_while(|c| **c == '*').count();
    let skips = |from: usize| is_match(&glob[stars..], &name[from..], separator);
    match (first, name.split_first()) {
        ('*', _) => {
            let plain = name.iter().take_while(|c| stars > 1 || Some(**c) != separator).count();
            (0..=plain).any(skips)
        }
        (_, None) => false,
        ('?', Some((c, after))) => Some(*c) != separator && is_match(rest, after, separator),
        (own, Some((c, after))) => own == c && is_match(rest, after, separator),
    }
}

#[test]
fn random_patterns_match_as_defined() {
    let mut numbers = Numbers(7);
    let mut matched = 0;
    for _ in 0..100_000 {
        let mut word = |letters: &[char], most: usize| {
            let length = numbers.below(most + 1);
            (0..length).map(|_| letters[numbers.below(letters.len())]).collect::<String>()
        };
        let (pattern, name) = (word(&['a', 'b', '/', '*', '*', '?'], 8), word(&['a', 'b', '/'], 8));
        for separator in [None, Some('/')] {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = is_match(&chars(&pattern), &chars(&name), separator);
            let glob = Glob::new(&pattern, separator).unwrap();
            assert_eq!(glob.matches(&name), expected, "{pattern:?} {name:?} {separator:?}");
            matched += usize::from(expected);
        }
    }
    assert!(matched > 5000, "{matched}");
}

/// With backtracking this would take longer than any test may.
#[test]
fn many_wildcards_take_no_exponential_time() {
    let name = "a".repeat(100_000);
    for pattern in ["*a".repeat(100), "**a*?".repeat(50)] {
        assert!(!Glob::new(&format!("{pattern}b"), Some('/')).unwrap().matches(&name));
        assert!(Glob::new(&pattern, Some('/')).unwrap().matches(&name));
    }
}
