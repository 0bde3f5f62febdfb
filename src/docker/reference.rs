//! Image names: `[host[:port]/]path[:tag][@digest]`, with Docker Hub's short names. The grammar is that of `reference.go` in
//! distribution/reference. Pure.

use std::fmt;

/// The most bytes of a name without tag and digest, but with the registry and `library/`.
pub const MAX_NAME: usize = 255;
/// The most characters of a tag.
const MAX_TAG: usize = 128;
/// The tag of a name with neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// The registry of a name without one.
const HUB: &str = "docker.io";
/// An older name of the same registry.
const OLD_HUB: &str = "index.docker.io";

/// A valid image name. `Display` prints it as written, plus `:latest` if it has neither tag nor digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
    /// The name without tag and digest as written, for messages and for engines with their own rules for short names.
    written: String,
}

/// A text that is not an image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image name {text:?}: {problem}")]
pub struct ReferenceError {
    /// The text, at most [`MAX_NAME`] characters.
    pub text: String,
    /// The problem.
    pub problem: &'static str,
}

impl Reference {
    /// Parses a name. Fills in the registry, `library/` and tag that a short one omits.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|problem| {
            let mut text: String = text.chars().take(MAX_NAME).collect();
            text.shrink_to_fit();
            ReferenceError { text, problem }
        })
    }

    /// Returns the registry, such as `docker.io` or `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the tag: `latest` for a name with neither tag nor digest, `None` for one with only a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the registry and repository, such as `docker.io/library/ubuntu`. Equal for all spellings of a name.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Returns the complete name. Equal for all spellings of a name.
    pub fn canonical(&self) -> String {
        self.with_suffix(self.repository())
    }

    /// Returns the complete name of what a pull takes: with a digest it has no tag, which does not count then. The registry is in
    /// lower case, because names of hosts are compared so.
    pub fn pulled(&self) -> String {
        let repository = format!("{}/{}", self.domain.to_ascii_lowercase(), self.path);
        match &self.digest {
            Some(digest) => format!("{repository}@{digest}"),
            None => format!("{repository}:{}", self.pull_tag()),
        }
    }

    /// Returns the same name with its registry, which an engine cannot take for another name or for the id of an image.
    pub fn with_registry(&self) -> Self {
        Self { written: self.repository(), ..self.clone() }
    }

    /// Returns whether an engine takes the name as written for an image's id, or for the beginning of one: `sha256:` and digits.
    pub fn is_like_id(&self) -> bool {
        self.domain == HUB && self.path == "library/sha256"
    }

    /// Returns the `tag` of a pull: the digest if there is one, else the tag. Never empty, as the engine would then pull all
    /// tags.
    pub fn pull_tag(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or(DEFAULT_TAG)
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(digest);
        }
        name
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.written.clone()))
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("it has a space or a control character");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(valid_digest(digest)?)),
        None => (text, None),
    };
    let (written, tag) = split_tag(rest);
    let tag = tag.map(valid_tag).transpose()?;
    let (domain, path) = split_domain(written);
    let domain = valid_domain(domain)?;
    valid_path(path)?;
    if is_image_id(written) {
        return Err("64 hexadecimal digits are an image id, not a name");
    }
    let path = if domain == HUB && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    if domain.len() + 1 + path.len() > MAX_NAME {
        return Err("it is longer than 255 bytes");
    }
    let tag = tag.or(if digest.is_none() { Some(DEFAULT_TAG) } else { None });
    Ok(Reference {
        domain: domain.to_owned(),
        path,
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
        written: written.to_owned(),
    })
}

/// Splits off the tag. A colon before the last slash belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// Splits off the registry: a first part with a dot, a port or a capital letter, or `localhost`.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, path)) if looks_like_domain(first) => (first, path),
        _ => (HUB, name),
    }
}

fn looks_like_domain(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase)
}

