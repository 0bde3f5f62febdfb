//! The error messages for an engine that cannot be used. Each names the problem and a remedy.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use openssl::ssl::SslVersion;

use super::{connect, guarded, variables};
use crate::support::fake_docker::{FakeDocker, Script, hello, json, write};
use crate::support::pki::{Key, Pki};
use crate::support::tls_proxy::{ServerTls, TlsEnd, TlsProxy};
use crate::support::worker::{WorkerBuilder, binary, worker_id};

const DEADLINE: Duration = Duration::from_secs(30);

/// Starts a worker with these variables. Returns its only error line; asserts exit code 4.
fn complaint(variables: &[(&str, &str)]) -> String {
    let mut builder =
        WorkerBuilder::new(&binary()).args(["--worker-id", &worker_id()]).env("OZ_API_KEY", "k");
    for (name, value) in variables {
        builder = builder.env(name, value);
    }
    let mut worker = builder.args(["--engine-start-timeout", "0"]).start();
    let status = worker.wait_exit(DEADLINE);
    let log = worker.stderr().all();
    assert_eq!(status.code(), Some(4), "{log:#?}");
    let errors: Vec<&String> = log.iter().filter(|line| line.contains(" ERROR ")).collect();
    let [error] = errors.as_slice() else { panic!("not one error line: {log:#?}") };
    (*error).clone()
}

#[track_caller]
fn assert_says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in\n{line}");
    }
}

fn tcp(port: u16) -> String {
    format!("tcp://localhost:{port}")
}

#[test]
fn an_unreachable_or_unsupported_address_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let stale = format!("unix://{}", stale.display());
    let cases: [(&str, &[&str]); 7] = [
        ("unix:///none/s", &["unix:///none/s", "address from DOCKER_HOST", "install and start an engine"]),
        (&stale, &[&stale, "no engine listens on it", "stale file"]),
        (&tcp(free), &[&tcp(free), "refused", "nothing listens on that port"]),
        ("tcp://no-such-host.invalid:1", &["no-such-host.invalid", "check the host's name"]),
        ("ssh://u@h", &["DOCKER_HOST is", "ssh:// is not supported", "ssh -N -L"]),
        ("fd://", &["fd:// is not supported", "systemd"]),
        ("npipe:////./pipe/docker_engine", &["npipe:// is not supported", "Windows"]),
    ];
    for (host, parts) in cases {
        assert_says(&complaint(&[("DOCKER_HOST", host)]), parts);
    }
}

#[test]
fn an_unusable_api_version_is_explained() {
    let fake = |scripts| FakeDocker::start(scripts);
    let old = fake(hello("1.40"));
    let host = old.endpoint().to_string();
    assert_says(&complaint(&[("DOCKER_HOST", &host)]), &[&host, "supports API 1.40", "1.41 (engine 20.10)"]);
    let line = complaint(&[("DOCKER_HOST", &host), ("DOCKER_API_VERSION", "1.40")]);
    assert_says(&line, &["DOCKER_API_VERSION is 1.40", "1.41 or newer"]);
    let line = complaint(&[("DOCKER_HOST", &host), ("DOCKER_API_VERSION", "new")]);
    assert_says(&line, &["DOCKER_API_VERSION is", "new", "1.41"]);
    let too_new = r#"{"message":"client version 1.99 is too new. Maximum supported API version is 1.41"}"#;
    let strict = fake(vec![vec![json(400, too_new)]]);
    let host = strict.endpoint().to_string();
    let line = complaint(&[("DOCKER_HOST", &host), ("DOCKER_API_VERSION", "1.99")]);
    assert_says(&line, &["DOCKER_API_VERSION is 1.99", "Maximum supported API version is 1.41", "unset it"]);
    assert_eq!(strict.request().line(), "GET /v1.99/version HTTP/1.1", "the pinned version is used");
}

