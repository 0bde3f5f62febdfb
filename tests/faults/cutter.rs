//! The cutter itself, between two plain sockets: each fault is what it is called, at the byte that was named.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::support::cutter::{Cut, Cutter, Manner, Way};
use crate::support::dice::{Dice, Seed};

const DEADLINE: Duration = Duration::from_secs(30);

/// Both ends of the first connection over a cutter.
fn line(limits: Vec<u64>, lag: u64, dice: Dice) -> (Cutter, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    let cutter = Cutter::seeded(&host, limits, Manner { dice, lag });
    let near = TcpStream::connect(cutter.address()).unwrap();
    let far = listener.accept().unwrap().0;
    [&near, &far].iter().for_each(|stream| stream.set_read_timeout(Some(DEADLINE)).unwrap());
    (cutter, near, far)
}

fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn silent(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let result = stream.read(&mut [0; 8]);
    stream.set_nonblocking(false).unwrap();
    result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn every_byte_arrives_in_order_in_many_pieces() {
    let seed = Seed::new();
    let (_cutter, mut near, mut far) = line(Vec::new(), 1, seed.dice());
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
    assert!(came == sent, "not what was sent");
    assert!(sizes.iter().any(|size| size % 1000 != 0), "no part was split: {sizes:?}");
    far.write_all(b"back").unwrap();
    assert_eq!(read(&mut near, 4), b"back");
    drop(far);
    assert_eq!(near.read(&mut [0; 8]).unwrap(), 0, "the end arrives as well");
}

#[test]
fn it_stops_at_the_byte_and_then_does_what_it_is_told() {
    let seed = Seed::new();
    for how in [Cut::Rst, Cut::Fin] {
        let (cutter, mut near, mut far) = line(vec![7], 0, seed.dice());
        far.write_all(b"abc").unwrap();
        assert_eq!(read(&mut near, 3), b"abc");
        near.write_all(b"defghijk").unwrap();
        assert!(cutter.stops(1, DEADLINE));
        assert_eq!(read(&mut far, 4), b"defg");
        assert!(silent(&mut far) && cutter.passed(1) == 7);
        cutter.cut(1, how);
        for stream in [&mut near, &mut far] {
            let end = stream.read(&mut [0; 8]).map_err(|error| error.kind());
            let expected = if how == Cut::Rst { Err(ErrorKind::ConnectionReset) } else { Ok(0) };
            assert_eq!(end, expected, "{how:?}");
        }
    }
    let (cutter, mut near, mut far) = line(vec![2], 0, seed.dice());
    near.write_all(b"abcd").unwrap();
    assert!(cutter.stops(1, DEADLINE));
    cutter.go_on(1);
    assert_eq!(read(&mut far, 4), b"abcd");
}

#[test]
fn half_open_is_silence_in_one_direction_and_no_end() {
    let seed = Seed::new();
    let (cutter, mut near, mut far) = line(Vec::new(), 0, seed.dice());
    near.write_all(b"a").unwrap();
    assert_eq!(read(&mut far, 1), b"a");
    cutter.swallow(1, Way::Out);
    near.write_all(b"lost").unwrap();
    far.write_all(b"back").unwrap();
    assert_eq!(read(&mut near, 4), b"back");
    while cutter.passed(1) < 9 {
        std::thread::sleep(Duration::from_millis(5));
    }
    cutter.cut_end(1, Way::Back, Cut::Rst);
    assert_eq!(near.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    far.write_all(b"to nobody").unwrap();
    assert!(silent(&mut far), "it hears neither what was swallowed nor the end");
    cutter.cut_end(1, Way::Out, Cut::Fin);
    assert_eq!(far.read(&mut [0; 8]).unwrap(), 0);
}
