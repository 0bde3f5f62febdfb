//! Globs: patterns of names, with wildcards.
//!
//! `*` is any text, `?` one character. In a pattern of images neither matches a slash, and `**` is any text with slashes. Everything
//! else stands for itself. A comparison takes at most as many steps as the product of both lengths.

use std::fmt;

/// The most bytes of a glob. The longest name of an image is shorter.
pub const MAX_GLOB: usize = 1024;

/// A valid pattern. `Display` writes it as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    tokens: Vec<Token>,
    /// What only [`Token::Anything`] matches.
    separator: Option<char>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    /// One character other than the separator.
    One,
    /// Any text without the separator.
    Text,
    /// Any text.
    Anything,
}

impl Glob {
    /// Parses a pattern of complete names of images, such as `ghcr.io/acme/*`.
    ///
    /// # Errors
    /// It is too long or cannot match any name. The error says what would be valid, as `must ...`.
    pub fn image(text: &str) -> Result<Self, &'static str> {
        const COMPLETE: &str = "must match complete names, which begin with a registry, such as docker.io/library/alpine:* or \
                                ghcr.io/acme/*";
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@[]*?".contains(c);
        let is_wild = |c: char| matches!(c, '*' | '?');
        if text.is_empty() || !text.chars().all(allowed) {
            return Err(
                "must be a pattern of names of images, such as ghcr.io/acme/*, with the wildcards *, ** and ?",
            );
        }
        let (registry, last) =
            (text.split('/').next().unwrap_or_default(), text.rsplit('/').next().unwrap_or_default());
        let is_registry =
            registry == "localhost" || registry.contains(['.', ':']) || registry.contains(is_wild);
        if !is_registry || !(text.contains('/') || text.contains("**")) {
            return Err(COMPLETE);
        }
        if !last.contains(|c: char| is_wild(c) || matches!(c, ':' | '@')) {
            return Err(
                "must end with a tag, a digest or *, because every complete name has a tag or a digest",
            );
        }
        let tag = text.len() - last.len() + last.find([':', '@', '*', '?']).unwrap_or(last.len());
        if text.bytes().take(tag).any(|byte| byte.is_ascii_uppercase()) {
            return Err("must be in lower case up to the tag, as names are compared");
        }
        Self::new(text, Some('/'))
    }

    /// Parses a pattern of names of variables, such as `GITHUB_*`.
    ///
    /// # Errors
    /// As [`Glob::image`].
    pub fn variable(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text.contains(|c: char| c == '=' || c.is_whitespace() || c.is_control()) {
            return Err("must be a pattern of names of variables, such as GITHUB_*, without = and spaces");
        }
        Self::new(text, None)
    }

    fn new(text: &str, separator: Option<char>) -> Result<Self, &'static str> {
        if text.len() > MAX_GLOB {
            return Err("must have at most 1024 bytes");
        }
        let mut tokens: Vec<Token> = Vec::new();
        for c in text.chars() {
            let token = match (c, tokens.last()) {
                // A row of stars is one wildcard.
                ('*', Some(Token::Text | Token::Anything)) => {
                    tokens.pop();
                    Token::Anything
                }
                ('*', _) => Token::Text,
                ('?', _) => Token::One,
                (c, _) => Token::Char(c),
            };
            tokens.push(token);
        }
        Ok(Self { text: text.to_owned(), tokens, separator })
    }

    /// Returns whether the pattern matches the whole name.
    pub fn matches(&self, name: &str) -> bool {
        let mut states = States::new(&self.tokens);
        states.add(0, 0);
        for (index, c) in name.chars().enumerate() {
            if !states.step(index + 1, c, self.separator) {
                return false;
            }
        }
        states.has_end()
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The places in a pattern that the text so far can lead to.
struct States<'a> {
    tokens: &'a [Token],
    now: Vec<usize>,
    next: Vec<usize>,
    /// The step, from 1, after which each place was added last.
    added: Vec<usize>,
}

impl<'a> States<'a> {
    fn new(tokens: &'a [Token]) -> Self {
        Self { tokens, now: Vec::new(), next: Vec::new(), added: vec![0; tokens.len() + 1] }
    }

    /// Adds a place, and the one after it if its wildcard may be empty.
    fn add(&mut self, place: usize, step: usize) {
        let mut place = place;
        loop {
            let Some(added) = self.added.get_mut(place).filter(|added| **added != step + 1) else { return };
            *added = step + 1;
            let states = if step == 0 { &mut self.now } else { &mut self.next };
            states.push(place);
            if !matches!(self.tokens.get(place), Some(Token::Text | Token::Anything)) {
                return;
            }
            place += 1;
        }
    }

    /// Takes one character. Returns whether the pattern can still match.
    fn step(&mut self, step: usize, c: char, separator: Option<char>) -> bool {
        let mut before = std::mem::take(&mut self.now);
        let is_plain = Some(c) != separator;
        for place in &before {
            match self.tokens.get(*place) {
                Some(Token::Char(own)) if *own == c => self.add(place + 1, step),
                Some(Token::One) if is_plain => self.add(place + 1, step),
                Some(Token::Text) if is_plain => self.add(*place, step),
                Some(Token::Anything) => self.add(*place, step),
                _ => {}
            }
        }
        before.clear();
        self.now = std::mem::replace(&mut self.next, before);
        !self.now.is_empty()
    }

    fn has_end(&self) -> bool {
        self.now.contains(&self.tokens.len())
    }
}

#[cfg(test)]
#[path = "glob_tests.rs"]
mod tests;
