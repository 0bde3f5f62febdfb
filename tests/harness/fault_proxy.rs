//! Each fault of the fault proxy, at the right byte, between two plain sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::support::fault_proxy::{Cut, Direction, FaultProxy, Jitter};
use crate::support::peer::Peer;
use crate::support::rng::{Rng, Seed};

const DEADLINE: Duration = Duration::from_secs(30);

/// Returns a proxy, and the client's and the target's end of its first connection.
fn connect_through(limits: Vec<u64>, max_delay_ms: u64, rng: Rng) -> (FaultProxy, Peer, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    let proxy = FaultProxy::seeded(&host, limits, Jitter { rng, max_delay_ms });
    let near = TcpStream::connect(proxy.address()).unwrap();
    let far = listener.accept().unwrap().0;
    [&near, &far].iter().for_each(|stream| stream.set_read_timeout(Some(DEADLINE)).unwrap());
    (proxy, Peer(near), Peer(far))
}

fn read(stream: &mut Peer, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Whether there is nothing to read.
fn silent(stream: &mut Peer) -> bool {
    stream.set_nonblocking(true).unwrap();
    let result = stream.read(&mut [0; 8]);
    stream.set_nonblocking(false).unwrap();
    result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn all_bytes_arrive_in_order_in_different_pieces() {
    let seed = Seed::new();
    let (_cutter, mut near, mut far) = connect_through(Vec::new(), 1, seed.rng());
    let sent: Vec<u8> =
        (0..30_000_u32).map(|index| index.to_be_bytes()[3] ^ index.to_be_bytes()[2]).collect();
    let mut writer = near.try_clone().unwrap();
    let bytes = sent.clone();
    let thread =
        std::thread::spawn(move || bytes.chunks(1000).for_each(|part| writer.write_all(part).unwrap()));
    let mut sizes = Vec::new();
    let mut came = Vec::new();
    while came.len() < sent.len() {
        let mut buffer = [0; 16 << 10];
        let count = far.read(&mut buffer).unwrap();
        sizes.push(count);
        came.extend_from_slice(&buffer[..count]);
    }
    thread.join().unwrap();
    assert!(came == sent, "the received bytes differ");
    assert!(sizes.iter().any(|size| size % 1000 != 0), "no part was split: {sizes:?}");
    far.write_all(b"back").unwrap();
    assert_eq!(read(&mut near, 4), b"back");
    drop(far);
    assert_eq!(near.read(&mut [0; 8]).unwrap(), 0, "the end is forwarded");
}

#[test]
fn a_connection_stops_at_its_limit_and_can_be_cut_or_resumed() {
    let seed = Seed::new();
    for how in [Cut::Rst, Cut::Fin] {
        let (proxy, mut near, mut far) = connect_through(vec![7], 0, seed.rng());
        far.write_all(b"abc").unwrap();
        assert_eq!(read(&mut near, 3), b"abc");
        near.write_all(b"defghijk").unwrap();
        assert!(proxy.wait_stopped(1, DEADLINE));
        assert_eq!(read(&mut far, 4), b"defg");
        assert!(silent(&mut far) && proxy.passed(1) == 7);
        proxy.cut(1, how);
        for stream in [&mut near, &mut far] {
            let end = stream.read(&mut [0; 8]).map_err(|error| error.kind());
            let expected = if how == Cut::Rst { Err(ErrorKind::ConnectionReset) } else { Ok(0) };
            assert_eq!(end, expected, "{how:?}");
        }
    }
    let (proxy, mut near, mut far) = connect_through(vec![2], 0, seed.rng());
    near.write_all(b"abcd").unwrap();
    assert!(proxy.wait_stopped(1, DEADLINE));
    proxy.resume(1);
    assert_eq!(read(&mut far, 4), b"abcd");
}

#[test]
fn a_half_open_connection_discards_data_in_one_direction_and_stays_open() {
    let seed = Seed::new();
    let (proxy, mut near, mut far) = connect_through(Vec::new(), 0, seed.rng());
    near.write_all(b"a").unwrap();
    assert_eq!(read(&mut far, 1), b"a");
    proxy.swallow(1, Direction::Upstream);
    near.write_all(b"lost").unwrap();
    far.write_all(b"back").unwrap();
    assert_eq!(read(&mut near, 4), b"back");
    while proxy.passed(1) < 9 {
        std::thread::sleep(Duration::from_millis(5));
    }
    proxy.cut_one_end(1, Direction::Downstream, Cut::Rst);
    assert_eq!(near.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    far.write_all(b"discarded").unwrap();
    assert!(silent(&mut far), "the target receives neither the swallowed data nor the end");
    proxy.cut_one_end(1, Direction::Upstream, Cut::Fin);
    assert_eq!(far.read(&mut [0; 8]).unwrap(), 0);
}
