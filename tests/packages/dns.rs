//! A DNS server for tests, on port 53 of a loopback address: every name resolves to 127.0.0.1.
//!
//! Names that begin with `large` get a truncated answer over UDP, so that the client must use TCP.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// Where the server listens.
pub const ADDRESS: &str = "127.83.79.53";
/// The offset of the question in a query.
const QUESTION: usize = 12;
const TYPE_A: u8 = 1;
const TRUNCATED: u8 = 2;

/// The running server; stops when dropped.
pub struct NameServer {
    over_udp: Arc<AtomicUsize>,
    over_tcp: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl NameServer {
    /// Starts the server; needs root to bind port 53.
    pub fn start() -> Self {
        let udp = UdpSocket::bind((ADDRESS, 53)).expect("cannot bind UDP port 53");
        let tcp = TcpListener::bind((ADDRESS, 53)).expect("cannot bind TCP port 53");
        let over_udp = Arc::new(AtomicUsize::new(0));
        let over_tcp = Arc::new(AtomicUsize::new(0));
        let udp_count = Arc::clone(&over_udp);
        let tcp_count = Arc::clone(&over_tcp);
        let threads = vec![
            std::thread::spawn(move || serve_udp(&udp, &udp_count)),
            std::thread::spawn(move || serve_tcp(&tcp, &tcp_count)),
        ];
        Self { over_udp, over_tcp, threads }
    }

    /// Returns the number of addresses sent over UDP and over TCP.
    pub fn answers(&self) -> (usize, usize) {
        (self.over_udp.load(Ordering::SeqCst), self.over_tcp.load(Ordering::SeqCst))
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // An empty datagram and an empty stream end the threads.
        let _ = UdpSocket::bind((ADDRESS, 0)).map(|socket| socket.send_to(&[], (ADDRESS, 53)));
        drop(TcpStream::connect((ADDRESS, 53)));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_udp(socket: &UdpSocket, count: &AtomicUsize) {
    let mut buffer = [0; 512];
    while let Ok((length @ 1.., from)) = socket.recv_from(&mut buffer) {
        let (answer, has_address) = answer(&buffer[..length], true);
        count.fetch_add(usize::from(has_address), Ordering::SeqCst);
        let _ = socket.send_to(&answer, from);
    }
}

fn serve_tcp(listener: &TcpListener, count: &AtomicUsize) {
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

/// Returns the answer to a query with one question, and whether it contains an address.
fn answer(query: &[u8], is_udp: bool) -> (Vec<u8>, bool) {
    let name_length = query[QUESTION..].iter().position(|byte| *byte == 0).unwrap();
    let question = &query[QUESTION..QUESTION + name_length + 5];
    let truncated = is_udp && question[1..].starts_with(b"large");
    let has_address = question[name_length + 2] == TYPE_A && !truncated;
    let flags = [0x81 | if truncated { TRUNCATED } else { 0 }, 0x80];
    let counts = [0, 1, 0, u8::from(has_address), 0, 0, 0, 0];
    let mut answer = [&query[..2], &flags, &counts, question].concat();
    if has_address {
        // A pointer to the name, type A, class IN, a TTL of 60 s, four bytes of address.
        answer.extend([0xc0, 0x0c, 0, TYPE_A, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    (answer, has_address)
}
