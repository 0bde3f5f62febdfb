//! Who may know what: one test a rule, with the files that are meant to break it.

use super::{Source, places, sources};

/// The rooms that decide or decode. A name that ends with a slash is a folder.
const PURE: [&str; 26] = [
    "src/cli.rs",
    "src/config/",
    "src/control_plane/answer.rs",
    "src/control_plane/error.rs",
    "src/coordinator/",
    "src/docker/api.rs",
    "src/docker/context.rs",
    "src/docker/discovery.rs",
    "src/docker/endpoint.rs",
    "src/docker/error.rs",
    "src/docker/http/",
    "src/docker/reference.rs",
    "src/docker/stream.rs",
    "src/exit.rs",
    "src/link/answer.rs",
    "src/link/confirm.rs",
    "src/link/error.rs",
    "src/link/timers.rs",
    "src/pages/",
    "src/protocol/",
    "src/secret.rs",
    "src/task/names.rs",
    "src/task/outcome.rs",
    "src/task/output.rs",
    "src/task/output/",
    "src/task/plan.rs",
];

/// Every word outside of these files is a break of the rule.
fn only_in(allowed: &[&str], words: &[&str]) {
    let all = sources();
    let elsewhere = all.iter().filter(|source| !allowed.contains(&source.path.as_str()));
    assert_eq!(places(elsewhere, words), Vec::<String>::new(), "only {allowed:?} may have any of {words:?}");
    for path in allowed {
        let there = all.iter().filter(|source| source.path == *path);
        assert!(!places(there, words).is_empty(), "{path} need not be allowed {words:?} any more");
    }
}

fn pure() -> Vec<Source> {
    let all = sources();
    for path in PURE {
        assert!(all.iter().any(|source| source.path.starts_with(path)), "{path} is gone");
    }
    all.into_iter().filter(|source| PURE.iter().any(|path| is_within(&source.path, path))).collect()
}

fn is_within(path: &str, place: &str) -> bool {
    path == place || (place.ends_with('/') && path.starts_with(place))
}

#[test]
fn tungstenite_is_known_to_the_dial_and_the_socket() {
    only_in(&["src/link/dial.rs", "src/link/socket.rs"], &["tungstenite"]);
}

/// The rest asks it for a run's state and knows no HTTP.
#[test]
fn ureq_is_known_to_the_control_plane() {
    only_in(&["src/control_plane/mod.rs", "src/control_plane/tls.rs"], &["ureq"]);
}

#[test]
fn threads_start_in_the_pool_the_link_and_the_log() {
    let starts = ["thread::spawn", "thread::scope", "thread::Builder", "use std::thread", ".spawn_scoped("];
    only_in(&["src/pool.rs", "src/link/mod.rs", "src/logging/queue.rs"], &starts);
}

/// Credential helpers, and nothing else.
#[test]
fn processes_are_started_for_credentials_only() {
    only_in(&["src/docker/auth/helper.rs"], &["process::{Child", "Command::new"]);
}

/// The one that sleeps does so only when poll(2) itself fails.
#[test]
fn nobody_sleeps() {
    only_in(&["src/link/supervise.rs"], &["thread::sleep", "park_timeout"]);
}

#[test]
fn the_environment_is_read_in_main() {
    only_in(&["src/main.rs"], &["env::var", "env::args", "use std::{env", "use std::env", "current_dir"]);
}

#[test]
fn files_are_opened_in_one_room_and_the_key_in_main() {
    only_in(&["src/main.rs", "src/files.rs"], &["std::fs", "File::open", "OpenOptions"]);
}

#[test]
fn sockets_are_opened_by_the_dial_and_the_docker_client() {
    only_in(
        &["src/link/dial.rs", "src/link/wire.rs", "src/docker/reach.rs"],
        &["std::net::{Shutdown", "std::net::{SocketAddr", "TcpStream", "os::unix::net", "UnixStream"],
    );
}

/// What fuzzing needs of a room, and sockets that lead nowhere.
#[test]
fn the_door_for_fuzzing_is_for_nobody_else() {
    let rooms = [
        "src/docker/auth/fuzz.rs",
        "src/docker/fuzz/files.rs",
        "src/docker/fuzz/http.rs",
        "src/docker/fuzz/mod.rs",
        "src/docker/fuzz/response.rs",
        "src/docker/fuzz/streams.rs",
        "src/fuzz/mod.rs",
        "src/link/fuzz.rs",
        "src/task/fuzz.rs",
    ];
    only_in(&rooms, &["fuzz::", "socketpair"]);
}

#[test]
fn the_pure_rooms_have_no_clock_no_thread_and_no_files() {
    let outside = [
        "Instant::now",
        "SystemTime",
        ".elapsed()",
        "std::thread",
        "std::fs",
        "std::os",
        "rustix",
        "crossbeam",
        "native_tls",
    ];
    assert_eq!(places(&pure(), &outside), Vec::<String>::new());
}

/// Of `std::io` they may know the error, which is what is handed in or out; `config/url` knows numbers of hosts.
#[test]
fn the_pure_rooms_do_no_io() {
    let all = pure();
    let words = ["std::net", "io::Read", "io::Write", "io::{", "io::std", "read_to_", "write_all("];
    let found = places(&all, &words);
    let found: Vec<_> =
        found.iter().filter(|place| !place.ends_with("use std::net::{IpAddr, Ipv4Addr};")).collect();
    assert_eq!(found, Vec::<&String>::new());
}

#[test]
fn nothing_of_the_product_can_panic_on_purpose() {
    let words = [
        ".unwrap()",
        ".expect(",
        "panic!(",
        "todo!(",
        "unimplemented!(",
        "unreachable!(",
        "unsafe ",
        "#[allow(",
        "#![allow(",
        "process::abort",
        "process::exit",
        "dbg!(",
        "println!(",
        "eprintln!(",
        "eprint!(",
    ];
    assert_eq!(places(&sources(), &words), Vec::<String>::new());
}

#[test]
fn a_lint_that_is_not_kept_says_why() {
    for source in sources() {
        for (number, line) in source.code.iter().filter(|(_, line)| line.contains("[expect(")) {
            assert!(line.contains("reason ="), "{}:{number}: {line}", source.path);
        }
    }
}
