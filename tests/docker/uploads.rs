//! Streamed request bodies: complete, cut and refused early.

use std::io::{self, Read};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use oz_agent_worker::docker::{Error, Timeouts};
use oz_agent_worker::sys::cancel::CancelToken;

use crate::support::fake_docker::{FakeDocker, PATIENCE, Recorded, Script, Step, json, write};

/// Uploads `source` to an engine that follows `script`.
fn put(script: Script, timeouts: Timeouts, source: &mut dyn Read) -> (Result<(), Error>, FakeDocker) {
    let (fake, docker) = FakeDocker::connected(vec![script], timeouts);
    (docker.archive_put(&CancelToken::new(), "c", "/a b", source), fake)
}

fn unchunked(recorded: &Recorded) -> Vec<u8> {
    let mut rest = recorded.body.as_slice();
    let mut data = Vec::new();
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 {
            assert_eq!(rest, b"\r\n");
            return data;
        }
        data.extend_from_slice(&rest[..size]);
        rest = rest[size..].strip_prefix(b"\r\n").unwrap();
    }
}

/// A reader that returns some bytes, then calls a closure.
struct Then<F>(Option<Vec<u8>>, F);

impl<F: FnMut() -> io::Result<usize>> Read for Then<F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.take() {
            Some(bytes) => bytes.as_slice().read(buf),
            None => (self.1)(),
        }
    }
}

#[test]
fn a_body_arrives_complete() {
    let data: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for size in [0, 1, 65_536, 65_537, 300_000] {
        let (result, fake) =
            put(vec![Step::ReadBody, json(200, "")], Timeouts::default(), &mut data[..size].as_ref());
        result.unwrap();
        let request = fake.request();
        assert_eq!(request.line(), "PUT /v1.41/containers/c/archive?path=%2Fa%20b HTTP/1.1");
        assert!(request.head.contains("\r\nTransfer-Encoding: chunked\r\n"), "{}", request.head);
        assert_eq!(unchunked(&request), data[..size], "{size} bytes");
    }
}

#[test]
fn a_failing_source_aborts_the_upload() {
    let mut source = Then(Some(b"half".to_vec()), || Err(io::Error::other("the disk is gone")));
    let (result, fake) = put(vec![Step::ReadBody], Timeouts::default(), &mut source);
    assert!(
        matches!(&result, Err(Error::Upload { source }) if source.to_string() == "the disk is gone"),
        "{result:?}"
    );
    assert_eq!(fake.request().body, b"4\r\nhalf\r\n");
}

#[test]
fn an_interrupted_read_is_retried() {
    let mut times = 0;
    let mut source = Then(Some(b"half".to_vec()), || {
        times += 1;
        if times < 3 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(0) }
    });
    let (result, fake) = put(vec![Step::ReadBody, json(200, "")], Timeouts::default(), &mut source);
    result.unwrap();
    assert_eq!(unchunked(&fake.request()), b"half");
}

#[test]
fn a_refusal_ends_a_stuck_upload() {
    let script = vec![json(404, r#"{"message":"no such folder"}"#), Step::Stall];
    let (result, _fake) = put(script, Timeouts::default(), &mut io::repeat(b'x'));
    assert!(
        matches!(&result, Err(Error::Engine { status: 404, message }) if message == "no such folder"),
        "{result:?}"
    );
}

#[test]
fn a_refusal_is_read_after_the_engine_has_closed_the_connection() {
    // The source holds back the second piece until the engine has closed, so that sending it fails.
    let (tell, reached) = bounded(1);
    let script = vec![json(507, r#"{"message":"disk full"}"#), Step::Tell(tell)];
    let mut source = Then(Some(vec![b'x'; 100]), move || wait_reached(&reached));
    let (result, _fake) = put(script, Timeouts::default(), &mut source);
    assert!(
        matches!(&result, Err(Error::Engine { status: 507, message }) if message == "disk full"),
        "{result:?}"
    );
}

fn wait_reached(reached: &Receiver<()>) -> io::Result<usize> {
    let _ = reached.recv_timeout(PATIENCE);
    Ok(100)
}

#[test]
fn an_early_success_does_not_stop_the_upload() {
    let (tell, reached) = bounded(1);
    let script = vec![json(200, ""), Step::Tell(tell), Step::ReadBody];
    let mut times = 0;
    let mut source = Then(Some(vec![b'x'; 100]), move || {
        let _ = reached.recv_timeout(PATIENCE);
        times += 1;
        Ok(if times > 20 { 0 } else { 50 })
    });
    let (result, fake) = put(script, Timeouts::default(), &mut source);
    result.unwrap();
    assert_eq!(unchunked(&fake.request()).len(), 100 + 20 * 50);
}

#[test]
fn an_early_success_counts_although_the_engine_then_closes() {
    let (hang_up, hung_up) = bounded::<()>(0);
    let mut hang_up = Some(hang_up);
    let mut source = Then(Some(vec![b'x'; 100]), || {
        // The engine closes now; more pieces follow until a write fails.
        drop(hang_up.take());
        Ok(100)
    });
    let script = vec![json(200, ""), Step::Await(hung_up)];
    let (result, _fake) = put(script, Timeouts::default(), &mut source);
    result.unwrap();
}

#[test]
fn an_interim_response_does_not_stop_the_upload() {
    let script = vec![write("HTTP/1.1 100 Continue\r\n\r\n"), Step::ReadBody, json(200, "")];
    let data = vec![b'x'; 1 << 20];
    let (result, fake) = put(script, Timeouts::default(), &mut data.as_slice());
    result.unwrap();
    assert_eq!(unchunked(&fake.request()), data);
}

#[test]
fn a_close_without_an_answer_is_a_lost_connection() {
    let (result, _fake) = put(vec![], Timeouts::default(), &mut io::repeat(b'x'));
    assert!(matches!(&result, Err(error) if error.is_connection_lost()), "{result:?}");
}

#[test]
fn an_engine_that_stops_reading_is_a_timeout() {
    let limit = Duration::from_millis(100);
    let timeouts = Timeouts { idle: limit, ..Timeouts::default() };
    let (result, _fake) = put(vec![Step::Stall], timeouts, &mut io::repeat(b'x'));
    let Err(Error::Timeout { what, after }) = &result else { panic!("{result:?}") };
    assert!(what.contains("sending the request"), "{what}");
    assert_eq!(*after, limit);
}
