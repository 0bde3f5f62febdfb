//! Starts that end with an error or for want of an engine, with secrets where settings have none.

use std::path::Path;

use crate::support::worker::{WorkerBuilder, binary};
use crate::worker::settings::{End, end, write_file};

type Case = (&'static str, String);

/// Files and variables with a secret, other than URLs.
fn places(folder: &Path) -> Vec<Case> {
    let file = |name: &str, text: &str| write_file(folder, name, text.as_bytes());
    let pem = |name: &str, kind: &str| {
        file(name, &format!("-----BEGIN {kind}-----\nMARKER\n-----END {kind}-----\n"))
    };
    let broken_ca = pem("ca.pem", "CERTIFICATE");
    file("config.json", "{\"auths\": {\"h\": {\"auth\": \"MARKER\"}}, \"currentContext\": MARKER");
    let mut cases = vec![
        ("OZ_API_KEY_FILE", file("long", &"MARKER".repeat(20_000))),
        ("OZ_CLIENT_KEY", pem("key.pem", "PRIVATE KEY")),
        ("OZ_CA_FILE", broken_ca.clone()),
        ("SSL_CERT_FILE", broken_ca),
        ("DOCKER_CONFIG", folder.to_str().unwrap().to_owned()),
    ];
    let lines = ["export OZ_API_KEY=MARKER", "OZ_API_KEY='MARKER", "MARKER", "OZ_API_KEY=MARKER\n=MARKER"];
    for (number, line) in (0..).zip(lines) {
        cases.push(("OZ_SETTINGS_FILE", file(&format!("{number}.env"), line)));
    }
    let variables = [
        ("OZ_API_KEY", "MARKER\u{e9}"),
        ("WARP_API_KEY", "MARKER\u{e9}"),
        ("OZ_ENV", "'A=MARKER"),
        ("OZ_ENV", "'MARKER x'"),
        ("OZ_ENV", "A=MARKER =MARKER"),
        ("DOCKER_HOST", "unix://u:MARKER@/x"),
        ("NO_PROXY", "http://me:MARKER@h,h"),
        ("OZ_WORKER_ARGS", "--api-key MARKER"),
        ("OZ_APIKEY", "MARKER"),
    ];
    cases.extend(variables.map(|(name, value)| (name, value.to_owned())));
    cases
}

/// Every setting that is a URL, with a good and with a wrong scheme, and with a secret in each part.
fn urls() -> Vec<Case> {
    let places = [
        "://me:MARKER@h",
        "://MARKER@h/?MARKER",
        "://me:x?MARKER@h",
        "://me:#MARKER@h:1",
        "://me:MARKER@h:MARKER",
        "://h/#MARKER",
    ];
    let settings = [
        ("OZ_WS_URL", ["wss", "http"]),
        ("OZ_SESSION_SHARING_SERVER_URL", ["wss", "http"]),
        ("OZ_SERVER_ROOT_URL", ["https", "ws"]),
        ("OZ_REST_URL", ["https", "ws"]),
        ("HTTPS_PROXY", ["http", "socks5"]),
        ("http_proxy", ["http", "socks5"]),
        ("DOCKER_HOST", ["tcp", "ssh"]),
    ];
    let all = settings.into_iter().flat_map(|(name, schemes)| schemes.map(|scheme| (name, scheme)));
    all.flat_map(|(name, scheme)| places.map(|place| (name, format!("{scheme}{place}")))).collect()
}

fn start(args: &[&str], variables: &[(&str, &str)]) -> End {
    let worker = WorkerBuilder::new(&binary()).args(args.iter().copied());
    let worker = worker.env("OZ_ENGINE_START_TIMEOUT", "0").env("DOCKER_HOST", "unix:///nonexistent");
    end(variables.iter().fold(worker, |worker, (name, value)| worker.env(name, value)).start())
}

#[test]
fn no_start_that_fails_shows_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in places(folder.path()).into_iter().chain(urls()) {
        for (print, codes) in [(None, [2, 4]), (Some("--print=settings"), [0, 2])] {
            let args: Vec<_> = print.into_iter().chain(["--worker-id=w"]).collect();
            let (code, out, err) = start(&args, &[("OZ_API_KEY", "MARKER-key"), (name, &value)]);
            assert!(codes.contains(&code.unwrap()), "{name} {value}: {err}");
            let shown = out.lines().chain(err.lines()).find(|line| line.contains("MARKER"));
            assert_eq!(shown, None, "{name} {value}");
        }
    }
}

#[test]
fn no_wrong_command_line_shows_a_secret() {
    for args in [
        ["--apikey=MARKER"].as_slice(),
        &["MARKER"],
        &["--api-key", "MARKER\u{e9}"],
        &["-e", "MARKER x"],
        &["-e=A", "MARKER"],
    ] {
        let (code, out, err) = start(args, &[]);
        assert!(code == Some(2) && !format!("{out}{err}").contains("MARKER"), "{args:?}: {err}{out}");
    }
}
