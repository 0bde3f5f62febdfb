//! A name server of the tests, on port 53 of an address of the loopback that nobody else uses: every name is 127.0.0.1.
//!
//! A name that begins with `large` is answered over TCP only, as an answer that is too long for a datagram would be.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// Where it listens.
pub const ADDRESS: &str = "127.83.79.53";
const QUESTION: usize = 12;
const TYPE_A: u8 = 1;
const TRUNCATED: u8 = 2;

/// The server; dropping it ends it.
pub struct NameServer {
    by_datagram: Arc<AtomicUsize>,
    by_stream: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl NameServer {
    /// Starts it, which needs root, or nobody else on the port.
    pub fn start() -> Self {
        let datagrams = UdpSocket::bind((ADDRESS, 53)).expect("port 53 for datagrams");
        let streams = TcpListener::bind((ADDRESS, 53)).expect("port 53 for streams");
        let (by_datagram, by_stream) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (first, second) = (Arc::clone(&by_datagram), Arc::clone(&by_stream));
        let threads = vec![
            std::thread::spawn(move || serve_datagrams(&datagrams, &first)),
            std::thread::spawn(move || serve_streams(&streams, &second)),
        ];
        Self { by_datagram, by_stream, threads }
    }

    /// How many addresses it has given by datagram and by stream.
    pub fn answers(&self) -> (usize, usize) {
        (self.by_datagram.load(Ordering::SeqCst), self.by_stream.load(Ordering::SeqCst))
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // An empty datagram and an empty stream are what ends the threads.
        let _ = UdpSocket::bind((ADDRESS, 0)).map(|socket| socket.send_to(&[], (ADDRESS, 53)));
        drop(TcpStream::connect((ADDRESS, 53)));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_datagrams(socket: &UdpSocket, count: &AtomicUsize) {
    let mut buffer = [0; 512];
    while let Ok((length @ 1.., from)) = socket.recv_from(&mut buffer) {
        let (answer, has_address) = answer(&buffer[..length], true);
        count.fetch_add(usize::from(has_address), Ordering::SeqCst);
        let _ = socket.send_to(&answer, from);
    }
}

fn serve_streams(listener: &TcpListener, count: &AtomicUsize) {
    while let Ok((mut stream, _)) = listener.accept() {
        let mut length = [0; 2];
        if stream.read_exact(&mut length).is_err() {
            break;
        }
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).unwrap();
        let (answer, has_address) = answer(&query, false);
        count.fetch_add(usize::from(has_address), Ordering::SeqCst);
        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &answer].concat()).unwrap();
    }
}

/// The answer to a query with one question, and whether there is an address in it.
fn answer(query: &[u8], is_datagram: bool) -> (Vec<u8>, bool) {
    let name_length = query[QUESTION..].iter().position(|byte| *byte == 0).unwrap();
    let question = &query[QUESTION..QUESTION + name_length + 5];
    let truncated = is_datagram && question[1..].starts_with(b"large");
    let has_address = question[name_length + 2] == TYPE_A && !truncated;
    let flags = [0x81 | if truncated { TRUNCATED } else { 0 }, 0x80];
    let counts = [0, 1, 0, u8::from(has_address), 0, 0, 0, 0];
    let mut answer = [&query[..2], &flags, &counts, question].concat();
    if has_address {
        // The name by its place, A, IN, a minute, four bytes.
        answer.extend([0xc0, 0x0c, 0, TYPE_A, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    (answer, has_address)
}
