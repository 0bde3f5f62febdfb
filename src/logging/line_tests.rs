//! Lines in text and in JSON, with values of any kind.

use std::time::Duration;

use serde_json::Value;

use super::super::{message, value};
use super::*;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn output(format: Format, is_journal: bool) -> Output {
    Output { format, is_journal }
}

fn json(event: &str) -> Value {
    let line = output(Format::Json, false).line(NOW, Level::Warn, "t::u", event);
    let text = line.strip_suffix('\n').unwrap();
    assert!(!text.contains(is_unsafe), "{text:?}");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_line_has_time_level_module_and_event_and_in_a_journal_its_priority() {
    let line = |format, is_journal, level| output(format, is_journal).line(NOW, level, "t", "task ended a=1");
    assert_eq!(line(Format::Text, false, Level::Warn), "1970-01-01T00:00:00.000Z WARN  [t] task ended a=1\n");
    assert_eq!(line(Format::Text, true, Level::Warn), "<4>WARN  [t] task ended a=1\n");
    let levels = [Level::Error, Level::Info, Level::Debug].map(|level| line(Format::Text, true, level));
    assert_eq!(levels.map(|line| line.split_at(3).0.to_owned()), ["<3>", "<6>", "<7>"]);
    assert_eq!(
        line(Format::Json, false, Level::Error),
        "{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"ERROR\",\"target\":\"t\",\"message\":\"task ended\",\"a\":\"1\"}\n"
    );
    assert_eq!(
        line(Format::Json, true, Level::Error),
        "<3>{\"level\":\"ERROR\",\"target\":\"t\",\"message\":\"task ended\",\"a\":\"1\"}\n"
    );
}

#[test]
fn an_event_has_words_and_pairs() {
    let event =
        r#"outbox full, reconnecting task=a-b reason="say \"x\\y\" a=b\u001b" url=http://h/?a back=a\b"#;
    let pairs = vec![
        ("task", "a-b"),
        ("reason", r#""say \"x\\y\" a=b\u001b""#),
        ("url", "http://h/?a"),
        ("back", "a\\b"),
    ];
    assert_eq!(parse(event), Some(("outbox full, reconnecting", pairs)));
    assert_eq!(parse("connected"), Some(("connected", Vec::new())));
    assert_eq!(parse("a=1"), Some(("", vec![("a", "1")])));
    for broken in [
        "words a=1 more",
        "words a=",
        "words a=1  b=2",
        "words a=1 ",
        "words a=b=c",
        "words a=\"x",
        "words a=\"x\"y",
        r#"words a="\x""#,
        r#"words a="\u{1b}""#,
        "words \"quoted\"",
        "words A=1",
        "words a=x\"y",
    ] {
        assert_eq!(parse(broken), None, "{broken}");
        assert_eq!(json(broken)["message"], broken);
    }
}

/// Every key becomes a field, also one whose name is taken.
#[test]
fn an_object_has_each_key_once() {
    let object = json("words a=1 level=x a=2 a=3 message=\"\"");
    let fields = [
        ("message", "words"),
        ("level", "WARN"),
        ("target", "t::u"),
        ("a", "1"),
        ("a_", "2"),
        ("a__", "3"),
        ("level_", "x"),
        ("message_", ""),
    ];
    for (field, expected) in fields {
        assert_eq!(object[field], expected, "{field} of {object}");
    }
    assert_eq!(object.as_object().unwrap().len(), fields.len() + 1);
}

/// Repeatable texts of characters that matter, and any others.
#[test]
fn values_of_any_kind_come_back() {
    let special = [
        " ",
        "\"",
        "\\",
        "=",
        "\n",
        "\r",
        "\t",
        "\0",
        "\u{1b}",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{202e}",
        "\u{feff}",
        "\u{fffd}",
        "ü",
        "😀",
        "\u{10ffff}",
        "a",
        "1",
        "'",
        "{",
        "}",
        ",",
        "task=",
        "\\u",
        "\\n",
        "\u{a0}",
        "…",
    ];
    let mut state = 7_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let invalid = String::from_utf8_lossy(b"/path/\xff\xfe").into_owned();
    let texts = (0..3000).map(|_| (0..next(12)).map(|_| special[next(special.len())]).collect::<String>());
    for text in texts.chain([invalid, String::new(), "ü".repeat(200)]) {
        let event = format!("event words first={} second={} third=3", value(&text), message(&text));
        assert!(!event.contains(is_unsafe), "{event:?}");
        let (words, pairs) = parse(&event).unwrap_or_else(|| panic!("{event}"));
        assert_eq!((words, pairs.len(), pairs[2]), ("event words", 3, ("third", "3")), "{event}");
        let object = json(&event);
        assert_eq!((&object["first"], &object["second"]), (&text.as_str().into(), &text.as_str().into()));
    }
    let mut chars = (0..=0x10_ffff_u32).filter_map(char::from_u32);
    assert!(chars.all(|c| parse(&format!("a b={}", value(&c.to_string()))).is_some()));
}

#[test]
fn timestamps_look_like_those_of_the_logger() {
    let now = NOW + Duration::from_millis(1_000_000_000_007);
    assert_eq!(timestamp(now), "2001-09-09T01:46:40.007Z");
}
