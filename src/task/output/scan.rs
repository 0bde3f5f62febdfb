//! Finds the URLs of pull requests and of the session in a task's output.
//!
//! Works byte by byte, so that no split hides a URL, and keeps at most one candidate of each kind: a line may be endless.

/// The most pull requests that are kept for one task.
pub(crate) const MAX_ARTIFACTS: usize = 100;

/// The longest session link, in bytes. A longer URL is ignored.
const LONGEST_LINK: usize = 2048;

/// The longest owner, repository name or number, in bytes. GitHub allows 39, 100 and far less.
const LONGEST_PART: usize = 100;

const PULL_REQUEST: &str = "https://github.com/";
const PULL: &[u8] = b"pull";

/// The URLs found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Distinct `https://github.com/OWNER/REPO/pull/N` in order of appearance, at most [`MAX_ARTIFACTS`].
    pub(crate) artifacts: Vec<String>,
    /// The first http(s) URL on a line that mentions a session.
    pub(crate) session_link: Option<String>,
}

/// Scans one stream.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    pull_request: PullRequests,
    session: Session,
}

impl Scanner {
    /// Takes the next part of the text, which may be cut anywhere.
    pub(crate) fn push(&mut self, text: &str, found: &mut Found) {
        for byte in text.bytes() {
            self.pull_request.push(byte, &mut found.artifacts);
            if found.session_link.is_none() {
                found.session_link = self.session.push(byte);
            }
        }
    }

    /// Ends the stream.
    pub(crate) fn finish(&mut self, found: &mut Found) {
        // Completes a URL that ends with the text.
        self.push("\n", found);
    }
}

/// Finds a fixed string of ASCII characters in bytes that come one by one.
#[derive(Debug)]
struct Needle {
    pattern: &'static [u8],
    matched: usize,
}

impl Needle {
    const fn new(pattern: &'static str) -> Self {
        Self { pattern: pattern.as_bytes(), matched: 0 }
    }

    /// Takes the next byte; returns whether it completes the string.
    fn push(&mut self, byte: u8) -> bool {
        while self.pattern.get(self.matched) != Some(&byte) {
            if self.matched == 0 {
                return false;
            }
            self.matched = self.fallback();
        }
        self.matched += 1;
        let complete = self.matched == self.pattern.len();
        if complete {
            self.matched = self.fallback();
        }
        complete
    }

    /// Returns the length of the longest proper prefix of the pattern that is also a suffix of the matched part.
    fn fallback(&self) -> usize {
        let (matched, _) = self.pattern.split_at(self.matched);
        (1..matched.len())
            .find(|start| matched.starts_with(matched.split_at(*start).1))
            .map_or(0, |start| matched.len() - start)
    }
}

/// Finds pull requests. One candidate is enough: a URL that begins inside of another has a colon, which ends that one.
#[derive(Debug)]
struct PullRequests {
    site: Needle,
    candidate: Option<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    url: String,
    /// The part that is being read: 0 owner, 1 repository, 2 `pull`, 3 number.
    part: usize,
    /// The length of that part so far.
    length: usize,
}

impl Default for PullRequests {
    fn default() -> Self {
        Self { site: Needle::new(PULL_REQUEST), candidate: None }
    }
}

impl PullRequests {
    fn push(&mut self, byte: u8, artifacts: &mut Vec<String>) {
        if let Some(mut candidate) = self.candidate.take() {
            if candidate.push(byte) {
                self.candidate = Some(candidate);
            } else if candidate.is_complete()
                && artifacts.len() < MAX_ARTIFACTS
                && !artifacts.contains(&candidate.url)
            {
                artifacts.push(candidate.url);
            }
        }
        if self.site.push(byte) {
            self.candidate = Some(Candidate { url: PULL_REQUEST.into(), part: 0, length: 0 });
        }
    }
}

