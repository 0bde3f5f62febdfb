//! Finds the URLs of pull requests and of the session in a task's output.
//!
//! Bytes that cannot belong to a URL are skipped; the others are taken one by one, so that no split hides a URL. At most one
//! candidate of each kind is kept: a line may be endless.

use memchr::memmem::Finder;
use memchr::{memchr, memrchr};

/// The most pull requests that are kept for one task.
pub(crate) const MAX_ARTIFACTS: usize = 100;

/// The longest session link, in bytes. A longer URL is ignored.
const LONGEST_LINK: usize = 2048;

/// The longest owner, repository name or number, in bytes. GitHub allows 39, 100 and far less.
const LONGEST_PART: usize = 100;

/// The bytes that are allocated for a URL at first.
const USUAL_URL: usize = 128;

const PULL_REQUEST: &str = "https://github.com/";
const PULL: &[u8] = b"pull";

const SESSION: &str = "session";
const PLAIN: &str = "http://";
const SECURE: &str = "https://";

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
        self.pull_request.push(text.as_bytes(), &mut found.artifacts);
        if found.session_link.is_none() {
            found.session_link = self.session.push(text.as_bytes());
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
    finder: Finder<'static>,
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
        Self { finder: Finder::new(PULL_REQUEST), site: Needle::new(PULL_REQUEST), candidate: None }
    }
}

impl PullRequests {
    fn push(&mut self, text: &[u8], artifacts: &mut Vec<String>) {
        let mut rest = text;
        loop {
            while self.candidate.is_some() || self.site.matched > 0 {
                let Some((byte, after)) = rest.split_first() else { return };
                self.step(*byte, artifacts);
                rest = after;
            }
            let Some(start) = self.finder.find(rest) else {
                // Only the beginning of a URL can be at the end.
                let (_, end) = rest.split_at(rest.len().saturating_sub(PULL_REQUEST.len() - 1));
                end.iter().for_each(|byte| self.step(*byte, artifacts));
                return;
            };
            (_, rest) = rest.split_at(start);
            let (site, after) = rest.split_at(PULL_REQUEST.len());
            site.iter().for_each(|byte| self.step(*byte, artifacts));
            rest = after;
        }
    }

    /// Takes the next byte.
    fn step(&mut self, byte: u8, artifacts: &mut Vec<String>) {
        if let Some(candidate) = &mut self.candidate
            && !candidate.push(byte)
            && let Some(candidate) = self.candidate.take()
            && candidate.is_complete()
            && artifacts.len() < MAX_ARTIFACTS
            && !artifacts.contains(&candidate.url)
        {
            artifacts.push(candidate.url);
        }
        if self.site.push(byte) {
            let mut url = String::with_capacity(USUAL_URL);
            url.push_str(PULL_REQUEST);
            self.candidate = Some(Candidate { url, part: 0, length: 0 });
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
    /// Finds the part that all URLs have.
    finder: Finder<'static>,
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
            finder: Finder::new("://"),
            word: Needle::new(SESSION),
            plain: Needle::new(PLAIN),
            secure: Needle::new(SECURE),
            mentioned: false,
            first: None,
            candidate: None,
        }
    }
}

impl Session {
    /// Takes the next bytes; returns the link at the end of its line, and ignores the bytes after it.
    fn push(&mut self, text: &[u8]) -> Option<String> {
        let mut rest = text;
        loop {
            if !self.is_in_needle() {
                let (skipped, after) = rest.split_at(self.skippable(rest));
                self.skip(skipped);
                rest = after;
            }
            let (byte, after) = rest.split_first()?;
            let link = self.step(*byte);
            if link.is_some() {
                return link;
            }
            rest = after;
        }
    }

    /// Returns whether the last bytes are the beginning of a needle.
    fn is_in_needle(&self) -> bool {
        self.word.matched + self.plain.matched + self.secure.matched > 0
    }

    /// Returns how many bytes can be skipped: those before the end of the current URL, before the end of a line whose first
    /// URL is known, or before the next "://".
    fn skippable(&self, text: &[u8]) -> usize {
        let next = if self.candidate.is_some() {
            text.iter().position(|byte| ends_url(*byte))
        } else if self.first.is_some() {
            memchr(b'\n', text)
        } else {
            self.finder.find(text)
        };
        next.unwrap_or(text.len())
    }

    /// Takes bytes that can be skipped, none of which is in a needle begun before. The state is then as if each of them had
    /// gone through [`Session::step`].
    fn skip(&mut self, bytes: &[u8]) {
        if let Some(url) = &mut self.candidate {
            let free = (LONGEST_LINK + 1).saturating_sub(url.len());
            url.extend(bytes.iter().take(free).map(|byte| char::from(*byte)));
        }
        let mut line = bytes;
        if let Some(at) = memrchr(b'\n', bytes) {
            self.mentioned = false;
            (_, line) = bytes.split_at(at + 1);
        }
        self.mentioned = self.mentioned || mentions_session(line);
        let (_, end) = line.split_at(line.len().saturating_sub(SECURE.len() - 1));
        for byte in end {
            let lower = byte.to_ascii_lowercase();
            self.word.push(lower);
            self.plain.push(lower);
            self.secure.push(lower);
        }
    }

    /// Takes the next byte; returns the link at the end of its line.
    fn step(&mut self, byte: u8) -> Option<String> {
        let lower = byte.to_ascii_lowercase();
        self.mentioned |= self.word.push(lower);
        self.push_url(byte);
        let plain = self.plain.push(lower);
        let secure = self.secure.push(lower);
        if (plain || secure) && self.first.is_none() && self.candidate.is_none() {
            let mut url = String::with_capacity(USUAL_URL);
            url.push_str(if secure { SECURE } else { PLAIN });
            self.candidate = Some(url);
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

/// Returns whether the text contains the word "session", in upper or lower case.
fn mentions_session(text: &[u8]) -> bool {
    const STEP: usize = size_of::<u64>();
    const LOWER: u128 = u128::from_ne_bytes([b's' ^ b'S'; 16]);
    const LETTER: u128 = u128::from_ne_bytes([b's'; 16]);
    const LOW_BITS: u64 = u64::from_ne_bytes([0x01; STEP]);
    const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; STEP]);
    let mut rest = text;
    // A search for one letter stops often, because all of the word's letters are common. This one stops only where all three
    // letters s are.
    while let Some(window) = rest.first_chunk::<16>() {
        let other = (u128::from_le_bytes(*window) | LOWER) ^ LETTER;
        // Byte n is zero if bytes n, n + 2 and n + 3 of the window are the letter.
        let other = (other | other >> 16 | other >> 24) as u64;
        let has_zero = other.wrapping_sub(LOW_BITS) & !other & HIGH_BITS != 0;
        if has_zero && has_word(window) {
            return true;
        }
        (_, rest) = rest.split_at(STEP);
    }
    has_word(rest)
}

fn has_word(text: &[u8]) -> bool {
    text.windows(SESSION.len()).any(|word| word.eq_ignore_ascii_case(SESSION.as_bytes()))
}

/// Whether a byte ends a URL: it is not allowed in one (RFC 3986), or usually stands around one. Control characters are
/// included, so an escape sequence ends a URL.
fn ends_url(byte: u8) -> bool {
    !byte.is_ascii_graphic() || b"\"'<>`\\^{|}".contains(&byte)
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