fn valid_domain(domain: &str) -> Result<&str, &'static str> {
    const PROBLEM: &str = "the registry is not a host name with an optional port";
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            // Docker takes any number of digits here.
            if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(PROBLEM);
            }
            host
        }
        _ => domain,
    };
    let valid = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.contains(':') && address.chars().all(|c| c.is_ascii_hexdigit() || c == ':'),
        None => host.split('.').all(valid_label),
    };
    match valid {
        true if domain == OLD_HUB => Ok(HUB),
        true => Ok(domain),
        false => Err(PROBLEM),
    }
}

fn valid_label(label: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    !label.is_empty() && label.chars().all(allowed) && !label.starts_with('-') && !label.ends_with('-')
}

fn valid_path(path: &str) -> Result<(), &'static str> {
    match path {
        "" => Err("the repository is missing"),
        path if path.chars().any(|c| c.is_ascii_uppercase()) => Err("a repository must be lower case"),
        path if path.split('/').all(valid_component) => Ok(()),
        _ => {
            Err("the repository must be words of a-z and 0-9 with single '.', '_', '__' or '-' between them")
        }
    }
}

/// Returns whether it is words of a-z and 0-9, separated by one dot, one or two underscores, or any number of dashes.
fn valid_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators: Vec<&str> = component.split(is_word).filter(|part| !part.is_empty()).collect();
    let separator = |part: &&str| matches!(*part, "." | "_" | "__") || part.chars().all(|c| c == '-');
    component.starts_with(is_word) && component.ends_with(is_word) && separators.iter().all(separator)
}

fn valid_tag(tag: &str) -> Result<&str, &'static str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let valid = tag.len() <= MAX_TAG
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'));
    if valid { Ok(tag) } else { Err("the tag must be 1 to 128 letters, digits, '_', '.' or '-'") }
}

fn valid_digest(digest: &str) -> Result<&str, &'static str> {
    const PROBLEM: &str =
        "the digest must be sha256:, sha384: or sha512: and its lower case hexadecimal digits";
    let (algorithm, digits) = digest.split_once(':').ok_or(PROBLEM)?;
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(PROBLEM),
    };
    if digits.len() == length && digits.chars().all(is_lower_hex) { Ok(digest) } else { Err(PROBLEM) }
}

fn is_image_id(name: &str) -> bool {
    name.len() == 64 && name.chars().all(is_lower_hex)
}

