//! The sections of the manual page about behaviour, written in Markdown so that they can also be read in the repository.
//!
//! Blank lines separate blocks. A block is a title (`# `), a heading (`## `), a list (`- `), a table of two columns, code
//! between fences without a blank line, or a paragraph.

use super::roff::{Roff, prose};

/// In the order of the page.
const SECTIONS: [&str; 16] = [
    include_str!("containers.md"),
    include_str!("control-plane.md"),
    include_str!("engine.md"),
    include_str!("credentials.md"),
    include_str!("stopping.md"),
    include_str!("recovery.md"),
    include_str!("disk.md"),
    include_str!("service.md"),
    include_str!("container-image.md"),
    include_str!("security.md"),
    include_str!("policies.md"),
    include_str!("diagnosis.md"),
    include_str!("limits.md"),
    include_str!("monitoring.md"),
    include_str!("log.md"),
    include_str!("moving.md"),
];

/// Writes every section.
pub(super) fn write(roff: &mut Roff) {
    for section in SECTIONS {
        section.split("\n\n").for_each(|block| write_block(block.trim_matches('\n'), roff));
    }
}

fn write_block(block: &str, roff: &mut Roff) {
    if let Some(title) = block.strip_prefix("# ") {
        roff.section(title);
    } else if let Some(heading) = block.strip_prefix("## ") {
        roff.subsection(heading);
    } else if let Some(list) = block.strip_prefix("- ") {
        list.split("\n- ").for_each(|item| roff.bullet(&one_line(item)));
    } else if let Some(code) = block.strip_prefix("```\n") {
        let lines: Vec<_> = code.lines().filter(|line| *line != "```").collect();
        roff.example(&lines);
    } else if block.starts_with('|') {
        // The first two rows are the head and the rule below it.
        block.lines().skip(2).filter_map(row).for_each(|(tag, words)| roff.item(&prose(tag), words));
    } else {
        roff.paragraph(&one_line(block));
    }
}

/// The two cells of a table's row.
fn row(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")
}

/// The text without its line breaks and indents.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_block_has_its_macro() {
        let mut roff = Roff::new("a", "2020-01-02", "1.0", "M");
        let blocks = [
            "# TITLE",
            "two\nlines",
            "## Heading",
            "- one\n  item\n- two",
            "| a | b |\n|---|---|\n| `x`, `y` | z |",
        ];
        blocks.iter().for_each(|block| write_block(block, &mut roff));
        write_block("```\na  b\n    c\n```", &mut roff);
        let expected = ".SH TITLE\ntwo lines\n.SS Heading\n.IP \\(bu 2\none item\n.IP \\(bu 2\ntwo\n\
                        .TP\n\\fBx\\fR, \\fBy\\fR\nz\n.PP\n.RS 4\n.EX\na  b\n    c\n.EE\n.RE\n";
        let text = roff.finish();
        assert_eq!(text.split_once(".hy 0\n").unwrap().1, expected);
    }

    /// Other Markdown would be printed unchanged.
    #[test]
    fn the_sections_keep_to_the_subset() {
        for section in SECTIONS {
            let mut blocks = section.split("\n\n").map(|block| block.trim_matches('\n'));
            let title = blocks.next().unwrap().strip_prefix("# ").unwrap();
            assert_eq!(title, title.to_uppercase());
            for block in blocks {
                if let Some(code) = block.strip_prefix("```\n") {
                    assert!(code.ends_with("\n```") && code.matches("```").count() == 1, "{block}");
                } else if block.starts_with('|') {
                    let rows = block.lines().skip(2);
                    let good =
                        |line| row(line).is_some_and(|(tag, words)| !format!("{tag}{words}").contains('|'));
                    assert!(block.lines().count() > 2 && rows.into_iter().all(good), "{block}");
                } else {
                    let marks = ["**", "](", "```", "\n|", "\n#", "<", "\n    "];
                    assert!(!marks.iter().any(|mark| block.contains(mark)), "{block}");
                    assert_eq!(
                        block.contains("\n- "),
                        block.starts_with("- ") && block.contains("\n- "),
                        "{block}"
                    );
                }
                assert_eq!(block.matches('`').count() % 2, 0, "{block}");
            }
        }
    }
}