#[test]
fn an_unusable_context_is_explained() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().display().to_string();
    let system = Path::new("/var/run/docker.sock").exists();
    if system {
        // This machine has an engine, whose socket takes precedence over any context.
        eprintln!("skipped: /var/run/docker.sock exists and takes precedence");
        return;
    }
    let named = |name| [("DOCKER_CONFIG", folder.as_str()), ("DOCKER_CONTEXT", name)];
    assert_says(
        &complaint(&named("no such")),
        &["no such", "set by DOCKER_CONTEXT", &folder, "docker context ls"],
    );
    std::fs::write(home.path().join("config.json"), r#"{"currentContext":"gone"}"#).unwrap();
    let line = complaint(&[("DOCKER_CONFIG", &folder)]);
    assert_says(&line, &["gone", &format!("set by {folder}/config.json")]);
    std::fs::write(home.path().join("config.json"), "hunter2").unwrap();
    let mut worker = WorkerBuilder::new(&binary()).args(["--worker-id", &worker_id()]).env("OZ_API_KEY", "k");
    worker = worker.env("DOCKER_CONFIG", &folder);
    let mut worker = worker.args(["--engine-start-timeout", "0"]).start();
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(4));
    let log = worker.stderr().all().join("\n");
    assert_says(
        &log,
        &["WARN", "settings are not used", "not JSON", "unix:///var/run/docker.sock", "address from default"],
    );
    assert!(!log.contains("hunter2"), "{log}");
}

/// The variables for an engine with TLS.
fn secured<'a>(host: &'a str, certificates: &'a str, verify: &'a str) -> [(&'a str, &'a str); 3] {
    [("DOCKER_HOST", host), ("DOCKER_CERT_PATH", certificates), ("DOCKER_TLS_VERIFY", verify)]
}

