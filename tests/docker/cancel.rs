//! A cancel ends a call in every phase, and the call returns `Error::Cancelled`.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use oz_agent_worker::docker::{Docker, Endpoint, Error, Reference, Timeouts};
use oz_agent_worker::sys::cancel::{CancelReason, CancelToken};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::support::fake_docker::{FakeDocker, PATIENCE, Script, Step, client_with, temp_dir, write};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Runs `call` against an engine that follows `script` and then stalls. Cancels at the stall and returns the result.
fn cancelled<T: Send + 'static>(
    mut script: Script,
    call: impl FnOnce(&Docker, &CancelToken) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (tell, reached) = bounded(1);
    script.extend([Step::Tell(tell), Step::Stall]);
    let (_fake, docker) = FakeDocker::connected(vec![script], Timeouts::default());
    let token = CancelToken::new();
    let caller = token.clone();
    let result = in_time(
        move || call(&docker, &caller),
        || {
            reached.recv_timeout(PATIENCE).expect("the engine got no request");
            token.cancel(CancelReason::Requested);
        },
    );
    result.expect("the cancel did not end the call")
}

/// Runs `work` and `meanwhile` in parallel. Returns the result of `work`, or `None` if it takes too long.
fn in_time<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    meanwhile: impl FnOnce(),
) -> Option<T> {
    let (done, result): (_, Receiver<T>) = bounded(1);
    let thread = std::thread::spawn(move || drop(done.send(work())));
    meanwhile();
    let result = result.recv_timeout(PATIENCE).ok();
    if result.is_some() {
        thread.join().unwrap();
    }
    result
}

#[track_caller]
fn assert_cancelled<T: std::fmt::Debug>(result: &Result<T, Error>) {
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
}

#[test]
fn while_waiting_for_a_head() {
    assert_cancelled(&cancelled(vec![], |docker, token| docker.container_inspect(token, "c")));
    let half = vec![write("HTTP/1.1 200 OK\r\nConte")];
    assert_cancelled(&cancelled(half, |docker, token| docker.container_inspect(token, "c")));
}

#[test]
fn while_reading_a_body() {
    for head in ["Content-Length: 9\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n9\r\n{", "\r\n{"] {
        let script = vec![write(&format!("HTTP/1.1 200 OK\r\n{head}"))];
        assert_cancelled(&cancelled(script, |docker, token| docker.container_inspect(token, "c")));
    }
}

#[test]
fn a_cancel_is_not_the_end_of_a_body_without_a_length() {
    let script = vec![write("HTTP/1.1 200 OK\r\n\r\nhello")];
    let result = cancelled(script, |docker, token| {
        let mut bytes = Vec::new();
        docker.container_export(token, "c")?.read_to_end(&mut bytes).map_err(Error::from_read)
    });
    assert_cancelled(&result);
}

#[test]
fn while_reading_the_message_of_an_error() {
    let script = vec![write("HTTP/1.1 500 x\r\nContent-Length: 9\r\n\r\n{")];
    assert_cancelled(&cancelled(script, |docker, token| docker.container_start(token, "c")));
}

#[test]
fn while_a_container_runs() {
    let script = vec![write(CHUNKED)];
    assert_cancelled(&cancelled(script, |docker, token| docker.container_wait(token, "c")?.join()));
}

#[test]
fn while_a_pull_is_silent() {
    let script = vec![write(CHUNKED)];
    let result = cancelled(script, |docker, token| {
        docker.image_pull(token, &Reference::parse("a").unwrap(), None, None, Duration::MAX, &mut |_| {})
    });
    assert_cancelled(&result);
}

#[test]
fn while_an_upload_is_stuck() {
    let result =
        cancelled(vec![], |docker, token| docker.archive_put(token, "c", "/", &mut io::repeat(b'x')));
    assert_cancelled(&result);
}

