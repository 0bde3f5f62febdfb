//! Frames as a peer sends them, in every split.

use super::*;
use crate::sys::numbers::Numbers;

const LIMITS: Limits = Limits { stored: 300, skipped: 1000 };
const PING: u8 = 9;

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        short @ 0..126 => vec![u8::try_from(short).unwrap()],
        long => [&[126][..], &u16::try_from(long).unwrap().to_be_bytes()].concat(),
    };
    [&[first], length.as_slice(), payload].concat()
}

/// Returns what is passed to tungstenite when the bytes arrive in these parts, and the kinds.
fn pass<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Result<(Vec<u8>, Vec<Kind>), FrameError> {
    let mut frames = Frames::new(LIMITS);
    let mut passed = Vec::new();
    for part in parts {
        frames.push(part)?;
        let mut buffer = [0; 7];
        loop {
            match frames.take(&mut buffer) {
                0 => break,
                count => passed.extend_from_slice(&buffer[..count]),
            }
        }
    }
    Ok((passed, std::iter::from_fn(|| frames.next_kind()).collect()))
}

fn skipped(beginning: &[u8], bytes: u64) -> Kind {
    Kind::Skipped(Skipped { beginning: beginning.to_vec(), bytes, is_text: true })
}

#[test]
fn messages_within_the_limit_become_binary_and_control_frames_are_unchanged() {
    let long = [7; 300];
    let sent = [
        frame(FINAL | TEXT, b"abc"),
        frame(FINAL | PING, b"p"),
        frame(TEXT, b""),
        frame(FINAL | PING, b""),
        frame(CONTINUATION, b"d"),
        frame(FINAL | CONTINUATION, b""),
        frame(FINAL | BINARY, &long),
        frame(FINAL | 8, b"\x03\xe8"),
    ];
    let mut expected = sent.clone();
    (expected[0][0], expected[2][0]) = (FINAL | BINARY, BINARY);
    let kinds = vec![Kind::Text, Kind::Text, Kind::Binary];
    assert_eq!(pass(std::iter::once(sent.concat().as_slice())), Ok((expected.concat(), kinds)));
}

#[test]
fn a_long_message_leaves_an_empty_one_and_its_beginning() {
    let long = [1; 301];
    let sent = [frame(FINAL | TEXT, &long), frame(FINAL | TEXT, b"next")].concat();
    let expected = [frame(FINAL | BINARY, b""), frame(FINAL | BINARY, b"next")].concat();
    let kinds = vec![skipped(&long, 301), Kind::Text];
    assert_eq!(pass(std::iter::once(sent.as_slice())), Ok((expected, kinds)));
}

#[test]
fn a_long_message_in_frames_ends_early_for_tungstenite() {
    let sent = [
        frame(TEXT, &[1; 200]),
        frame(CONTINUATION, &[2; 100]),
        frame(FINAL | PING, b"p"),
        frame(CONTINUATION, &[3; 1]),
        frame(FINAL | PING, b"q"),
        frame(CONTINUATION, &[4; 1]),
        frame(FINAL | CONTINUATION, b""),
        frame(FINAL | TEXT, b"next"),
    ];
    let mut expected =
        [&sent[..3], &[sent[4].clone(), frame(FINAL | CONTINUATION, b"")], &sent[7..]].concat();
    expected[0][0] = BINARY;
    expected.last_mut().unwrap()[0] = FINAL | BINARY;
    let beginning = [&[1; 200][..], &[2; 100], &[3], &[4]].concat();
    let kinds = vec![skipped(&beginning, 302), Kind::Text];
    assert_eq!(pass(std::iter::once(sent.concat().as_slice())), Ok((expected.concat(), kinds)));
}

#[test]
fn the_beginning_has_at_most_64_kib() {
    let mut frames = Frames::new(Limits { stored: 1, skipped: 1 << 30 });
    frames.push(&[FINAL | TEXT, 127, 0, 0, 0, 0, 0, 2, 0, 0]).unwrap();
    frames.push(&vec![b'x'; 2 << 16]).unwrap();
    let Some(Kind::Skipped(skipped)) = frames.next_kind() else { panic!("not skipped") };
    assert_eq!((skipped.beginning.len(), skipped.bytes), (64 << 10, 2 << 16));
    assert!(frames.ready.len() < 10, "the message is stored");
}

#[test]
fn what_cannot_be_skipped_is_an_error_at_its_header() {
    let mut frames = Frames::new(LIMITS);
    assert_eq!(frames.push(&[FINAL | BINARY, 126, 3, 0xe9]), Err(FrameError::TooLong(1001)));
    let mut frames = Frames::new(LIMITS);
    frames.push(&frame(TEXT, &[0; 600])).unwrap();
    assert_eq!(frames.push(&[CONTINUATION, 126, 1, 0x91]), Err(FrameError::TooLong(1001)));
    let endless = [&[FINAL | TEXT, 127][..], &[0xff; 8]].concat();
    assert_eq!(Frames::new(LIMITS).push(&endless), Err(FrameError::TooLong(u64::MAX)));
}

#[test]
fn what_breaks_the_order_of_frames_reaches_tungstenite_or_is_an_error() {
    for first in [frame(TEXT, b"a"), frame(TEXT, &[0; 400])] {
        let mut frames = Frames::new(LIMITS);
        frames.push(&first).unwrap();
        assert_eq!(frames.push(&frame(FINAL | TEXT, b"b")), Err(FrameError::Nested));
    }
    for continuation in [frame(CONTINUATION, b"a"), frame(FINAL | CONTINUATION, &[0; 400])] {
        let sent = [frame(FINAL | TEXT, b"a"), continuation.clone()].concat();
        let (passed, kinds) = pass(std::iter::once(sent.as_slice())).unwrap();
        assert!(passed.ends_with(&continuation) && kinds == [Kind::Text]);
    }
}

#[test]
fn a_frame_of_a_skipped_message_has_no_reserved_bits_and_no_mask() {
    for (first, mask) in [(0xc1, 0), (FINAL | TEXT, MASKED)] {
        assert_eq!(
            Frames::new(LIMITS).push(&[first, mask | 126, 1, 0x2d, 0, 0, 0, 0]),
            Err(FrameError::Reserved)
        );
    }
}

#[test]
fn the_result_does_not_depend_on_the_split() {
    let mut numbers = Numbers(11);
    for _ in 0..300 {
        let mut sent = Vec::new();
        let mut open = false;
        for _ in 0..numbers.below(12) {
            let payload = vec![b'x'; [0, 1, 125, 126, 127, 299, 301][numbers.below(7)]];
            if numbers.below(3) == 0 {
                sent.extend(frame(FINAL | PING, &payload[..payload.len().min(125)]));
                continue;
            }
            let last = if numbers.below(2) == 0 { FINAL } else { 0 };
            let opcode = if open { CONTINUATION } else { [TEXT, BINARY][numbers.below(2)] };
            sent.extend(frame(last | opcode, &payload));
            open = last == 0;
        }
        let whole = pass(std::iter::once(sent.as_slice()));
        assert_eq!(pass(sent.chunks(1)), whole);
        let at = numbers.below(sent.len() + 1);
        assert_eq!(pass([&sent[..at], &sent[at..]].into_iter()), whole, "{at}");
    }
}

#[test]
fn a_masked_frame_is_passed_with_its_mask() {
    let masked = [FINAL | TEXT, MASKED | 2, 1, 2, 3, 4, 5, 6];
    let mut expected = masked;
    expected[0] = FINAL | BINARY;
    assert_eq!(pass(masked.chunks(1)), Ok((expected.to_vec(), vec![Kind::Text])));
}
