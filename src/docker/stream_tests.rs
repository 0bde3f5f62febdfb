use super::*;

const PULL: &str = concat!(
    "{\"status\":\"Pulling from library/busybox\",\"id\":\"latest\"}\r\n",
    "{\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"a\"}\r\n",
    "{\"status\":\"Already exists\",\"progressDetail\":{},\"id\":\"b\"}\n",
    "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":5,\"total\":10},\"progress\":\"=\",\"id\":\"a\"}\n",
    "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":7},\"id\":\"c\"}\n",
    "\n",
    "{\"status\":\"Digest: sha256:0\"}",
);

fn pulled(stream: &PullStream) -> (usize, usize, u64, u64) {
    let progress = stream.progress();
    (progress.layers, progress.layers_done, progress.bytes, progress.bytes_total)
}

#[test]
fn a_pull_decodes_at_every_split() {
    for split in 0..=PULL.len() {
        let (first, second) = PULL.as_bytes().split_at(split);
        let mut stream = PullStream::default();
        stream.push(first).unwrap();
        stream.push(second).unwrap();
        stream.finish().unwrap();
        assert_eq!(pulled(&stream), (3, 1, 12, 10), "split at {split}");
    }
}

#[test]
fn a_layer_progresses_to_done() {
    let mut stream = PullStream::default();
    let mut push = |status: &str, current: i64, total: i64| {
        let detail = serde_json::json!({ "current": current, "total": total });
        let line = serde_json::json!({ "id": "a", "status": status, "progressDetail": detail });
        stream.push(format!("{line}\n").as_bytes()).unwrap();
        pulled(&stream)
    };
    assert_eq!(push("Waiting", 0, 0), (1, 0, 0, 0));
    assert_eq!(push("Downloading", 4, 9), (1, 0, 4, 9));
    assert_eq!(push("Downloading", -1, -1), (1, 0, 0, 9));
    assert_eq!(push("Download complete", 0, 0), (1, 0, 9, 9));
    assert_eq!(push("Extracting", 3, 9), (1, 0, 9, 9));
    assert_eq!(push("Pull complete", 0, 0), (1, 1, 9, 9));
    assert_eq!(push("Retrying in 5 seconds", 0, 0), (1, 1, 9, 9));
}

#[test]
fn an_error_in_the_stream_is_a_pull_error() {
    let both = r#"{"errorDetail":{"message":"manifest\nunknown"},"error":"x"}"#;
    let old = r#"{"error":"manifest unknown"}"#;
    let empty = r#"{"errorDetail":{},"error":"manifest unknown"}"#;
    for line in [both, old, empty] {
        let mut stream = PullStream::default();
        let error = stream.push(line.as_bytes()).and_then(|()| stream.finish()).unwrap_err();
        assert!(matches!(&error, Error::Pull { message } if message == "manifest unknown"), "{error:?}");
    }
}

#[test]
fn every_truncated_line_is_an_error() {
    let line = r#"{"status":"Pulling fs layer","id":"a"}"#;
    for end in 1..line.len() {
        let mut stream = PullStream::default();
        stream.push(&line.as_bytes()[..end]).unwrap();
        assert!(stream.finish().is_err(), "cut at {end}");
    }
}

#[test]
fn lines_layers_and_ids_are_bounded() {
    let mut stream = PullStream::default();
    stream.push(&vec![b' '; MAX_LINE]).unwrap();
    assert!(stream.push(b" ").is_err());
    let mut stream = PullStream::default();
    for n in 0..MAX_LAYERS + 5 {
        stream.push(format!("{{\"id\":\"{n}\",\"status\":\"Waiting\"}}\n").as_bytes()).unwrap();
    }
    assert_eq!(stream.progress().layers, MAX_LAYERS);
    let mut stream = PullStream::default();
    for n in 0..10 {
        let id = format!("{n}{}", "x".repeat(MAX_ID));
        stream.push(format!("{{\"id\":\"{id}\",\"status\":\"Waiting\"}}\n").as_bytes()).unwrap();
    }
    assert_eq!((stream.progress().layers, stream.held()), (0, 0), "long ids are not kept");
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0, 0, 0];
    frame.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn log() -> Vec<u8> {
    [frame(1, b"out"), frame(2, b""), frame(2, b"err"), frame(3, b"lost"), frame(0, b"!")].concat()
}

fn demuxed(parts: &[&[u8]]) -> (Vec<(LogStream, u8)>, Result<(), Error>) {
    let mut demux = LogDemux::default();
    let mut seen = Vec::new();
    let mut sink = |stream, bytes: &[u8]| seen.extend(bytes.iter().map(|byte| (stream, *byte)));
    for part in parts {
        if let Err(error) = demux.push(part, &mut sink) {
            return (seen, Err(error));
        }
    }
    (seen, demux.finish())
}

#[test]
fn a_log_decodes_at_every_split() {
    let log = log();
    let pieces = [
        (LogStream::Stdout, "out"),
        (LogStream::Stderr, "err"),
        (LogStream::Engine, "lost"),
        (LogStream::Stdout, "!"),
    ];
    let expected: Vec<_> =
        pieces.iter().flat_map(|(stream, text)| text.bytes().map(|byte| (*stream, byte))).collect();
    for first in 0..=log.len() {
        for second in first..=log.len() {
            let (seen, end) = demuxed(&[&log[..first], &log[first..second], &log[second..]]);
            end.unwrap();
            assert_eq!(seen, expected, "split at {first} and {second}");
        }
    }
}

#[test]
fn small_frames_of_one_stream_are_joined() {
    let large = vec![b'x'; SMALL_FRAME + 1];
    let frames =
        [(1, b"a\n".as_slice()), (1, b"b\n"), (2, b"c\n"), (2, b"d\n"), (2, &large), (1, b"e\n"), (1, b"f")];
    let log: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
    let mut pieces = Vec::new();
    let mut sink = |stream, bytes: &[u8]| pieces.push((stream, bytes.to_vec()));
    // Without the last byte, and then with an invalid header behind it: what came before an error is passed on.
    let mut demux = LogDemux::default();
    demux.push(&log[..log.len() - 1], &mut sink).unwrap();
    demux.push(b"fxxxxxxxx", &mut sink).unwrap_err();
    let expected = [
        (LogStream::Stdout, b"a\nb\n".to_vec()),
        (LogStream::Stderr, b"c\nd\n".to_vec()),
        (LogStream::Stderr, large),
        (LogStream::Stdout, b"e\n".to_vec()),
        (LogStream::Stdout, b"f".to_vec()),
    ];
    assert_eq!(pieces, expected);
}

#[test]
fn a_log_that_ends_within_a_frame_is_an_error() {
    let log = log();
    let ends = [0, 11, 19, 30, 42, 51];
    for end in 0..=log.len() {
        let (_, result) = demuxed(&[&log[..end]]);
        assert_eq!(result.is_ok(), ends.contains(&end), "cut at {end}");
    }
}

#[test]
fn an_unframed_log_is_an_error() {
    for header in [b"plain text".as_slice(), &frame(4, b"x"), &[1, 0, 1, 0, 0, 0, 0, 1, b'x']] {
        assert!(demuxed(&[header]).1.is_err(), "{header:?}");
    }
}
