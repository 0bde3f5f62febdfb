//! One worker's WebSocket connection: a thread that polls the socket and the outbox, and passes messages to the model.

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

/// A larger message crashes the real control plane.
const MAX_MESSAGE: usize = 100 << 20;
/// How long to wait for the worker after a close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(30);

struct Session<'a> {
    shared: &'a Shared,
    outbox: Arc<Outbox>,
    socket: WebSocket<TcpStream>,
    number: usize,
    hold: bool,
    unsent: bool,
    closing: Option<Instant>,
    /// The code of the worker's close frame, once it has arrived.
    closed: Option<Option<u16>>,
}

/// Who connects, from the handshake.
pub struct Client<'a> {
    /// The worker's id.
    pub worker: &'a str,
    /// What the worker announces, or nothing.
    pub capabilities: &'a str,
}

/// Sends `answer` to the handshake and serves the connection until it ends. `early` was read with the request's head.
pub fn serve(shared: &Shared, mut stream: TcpStream, answer: &str, early: Vec<u8>, client: &Client<'_>) {
    let outbox = Arc::new(Outbox::new());
    // Before the answer, so that a worker that is connected is always counted here.
    let number = shared.update(|model| {
        if model.accept_and_close {
            outbox.push(Command::End(Disconnect::Fin));
        }
        model.connect(client.worker, client.capabilities, Arc::clone(&outbox), Instant::now())
    });
    // If this fails, so does the first read.
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

    /// Executes the commands in the outbox. Returns `false` to end the connection.
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
            // The next read returns how the connection ended.
            Err(_) => self.unsent = false,
        }
        true
    }

    fn end(&mut self, how: Disconnect) -> bool {
        let stream = self.socket.get_ref();
        match how {
            Disconnect::Fin => drop(stream.shutdown(Shutdown::Both)),
            // Closing a socket with SO_LINGER 0 resets it.
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

    /// Reads all messages that have arrived. Returns `false` to end the connection.
    fn read(&mut self) -> bool {
        while !self.hold {
            match self.socket.read() {
                Ok(message) => {
                    // After a crash, a ping that follows is not answered.
                    if !self.take(message) {
                        return false;
                    }
                }
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed) => return false,
                // A worker that is killed does not close properly.
                Err(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                    return false;
                }
                Err(error) => {
                    let what = format!("a frame that crashes the real control plane: {error}");
                    self.shared.update(|model| model.violation(self.number, &what));
                    return false;
                }
            }
        }
        true
    }

    /// Returns `false` if the control plane crashes.
    fn take(&mut self, message: Message) -> bool {
        let number = self.number;
        match message {
            Message::Text(text) => {
                return self.shared.update(|model| model.receive(number, &text, Instant::now()));
            }
            Message::Ping(_) => self.shared.update(|model| model.connections[number - 1].pings += 1),
            Message::Close(frame) => self.closed = Some(frame.map(|frame| frame.code.into())),
            Message::Binary(_) => self.shared.update(|model| model.violation(number, "a binary frame")),
            Message::Pong(_) | Message::Frame(_) => {}
        }
        true
    }

    /// Waits for data or commands. Returns `true` if the control plane stops.
    fn wait(&self) -> bool {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::IN, !self.hold);
        interest.set(PollFlags::OUT, self.unsent);
        let (stream, wakes) = (self.socket.get_ref(), self.outbox.wakes());
        let mut fds = vec![PollFd::new(&self.shared.stop, PollFlags::IN), PollFd::new(&wakes, PollFlags::IN)];
        if !interest.is_empty() {
            // Otherwise omitted: poll reports a hang-up even without interest, and a held connection would spin.
            fds.push(PollFd::from_borrowed_fd(stream.as_fd(), interest));
        }
        let tick = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        let _ = poll(&mut fds, self.closing.is_some().then_some(&tick));
        !fds[0].revents().is_empty()
    }
}