#[test]
fn while_awaiting_a_removal_in_progress() {
    let busy = r#"{"message":"removal of container c is already in progress"}"#;
    let answer = format!("HTTP/1.1 409 x\r\nContent-Length: {}\r\n\r\n{busy}", busy.len());
    assert_cancelled(&cancelled(vec![write(&answer)], |docker, token| docker.container_remove(token, "c")));
}

#[test]
fn before_a_connection_is_made() {
    let (fake, docker) = FakeDocker::connected(vec![vec![]], Timeouts::default());
    let token = CancelToken::new();
    token.cancel(CancelReason::Shutdown);
    assert_cancelled(&docker.container_inspect(&token, "c"));
    assert!(fake.is_quiet());
}

/// Returns a socket with a full backlog, where a connect blocks; and the sockets that fill it.
fn full_backlog() -> (PathBuf, impl Send) {
    let path = temp_dir().join("s");
    let address = SocketAddrUnix::new(&path).unwrap();
    let new = |flags| socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    let listener = new(SocketFlags::CLOEXEC);
    bind(&listener, &address).unwrap();
    listen(&listener, 0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let socket = new(SocketFlags::NONBLOCK);
        match connect(&socket, &address) {
            Ok(()) => waiting.push(socket),
            Err(Errno::AGAIN) => return (path, (listener, waiting)),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn while_the_engines_backlog_is_full() {
    let (path, _full) = full_backlog();
    let endpoint = Endpoint::Unix(path.clone());
    let timeouts = Timeouts { connect: Duration::MAX, ..Timeouts::default() };
    let token = CancelToken::new();
    let caller = token.clone();
    let result = in_time(
        move || client_with(&caller, endpoint, None, timeouts),
        || {
            // Nothing reports that the connect blocks. A cancel before that weakens the test but cannot fail it.
            std::thread::sleep(Duration::from_millis(300));
            token.cancel(CancelReason::Requested);
        },
    );
    assert_cancelled(&result.expect("the cancel did not end the connect"));
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn a_full_backlog_has_a_deadline() {
    let (path, _full) = full_backlog();
    let timeouts = Timeouts { connect: Duration::from_millis(250), ..Timeouts::default() };
    let endpoint = Endpoint::Unix(path.clone());
    let result = in_time(move || client_with(&CancelToken::new(), endpoint, None, timeouts), || {});
    let error = result.expect("the deadline did not end the connect").unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { source, .. } if source.to_string().contains("250ms")),
        "{error:?}"
    );
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

/// Returns a port with a full backlog, where a connect gets no answer; and the sockets that fill it.
fn full_port() -> (u16, impl Send) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&listener, &address).unwrap();
    listen(&listener, 0).unwrap();
    let listener = TcpListener::from(listener);
    let address = listener.local_addr().unwrap();
    let connects =
        std::iter::from_fn(|| TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok());
    let waiting: Vec<TcpStream> = connects.collect();
    (address.port(), (listener, waiting))
}

#[test]
fn while_a_port_does_not_answer() {
    let (port, _full) = full_port();
    let endpoint = || Endpoint::Tcp { host: Ipv4Addr::LOCALHOST.to_string(), port };
    let timeouts = Timeouts { connect: Duration::from_millis(250), ..Timeouts::default() };
    let error = client_with(&CancelToken::new(), endpoint(), None, timeouts).unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { source, .. } if source.to_string().contains("250ms")),
        "{error:?}"
    );

    let timeouts = Timeouts { connect: Duration::MAX, ..Timeouts::default() };
    let token = CancelToken::new();
    let endpoint = endpoint();
    let caller = token.clone();
    let result = in_time(
        move || client_with(&caller, endpoint, None, timeouts),
        || {
            // Nothing reports that the connect blocks. A cancel before that weakens the test but cannot fail it.
            std::thread::sleep(Duration::from_millis(300));
            token.cancel(CancelReason::Requested);
        },
    );
    assert_cancelled(&result.expect("the cancel did not end the connect"));
}