impl Candidate {
    /// Appends a byte; returns `false` if the URL ends before it.
    fn push(&mut self, byte: u8) -> bool {
        let fits = match self.part {
            0 | 1 => byte.is_ascii_alphanumeric() || b"_.-".contains(&byte),
            2 => PULL.get(self.length) == Some(&byte),
            _ => byte.is_ascii_digit(),
        };
        let ends_part =
            byte == b'/' && self.length > 0 && (self.part < 2 || self.part == 2 && self.length == PULL.len());
        if fits && self.length < LONGEST_PART {
            self.length += 1;
        } else if ends_part {
            self.part += 1;
            self.length = 0;
        } else {
            if fits {
                // A number that is too long makes the URL incomplete.
                self.part = 0;
            }
            return false;
        }
        self.url.push(char::from(byte));
        true
    }

    fn is_complete(&self) -> bool {
        self.part == 3 && self.length > 0
    }
}

/// Finds the session link: remembers for the current line its first URL and whether the word "session" was there.
#[derive(Debug)]
struct Session {
    word: Needle,
    plain: Needle,
    secure: Needle,
    mentioned: bool,
    first: Option<String>,
    /// The URL that is being read.
    candidate: Option<String>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            word: Needle::new("session"),
            plain: Needle::new("http://"),
            secure: Needle::new("https://"),
            mentioned: false,
            first: None,
            candidate: None,
        }
    }
}

impl Session {
    /// Takes the next byte; returns the link at the end of its line.
    fn push(&mut self, byte: u8) -> Option<String> {
        let lower = byte.to_ascii_lowercase();
        self.mentioned |= self.word.push(lower);
        self.push_url(byte);
        let plain = self.plain.push(lower);
        let secure = self.secure.push(lower);
        if (plain || secure) && self.first.is_none() && self.candidate.is_none() {
            self.candidate = Some(if secure { "https://" } else { "http://" }.into());
        }
        if byte != b'\n' {
            return None;
        }
        let mentioned = std::mem::take(&mut self.mentioned);
        self.first.take().filter(|_| mentioned)
    }

    fn push_url(&mut self, byte: u8) {
        let Some(mut url) = self.candidate.take() else { return };
        if !ends_url(byte) {
            if url.len() <= LONGEST_LINK {
                url.push(char::from(byte));
            }
            self.candidate = Some(url);
            return;
        }
        let end = url.trim_end_matches(|c| ".,;:!?*)]}'\">".contains(c)).len();
        url.truncate(end);
        let host = url.split_once("://").map(|(_, rest)| rest).unwrap_or_default();
        if url.len() <= LONGEST_LINK && host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') {
            self.first = Some(url);
        }
    }
}

/// Whether a byte ends a URL: it is not allowed in one (RFC 3986), or usually stands around one. Control characters are
/// included, so an escape sequence ends a URL.
fn ends_url(byte: u8) -> bool {
    !byte.is_ascii_graphic() || b"\"'<>`\\^{|}".contains(&byte)
}

#[cfg(test)]
mod tests {
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
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
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
            (
                "https://github.com/o r/pull/1 https://github.com/o/r/issues/1 https://github.com/o/r/pull",
                &[],
            ),
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

    #[test]
    fn random_texts_give_the_result_of_the_simple_implementation() {
        let fragments = [
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
        let mut numbers = Numbers(42);
        let mut with_artifact = 0;
        let mut with_link = 0;
        for _ in 0..20_000 {
            let parts: Vec<_> =
                (0..numbers.below(24)).map(|_| fragments[numbers.below(fragments.len())]).collect();
            let whole = scan_whole(&parts.concat());
            with_artifact += usize::from(!whole.artifacts.is_empty());
            with_link += usize::from(whole.session_link.is_some());
            assert_eq!(scan(parts.iter().copied()), whole, "{:?}", parts.concat());
        }
        assert!(with_artifact > 300 && with_link > 300, "{with_artifact} {with_link}");
    }

    #[test]
    fn the_number_of_artifacts_is_bounded() {
        let text: String =
            (0..2 * MAX_ARTIFACTS).map(|n| format!("https://github.com/o/r/pull/{n} ")).collect();
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
        assert!(
            scan(["https://github.com/", &"o".repeat(LONGEST_PART + 1), "/r/pull/1"]).artifacts.is_empty()
        );
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
}