#[test]
fn unusable_certificates_are_explained() {
    let pki = Pki::new();
    let good = pki.client("good", Key::Pkcs8, 2);
    let other = pki.client("other", Key::Sec1, 2);
    let spoil = |name: &str, dir: &Path| match name {
        "foreign" => copy(&other.join("key.pem"), &dir.join("key.pem")),
        "garbage" => std::fs::write(dir.join("key.pem"), "hunter2").unwrap(),
        "binary" => std::fs::write(dir.join("ca.pem"), [0xff, 0]).unwrap(),
        "empty" => std::fs::write(dir.join("cert.pem"), "").unwrap(),
        "huge" => std::fs::write(dir.join("ca.pem"), vec![b'x'; 2 << 20]).unwrap(),
        _ => std::fs::remove_file(dir.join("ca.pem")).unwrap(),
    };
    let variants = [
        ("foreign", ["key.pem does not belong to", "cert.pem"]),
        ("garbage", ["key.pem", "no readable private key"]),
        ("binary", ["ca.pem", "not PEM"]),
        ("empty", ["cert.pem", "no readable certificate"]),
        ("huge", ["ca.pem", "longer than"]),
        ("missing", ["ca.pem is missing", "DOCKER_TLS_VERIFY"]),
    ];
    for (name, parts) in variants {
        let dir = pki.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        for file in ["ca.pem", "cert.pem", "key.pem"] {
            copy(&good.join(file), &dir.join(file));
        }
        spoil(name, &dir);
        let dir = dir.display().to_string();
        // Nothing listens there: the files are checked before connecting.
        let line = complaint(&secured("tcp://127.0.0.1:1", &dir, "1"));
        assert_says(&line, &parts);
        assert!(line.contains(&dir) && !line.contains("hunter2"), "{line}");
    }
    for kind in [Key::Encrypted, Key::EncryptedOld] {
        let dir = pki.client(&format!("{kind:?}"), kind, 2).display().to_string();
        let line = complaint(&secured("tcp://127.0.0.1:1", &dir, "1"));
        assert_says(&line, &[&format!("the key {dir}/key.pem is encrypted"), "openssl pkey"]);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
}

/// A scripted engine that answers eight connecting clients.
fn endless() -> FakeDocker {
    let hello = || hello("1.41");
    let scripts: Vec<Script> = (0..8).flat_map(|_| hello()).collect();
    FakeDocker::start(scripts)
}

#[test]
fn an_engine_with_a_wrong_certificate_is_refused() {
    let pki = Pki::new();
    let foreign = Pki::new();
    let fake = endless();
    let ours = pki.client("ours", Key::Pkcs8, 2).display().to_string();
    let engine = fake.endpoint().to_string();
    let doors: BTreeMap<&str, TlsProxy> = [
        ("unknown", foreign.server("s", "DNS:localhost", 2)),
        ("elsewhere", pki.server("elsewhere", "DNS:other.example", 2)),
        ("expired", pki.server("expired", "DNS:localhost", -1)),
    ]
    .into_iter()
    .map(|(name, server)| (name, TlsProxy::start(&engine, ServerTls::new(&server, None))))
    .collect();
    let cases: [(&str, &[&str]); 3] = [
        ("unknown", &["not signed by", &format!("{ours}/ca.pem"), "use the ca.pem"]),
        ("elsewhere", &["not for the host", "localhost", "use a host name"]),
        ("expired", &["certificate is not valid now", "expired", "renew"]),
    ];
    for (name, parts) in cases {
        let host = tcp(doors[name].port());
        assert_says(&complaint(&secured(&host, &ours, "1")), parts);
        assert_eq!(doors[name].passed(), 0, "{name}");
        // An empty DOCKER_TLS_VERIFY accepts any certificate.
        let mut env = variables(doors[name].port(), Path::new(&ours));
        env.docker_tls_verify = Some(String::new());
        connect(&env).unwrap();
        assert!(doors[name].passed() > 0, "{name}");
    }
    let by_address = |host: &str| {
        let door = guarded(&pki, &engine);
        let mut env = variables(door.port(), Path::new(&ours));
        env.docker_host = Some(format!("tcp://{host}:{}", door.port()));
        connect(&env).map(drop)
    };
    by_address("127.0.0.1").unwrap();
}

#[test]
fn a_refused_client_certificate_is_explained() {
    let pki = Pki::new();
    let foreign = Pki::new();
    let fake = endless();
    let engine = fake.endpoint().to_string();
    let stranger = foreign.client("stranger", Key::Pkcs8, 2);
    copy(&pki.ca(), &stranger.join("ca.pem"));
    let expired = pki.client("expired", Key::Pkcs8, -1);
    let anonymous = pki.path().join("anonymous");
    std::fs::create_dir(&anonymous).unwrap();
    copy(&pki.ca(), &anonymous.join("ca.pem"));
    let (certificate, key) = pki.server("server", "DNS:localhost", 2);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let lock = ServerTls::with(&certificate, &key, Some(&pki.ca()), version, TlsEnd::CloseNotify);
        let door = TlsProxy::start(&engine, lock);
        let cases = [
            (&stranger, "refused the client certificate", "stranger/cert.pem"),
            (&expired, "refused the client certificate", "expired/cert.pem (expired since"),
            (&anonymous, "refused this client", "has no certificate to show"),
        ];
        for (folder, words, name) in cases {
            let folder = folder.display().to_string();
            let line = complaint(&secured(&tcp(door.port()), &folder, "1"));
            assert_says(&line, &[words, name, "--tlscacert"]);
        }
        assert_eq!(door.passed(), 0);
    }
}

#[test]
fn tls_on_one_side_only_is_explained() {
    let pki = Pki::new();
    let fake = endless();
    let ours = pki.client("ours", Key::Pkcs8, 2).display().to_string();
    // Go's server answers like this to bytes that are not HTTP.
    let plain = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let host = tcp(plain.local_addr().unwrap().port());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = plain.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request").unwrap();
    });
    let line = complaint(&secured(&host, &ours, "1"));
    assert_says(&line, &["does not speak TLS on that port", "unset DOCKER_TLS_VERIFY"]);
    server.join().unwrap();
    let go = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    let real = FakeDocker::start_tcp(vec![vec![write(go)], vec![write(go)]]);
    let host = real.endpoint().to_string();
    assert_says(
        &complaint(&[("DOCKER_HOST", &host)]),
        &["the engine requires TLS", "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH"],
    );
    let door = guarded(&pki, &fake.endpoint().to_string());
    let line = complaint(&[("DOCKER_HOST", &tcp(door.port()))]);
    assert_says(&line, &["for one with TLS set DOCKER_TLS_VERIFY"]);
}
