//! Restricted imports: one test per rule, with the files that are exempt from the rule.

use super::{Source, places, sources};

/// The modules that decide or decode. A name that ends with a slash is a folder.
const PURE: [&str; 39] = [
    "src/app/monitor/http.rs",
    "src/app/monitor/pages.rs",
    "src/cli/",
    "src/control_plane/rest/answer.rs",
    "src/control_plane/rest/error.rs",
    "src/control_plane/ws/answer.rs",
    "src/control_plane/ws/confirm.rs",
    "src/control_plane/ws/error.rs",
    "src/control_plane/ws/frames.rs",
    "src/control_plane/ws/timers.rs",
    "src/coordinator/",
    "src/docker/api.rs",
    "src/docker/create.rs",
    "src/docker/discovery/context.rs",
    "src/docker/discovery/endpoint.rs",
    "src/docker/discovery/mod.rs",
    "src/docker/error.rs",
    "src/docker/http/",
    "src/docker/reference.rs",
    "src/docker/stream.rs",
    "src/exit.rs",
    "src/job.rs",
    "src/metrics/",
    "src/net/url.rs",
    "src/policy/",
    "src/protocol/",
    "src/secret.rs",
    "src/task/arguments.rs",
    "src/task/failed_pulls.rs",
    "src/task/labels.rs",
    "src/task/names.rs",
    "src/task/outcome.rs",
    "src/task/output/budget.rs",
    "src/task/output/mod.rs",
    "src/task/output/scan.rs",
    "src/task/output/text.rs",
    "src/task/definition.rs",
    "src/task/limits.rs",
    "src/task/plan.rs",
];

/// Fails for every use of the words outside of these files.
fn only_in(allowed: &[&str], words: &[&str]) {
    let all = sources();
    let elsewhere = all.iter().filter(|source| !allowed.contains(&source.path.as_str()));
    assert_eq!(places(elsewhere, words), Vec::<String>::new(), "only {allowed:?} may have any of {words:?}");
    for path in allowed {
        let there = all.iter().filter(|source| source.path == *path);
        assert!(
            !places(there, words).is_empty(),
            "{path} has none of {words:?} any more; take it off the list"
        );
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
fn tungstenite_is_used_by_the_dial_the_upgrade_and_the_socket() {
    let files = ["dial", "socket", "upgrade"].map(|name| format!("src/control_plane/ws/{name}.rs"));
    only_in(&files.each_ref().map(String::as_str), &["tungstenite"]);
}

/// Whoever needs a decision that depends on the dialect asks for it there.
#[test]
fn only_one_module_compares_dialects() {
    let words = [
        "Dialect::Old",
        "Dialect::Upstream",
        "Self::Upstream",
        "== dialect",
        "dialect ==",
        "dialect !=",
        "match dialect",
        "== Dialect",
        "!= Dialect",
        "dialect.name() ==",
        "dialect.name() !=",
        "\"upstream\"",
    ];
    only_in(&["src/protocol/dialect.rs"], &words);
}

#[test]
fn ureq_is_used_by_the_rest_client() {
    only_in(
        &[
            "src/control_plane/rest/mod.rs",
            "src/control_plane/rest/proxy.rs",
            "src/control_plane/rest/resolver.rs",
            "src/control_plane/rest/tls.rs",
        ],
        &["ureq"],
    );
}

#[test]
fn threads_start_in_the_pool_the_link_and_the_log() {
    let starts = ["thread::spawn", "thread::scope", "thread::Builder", "use std::thread", ".spawn_scoped("];
    only_in(&["src/sys/pool.rs", "src/control_plane/ws/mod.rs", "src/logging/queue.rs"], &starts);
}

#[test]
fn programs_are_started_in_one_module() {
    only_in(&["src/sys/program.rs"], &["process::{Child", "Command::new"]);
}

/// The exception sleeps only when poll(2) itself fails.
#[test]
fn no_thread_sleeps() {
    only_in(&["src/control_plane/ws/supervise.rs"], &["thread::sleep", "park_timeout"]);
}

#[test]
fn the_environment_is_read_in_main() {
    only_in(&["src/main.rs"], &["env::var", "env::args", "use std::{env", "use std::env", "current_dir"]);
}

/// `limits` writes to /proc.
#[test]
fn files_are_opened_in_one_module_and_the_key_at_startup() {
    only_in(
        &["src/app/mod.rs", "src/sys/files.rs", "src/sys/limits.rs"],
        &["std::fs", "File::open", "OpenOptions"],
    );
}

#[test]
fn sockets_are_opened_in_net_for_the_engine_and_as_locks() {
    only_in(
        &[
            "src/app/diagnosis/metrics.rs",
            "src/app/monitor/client.rs",
            "src/app/monitor/server.rs",
            "src/control_plane/ws/dial.rs",
            "src/control_plane/ws/wire.rs",
            "src/net/connect.rs",
        ],
        &["std::net::{Shutdown", "std::net::{SocketAddr", "TcpStream", "os::unix::net", "UnixStream"],
    );
    only_in(&["src/net/connect.rs", "src/docker/connect.rs", "src/sys/host_lock.rs"], &["socket_with("]);
}

/// `socketpair` is for fuzzing, too: its sockets lead nowhere.
#[test]
fn only_fuzzing_uses_the_fuzz_entry_points() {
    let files = [
        "src/docker/auth/fuzz.rs",
        "src/docker/fuzz/files.rs",
        "src/docker/fuzz/http.rs",
        "src/docker/fuzz/mod.rs",
        "src/docker/fuzz/response.rs",
        "src/docker/fuzz/streams.rs",
        "src/fuzz/mod.rs",
        "src/control_plane/rest/fuzz.rs",
        "src/control_plane/ws/fuzz.rs",
        "src/task/fuzz.rs",
    ];
    only_in(&files, &["fuzz::", "socketpair"]);
}

#[test]
fn the_pure_modules_have_no_clock_no_thread_and_no_files() {
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

/// They may pass on an `io::Error`, and parse a host that is an IP address.
#[test]
fn the_pure_modules_do_no_io() {
    let all = pure();
    let words = ["std::net", "io::Read", "io::Write", "io::{", "io::std", "read_to_", "write_all("];
    let found = places(&all, &words);
    let is_address = |place: &String| {
        ["use std::net::{IpAddr, Ipv4Addr};", "use std::net::IpAddr;"]
            .iter()
            .any(|line| place.ends_with(line))
    };
    let found: Vec<_> = found.iter().filter(|place| !is_address(place)).collect();
    assert_eq!(found, Vec::<&String>::new());
}

#[test]
fn the_product_has_no_deliberate_panic() {
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
fn an_expected_lint_has_a_reason() {
    for source in sources() {
        for (number, line) in source.code.iter().filter(|(_, line)| line.contains("[expect(")) {
            assert!(line.contains("reason ="), "{}:{number}: {line}", source.path);
        }
    }
}
