//! From the write of an assignment to the read of its claim, at the control plane's socket. The floor is one round trip of as many
//! bytes between two threads over a loopback connection.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::bench::Bench;
use crate::figure::Figure;
use crate::link::Link;
use crate::session::{millis, timed};
use crate::support::control_plane::RunSpec;

/// About the size of an assignment, and of a claim.
const ASSIGNMENT: usize = 800;
const CLAIM: usize = 120;

pub fn measure(bench: &Bench) -> Vec<Figure> {
    let mut latency = bench.figure("assignment to claim", "ms");
    let mut echo = Echo::start();
    let mut links: Vec<Link> =
        bench.programs.iter().map(|program| Link::start(&bench.engine, program)).collect();
    let spec = bench.failing_spec();
    // The first task of a process also starts threads.
    for link in &mut links {
        claim(link, &spec);
    }
    for _ in bench.rounds(200, 60) {
        for (index, link) in links.iter_mut().enumerate() {
            let floor = timed(|| echo.round_trip());
            latency.add_pair(index, floor, millis(claim(link, &spec)));
        }
    }
    vec![latency]
}

/// Returns the time from the assignment to the claim, once the task has ended.
fn claim(link: &mut Link, spec: &RunSpec) -> Duration {
    let (id, sent) = link.assign(spec);
    let claim = link.next();
    assert_eq!((claim.kind.as_str(), &claim.task_id), ("task_claimed", &id));
    while !link.next().is_final() {}
    claim.at.duration_since(sent)
}

/// A connection to a thread that answers each assignment with a claim.
struct Echo(TcpStream);

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (mut other, _) = listener.accept().expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        other.set_nodelay(true).expect("a socket");
        std::thread::spawn(move || {
            let mut buffer = [0; ASSIGNMENT];
            while other.read_exact(&mut buffer).is_ok() && other.write_all(&buffer[..CLAIM]).is_ok() {}
        });
        Self(stream)
    }

    fn round_trip(&mut self) {
        self.0.write_all(&[0; ASSIGNMENT]).expect("bytes go out");
        self.0.read_exact(&mut [0; CLAIM]).expect("bytes come in");
    }
}
