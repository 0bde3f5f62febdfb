//! One worker's connection: a thread that polls the socket and the outbox, and tells the model what comes.
//!
//! The only place that speaks WebSocket. It must not know what a message means.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::Shared;
use super::model::Ended;
use super::outbox::{Command, Disconnect, Outbox};

/// The known control plane ends with a message above this.
const MAX_MESSAGE: usize = 100 << 20;
/// Disconnect long it waits after its own close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(30);

struct Session<'a> {
    shared: &'a Shared,
    outbox: Arc<Outbox>,
    socket: WebSocket<TcpStream>,
    number: usize,
    hold: bool,
    unsent: bool,
    closing: Option<Instant>,
    /// What the worker's close frame said.
    closed: Option<Option<u16>>,
}

/// Answers the handshake with `answer` and serves the connection until it ends. `early` is what came with the
/// request's head.
pub fn serve(shared: &Shared, mut stream: TcpStream, answer: &str, early: Vec<u8>, worker: &str) {
    let outbox = Arc::new(Outbox::new());
    // Before the answer: a worker that knows it is connected is known here to be connected.
    let number = shared.update(|model| {
        if model.accept_and_close {
            outbox.push(Command::End(Disconnect::Fin));
        }
        model.connect(worker, Arc::clone(&outbox), Instant::now())
    });
    // When this fails so does the first read.
    let _ = stream.write_all(answer.as_bytes());
    stream.set_nonblocking(true).expect("non-blocking");
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let socket = WebSocket::from_partially_read(stream, early, Role::Server, Some(config));
    let (hold, unsent, closing, closed) = (false, false, None, None);
    let mut session = Session { shared, outbox, socket, number, hold, unsent, closing, closed };
    session.run();
    let ended = session.closed.map_or(Ended::Lost, Ended::Closed);
    shared.update(|model| model.disconnect(number, ended, Instant::now()));
}

impl Session<'_> {
    fn run(&mut self) {
        loop {
            self.outbox.acknowledge();
            let goes_on = self.write() && self.read();
            let overdue = self.closing.is_some_and(|since| since.elapsed() > CLOSE_WAIT);
            if !goes_on || overdue || self.wait() {
                return;
            }
        }
    }

    /// Carries out the outbox; `false` ends the connection.
    fn write(&mut self) -> bool {
        while let Some(command) = self.outbox.pop() {
            let goes_on = match command {
                Command::Text(text) => self.send(Message::text(text)),
                Command::Binary(bytes) => self.send(Message::binary(bytes)),
                Command::Hold(hold) => {
                    self.hold = hold;
                    self.shared.update(|model| model.connections[self.number - 1].held = hold);
                    true
                }
                Command::End(how) => self.end(how),
            };
            if !goes_on {
                return false;
            }
        }
        let flushed = self.socket.flush();
        self.went_out(flushed)
    }

    fn send(&mut self, message: Message) -> bool {
        let sent = self.socket.send(message);
        self.went_out(sent)
    }

    fn went_out(&mut self, result: Result<(), Error>) -> bool {
        match result {
            Ok(()) => self.unsent = false,
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => self.unsent = true,
            // Reading finds out how it ended.
            Err(_) => self.unsent = false,
        }
        true
    }

    fn end(&mut self, how: Disconnect) -> bool {
        let stream = self.socket.get_ref();
        match how {
            Disconnect::Fin => drop(stream.shutdown(Shutdown::Both)),
            // A socket that is closed without lingering is reset.
            Disconnect::Rst => {
                let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
            }
            Disconnect::Close1001 => {
                self.closing = Some(Instant::now());
                let frame = CloseFrame { code: CloseCode::Away, reason: "shutting down".into() };
                let closed = self.socket.close(Some(frame));
                return self.went_out(closed);
            }
        }
        false
    }

    /// Reads all there is; `false` ends the connection.
    fn read(&mut self) -> bool {
        while !self.hold {
            match self.socket.read() {
                Ok(message) => self.take(message),
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed) => return false,
                // The worker's process may be killed at any moment.
                Err(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                    return false;
                }
                Err(error) => {
                    let what = format!("ends the known control plane: {error}");
                    self.shared.update(|model| model.violation(self.number, &what));
                    return false;
                }
            }
        }
        true
    }

    fn take(&mut self, message: Message) {
        let number = self.number;
        match message {
            Message::Text(text) => {
                self.shared.update(|model| model.receive(number, &text, Instant::now()));
            }
            Message::Ping(_) => self.shared.update(|model| model.connections[number - 1].pings += 1),
            Message::Close(frame) => self.closed = Some(frame.map(|frame| frame.code.into())),
            Message::Binary(_) => self.shared.update(|model| model.violation(number, "a binary frame")),
            Message::Pong(_) | Message::Frame(_) => {}
        }
    }

    /// Waits for something to do; `true` when the control plane stops.
    fn wait(&self) -> bool {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::IN, !self.hold);
        interest.set(PollFlags::OUT, self.unsent);
        let (stream, wakes) = (self.socket.get_ref(), self.outbox.wakes());
        let mut fds = vec![PollFd::new(&self.shared.stop, PollFlags::IN), PollFd::new(&wakes, PollFlags::IN)];
        if !interest.is_empty() {
            // Left out otherwise: a hang-up is reported without being asked for, which must not spin a held one.
            fds.push(PollFd::from_borrowed_fd(stream.as_fd(), interest));
        }
        let tick = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        let _ = poll(&mut fds, self.closing.is_some().then_some(&tick));
        !fds[0].revents().is_empty()
    }
}
