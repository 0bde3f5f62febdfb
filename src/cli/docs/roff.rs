//! The macros of man pages that this page uses, and the escapes in their text.

use super::wrap::wrap;

/// The widest line of the source, in characters. The formatter breaks the visible lines again.
const WIDTH: usize = 78;

/// A page under construction.
pub(super) struct Roff {
    text: String,
    /// Whether the last line was a heading, after which no paragraph macro may follow.
    fresh: bool,
}

impl Roff {
    /// Begins a page whose head and foot lines show the name, the date of the version, the version and the manual's title.
    pub(super) fn new(name: &str, date: &str, version: &str, manual: &str) -> Self {
        // The date keeps its plain dashes: checkers of pages parse it.
        let (title, manual) = (literal(&name.to_uppercase()), literal(manual));
        let foot = literal(&format!("{name} {version}"));
        // No hyphenation, here and after each macro that restores it: a hyphenated name cannot be copied.
        let head = format!(".TH {title} 1 {date} \"{foot}\" \"{manual}\"\n.nr HY 0\n.hy 0\n");
        Self { text: head, fresh: false }
    }

    pub(super) fn section(&mut self, title: &str) {
        self.macro_line(&format!(".SH {}", literal(title)));
        self.fresh = true;
    }

    pub(super) fn subsection(&mut self, title: &str) {
        self.macro_line(&format!(".SS {}", literal(title)));
        self.fresh = true;
    }

    /// A paragraph of prose; text between backticks is bold.
    pub(super) fn paragraph(&mut self, words: &str) {
        if !self.fresh {
            self.macro_line(".PP");
        }
        self.lines(&prose(words));
    }

    /// An item of a list.
    pub(super) fn bullet(&mut self, words: &str) {
        self.macro_line(".IP \\(bu 2");
        self.lines(&prose(words));
    }

    /// A name, already escaped, and its meaning.
    pub(super) fn item(&mut self, tag: &str, words: &str) {
        self.macro_line(".TP");
        self.macro_line(tag);
        self.lines(&prose(words));
    }

    /// A further line of an item, such as its default.
    pub(super) fn note(&mut self, words: &str) {
        self.line_break();
        self.lines(&prose(words));
    }

    pub(super) fn line_break(&mut self) {
        self.macro_line(".br");
    }

    /// Text that is already escaped.
    pub(super) fn raw(&mut self, line: &str) {
        self.lines(line);
    }

    /// Lines that are not filled, such as commands.
    pub(super) fn example(&mut self, lines: &[&str]) {
        self.macro_line(".PP");
        self.macro_line(".RS 4");
        self.macro_line(".EX");
        for line in lines {
            let line = guarded(&literal(line));
            self.macro_line(&line);
        }
        self.macro_line(".EE");
        self.macro_line(".RE");
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    fn macro_line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.fresh = false;
    }

    fn lines(&mut self, escaped: &str) {
        for line in wrap(escaped, "", WIDTH).lines() {
            let line = guarded(line);
            self.macro_line(&line);
        }
    }
}

/// Escapes text so that it appears unchanged and can be copied: a dash stays an ASCII minus.
pub(super) fn literal(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '\'' => escaped.push_str("\\(aq"),
            '"' => escaped.push_str("\\(dq"),
            '`' => escaped.push_str("\\(ga"),
            '^' => escaped.push_str("\\(ha"),
            '~' => escaped.push_str("\\(ti"),
            other => escaped.push(other),
        }
    }
    escaped
}

pub(super) fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", literal(text))
}

pub(super) fn italic(text: &str) -> String {
    format!("\\fI{}\\fR", literal(text))
}

/// Escapes prose. Flags and text between backticks are bold.
pub(super) fn prose(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts.map(|(index, part)| if index % 2 == 1 { bold(part) } else { plain(part) }).collect()
}

fn plain(text: &str) -> String {
    text.split(' ').map(plain_word).collect::<Vec<_>>().join(" ")
}

/// Escapes a word with the punctuation around it. A dash is a minus in names and flags, else a hyphen, at which a line may be
/// broken.
fn plain_word(word: &str) -> String {
    let core = word.trim_start_matches('(').trim_end_matches([',', '.', ':', ';', ')']);
    let (before, after) = word.split_once(core).unwrap_or_default();
    let is_name = core.contains(['/', '_', '=']) || core.starts_with(super::NAME);
    match core {
        "" => literal(word),
        flag if flag.starts_with('-') && flag.len() > 1 => format!("{before}{}{after}", bold(flag)),
        _ if is_name => literal(word),
        _ => literal(word).replace("\\-", "-"),
    }
}

/// Escapes a dot or apostrophe at the start of a line, which would make it a macro.
fn guarded(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_text_is_escaped() {
        assert_eq!(literal(r#"a\b --x '"`^~"#), r#"a\eb \-\-x \(aq\(dq\(ga\(ha\(ti"#);
        assert_eq!(bold("--pull"), r"\fB\-\-pull\fR");
    }

    #[test]
    fn prose_keeps_its_hyphens_and_its_flags_their_dashes() {
        assert_eq!(prose("a comma-separated list"), "a comma-separated list");
        assert_eq!(prose("see --pull, or (-v)."), r"see \fB\-\-pull\fR, or (\fB\-v\fR).");
        assert_eq!(prose("in /etc/a-b or oz-agent-worker(1)"), r"in /etc/a\-b or oz\-agent\-worker(1)");
        assert_eq!(prose("type `a-b 'c'` now - or never"), r"type \fBa\-b \(aqc\(aq\fR now - or never");
        assert_eq!(prose("the engine's \\ own"), r"the engine\(aqs \e own");
        assert_eq!(prose("..."), "...");
    }

    #[test]
    fn text_is_never_a_macro() {
        let mut roff = Roff::new("a-b", "2020-01-02", "1.0", "M");
        roff.section("NAME");
        roff.paragraph(".docker is a folder");
        roff.example(&[".x", "'y"]);
        let text = roff.finish();
        let head =
            ".TH A\\-B 1 2020-01-02 \"a\\-b 1.0\" \"M\"\n.nr HY 0\n.hy 0\n.SH NAME\n\\&.docker is a folder\n";
        let example = ".PP\n.RS 4\n.EX\n\\&.x\n\\(aqy\n.EE\n.RE\n";
        assert_eq!(text, format!("{head}{example}"));
    }

    #[test]
    fn a_wrapped_line_that_begins_with_a_dot_is_escaped() {
        let mut roff = Roff::new("a", "2020-01-02", "1.0", "M");
        roff.paragraph(&format!("{} .docker", "a".repeat(WIDTH)));
        assert!(roff.finish().ends_with("a\n\\&.docker\n"));
    }
}