fn is_lower_hex(c: char) -> bool {
    matches!(c, '0'..='9' | 'a'..='f')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn canonical(text: &str) -> String {
        Reference::parse(text).unwrap().canonical()
    }

    #[test]
    fn short_names_are_on_docker_hub() {
        assert_eq!(canonical("ubuntu"), "docker.io/library/ubuntu:latest");
        assert_eq!(canonical("ubuntu:22.04"), "docker.io/library/ubuntu:22.04");
        assert_eq!(canonical("me/app"), "docker.io/me/app:latest");
        assert_eq!(canonical("docker.io/ubuntu"), "docker.io/library/ubuntu:latest");
        assert_eq!(canonical("index.docker.io/library/ubuntu"), "docker.io/library/ubuntu:latest");
    }

    #[test]
    fn ports_are_distinguished_from_tags() {
        assert_eq!(canonical("localhost:5000/a"), "localhost:5000/a:latest");
        assert_eq!(canonical("localhost:5000/a/b/c:t"), "localhost:5000/a/b/c:t");
        assert_eq!(canonical("localhost/a"), "localhost/a:latest");
        assert_eq!(canonical("Build/a"), "Build/a:latest");
        assert_eq!(canonical("[2001:db8::1]:5000/a"), "[2001:db8::1]:5000/a:latest");
        assert_eq!(canonical("[2001:db8::1]/a"), "[2001:db8::1]/a:latest");
        assert_eq!(canonical("a:5000"), "docker.io/library/a:5000");
    }

    #[test]
    fn a_digest_needs_no_tag_and_takes_precedence() {
        let plain = Reference::parse(&format!("ghcr.io/a/b@{DIGEST}")).unwrap();
        assert_eq!((plain.tag(), plain.digest.as_deref(), plain.pull_tag()), (None, Some(DIGEST), DIGEST));
        let both = Reference::parse(&format!("a:t@{DIGEST}")).unwrap();
        assert_eq!((both.tag(), both.pull_tag()), (Some("t"), DIGEST));
        assert_eq!(both.canonical(), format!("docker.io/library/a:t@{DIGEST}"));
        assert_eq!(Reference::parse("a").unwrap().pull_tag(), "latest");
    }

    #[test]
    fn a_name_prints_as_it_was_written() {
        assert_eq!(Reference::parse("ubuntu").unwrap().to_string(), "ubuntu:latest");
        assert_eq!(Reference::parse("docker.io/ubuntu:1").unwrap().to_string(), "docker.io/ubuntu:1");
        let both = format!("h:1/a:t@{DIGEST}");
        assert_eq!(Reference::parse(&both).unwrap().to_string(), both);
    }

    #[test]
    fn what_is_pulled_has_a_digest_or_a_tag_and_its_registry_in_lower_case() {
        let cases = [
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
            ("index.docker.io/a/b:1", "docker.io/a/b:1".to_owned()),
            ("GHCR.io:443/a/b:T", "ghcr.io:443/a/b:T".to_owned()),
            (&format!("ghcr.io/a/b@{DIGEST}"), format!("ghcr.io/a/b@{DIGEST}")),
            (&format!("ghcr.io/a/b:1@{DIGEST}"), format!("ghcr.io/a/b@{DIGEST}")),
        ];
        for (text, expected) in cases {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.pulled(), expected, "{text}");
            let complete = reference.with_registry();
            assert_eq!(complete.to_string(), reference.canonical(), "{text}");
            assert_eq!(complete.canonical(), reference.canonical(), "{text}");
        }
    }

    #[test]
    fn a_name_that_engines_take_for_an_id_is_told_from_others() {
        for id in [DIGEST, "sha256:abcd", "sha256", "library/sha256:abcd", "docker.io/sha256:1"] {
            assert!(Reference::parse(id).unwrap().is_like_id(), "{id}");
        }
        for name in ["ghcr.io/library/sha256:abcd", "me/sha256:abcd", "sha256a:abcd"] {
            assert!(!Reference::parse(name).unwrap().is_like_id(), "{name}");
        }
    }

    #[test]
    fn repository_separators_are_checked() {
        for good in ["a.b", "a_b", "a__b", "a-b", "a---b", "a.b_c__d-e", "0", "a/b.c/d"] {
            assert!(Reference::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["a..b", "a___b", "a._b", "a-.b", ".a", "a.", "-a", "a-", "_a", "a/-b", "a//b", "/a", "a/", "ä"]
        {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn malformed_names_are_refused() {
        let digits = DIGEST.replace("sha256:", "");
        let bad = [
            "",
            " ",
            "a b",
            "a\n",
            "A",
            "a/B",
            "a:",
            ":t",
            "a:.t",
            "a:-t",
            "a:ä",
            "a@",
            "a@sha256:12",
            "a@md5:0123456789abcdef0123456789abcdef",
            "a@b@c",
            "h:x/a",
            "h:/a",
            "-h.x/a",
            "h-.x/a",
            "h..x/a",
            "https://h/a",
            "h.x/",
            "[::1/a",
            "[g::1]/a",
            "a?b",
            "a%2f",
            "../a",
            "a:b:c",
            &digits,
        ];
        for text in bad {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
        let upper = format!("a@{}", DIGEST.to_uppercase().replace("SHA", "sha"));
        assert!(Reference::parse(&upper).is_err());
    }

    #[test]
    fn lengths_are_bounded() {
        let hub = "docker.io/library/".len();
        assert!(Reference::parse(&"a".repeat(MAX_NAME - hub)).is_ok());
        assert!(Reference::parse(&"a".repeat(MAX_NAME - hub + 1)).is_err());
        assert!(Reference::parse(&format!("a:{}", "t".repeat(MAX_TAG))).is_ok());
        assert!(Reference::parse(&format!("a:{}", "t".repeat(MAX_TAG + 1))).is_err());
        let error = Reference::parse(&" x".repeat(100_000)).unwrap_err();
        assert!(error.to_string().len() < 1000);
    }
}
