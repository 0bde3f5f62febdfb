//! The static binary on a machine that has nothing: no library, no shell, no file but those that a test puts there.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::dns::{ADDRESS, NameServer};
use crate::elf::Elf;
use crate::jail::Jail;
use crate::stage::{Stage, is_connected, run_container};
use crate::support::door::{Door, Lock};
use crate::support::images::Root;
use crate::support::pki::Pki;
use crate::support::process::Signal;
use crate::{DEADLINE, static_binary};

const LARGEST: u64 = 13 * 1024 * 1024 / 2;
const HOSTS: &str = "127.0.0.1 localhost other.example\n";
const UNKNOWN: &str = "unable to get local issuer certificate";
/// Where Debian, Fedora, RHEL, SUSE and Alpine have their authorities.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A control plane behind TLS, with a certificate for `localhost` of an authority that nobody knows yet.
struct Secured {
    stage: Stage,
    pki: Pki,
    door: Door,
}

impl Secured {
    fn new() -> Self {
        let (stage, pki) = (Stage::new(), Pki::new());
        let door = stage.secured(&pki.server("server", "DNS:localhost", 2));
        Self { stage, pki, door }
    }

    /// A root folder with nothing but names for 127.0.0.1.
    fn jail(&self) -> Jail {
        let jail = Jail::new();
        jail.put("/etc/hosts", HOSTS);
        jail
    }

    fn args(&self) -> Vec<String> {
        self.stage.secured_args("localhost", &self.door)
    }

    /// The name under which OpenSSL looks for the authority in a folder.
    fn hashed(&self) -> String {
        let mut command = Command::new("openssl");
        let output = command.args(["x509", "-hash", "-noout", "-in"]).arg(self.pki.ca()).output().unwrap();
        let hash = String::from_utf8(output.stdout).unwrap();
        assert_eq!(hash.trim().len(), 8, "{hash}");
        format!("{}.0", hash.trim())
    }
}

#[test]
fn it_is_one_file_that_needs_nothing() {
    let path = static_binary();
    let expected =
        Elf { position_independent: true, has_interpreter: false, needed: 0, executable_stack: false };
    assert_eq!(Elf::read(&path), expected);
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size <= LARGEST, "{size} bytes");
    let output = Command::new("ldd").arg(&path).output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    assert!(String::from_utf8_lossy(&told).contains("statically linked"), "{told:?}");
}

/// Else the test above would see nothing.
#[test]
fn a_program_that_needs_libraries_is_told_apart() {
    let elf = Elf::read(&std::env::current_exe().unwrap());
    assert!(elf.has_interpreter && elf.needed > 0, "{elf:?}");
}

/// What was built from, or with, is nobody's business, and would make each build another.
#[test]
fn no_path_of_the_build_is_in_it() {
    let bytes = std::fs::read(static_binary()).unwrap();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("oz_agent_worker"), "nothing would be found");
    let home = std::env::var("HOME").unwrap();
    for path in [env!("CARGO_MANIFEST_DIR"), &format!("{home}/.cargo"), "static-build"] {
        assert!(!has(path), "{path}");
    }
}

#[test]
fn it_runs_in_an_empty_root_folder() {
    let jail = Jail::new();
    let mut worker = jail.program().args(["--version"]).start();
    let code = worker.wait_exit(DEADLINE).code();
    let expected = [format!("oz-agent-worker {}", env!("CARGO_PKG_VERSION"))];
    assert_eq!((code, worker.stdout().all()), (Some(0), expected.to_vec()), "{:#?}", worker.stderr().all());
}

#[test]
fn it_runs_in_an_empty_container() {
    let mut stage = Stage::new();
    let root = Root::default().file("oz-agent-worker", 0o755, std::fs::read(static_binary()).unwrap());
    let image = stage.images.make("empty", root, &[]);
    let spec = json!({"Image": image, "Cmd": ["/oz-agent-worker", "--version"], "Tty": true});
    let expected = format!("oz-agent-worker {}\r\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run_container(&stage.engine, &spec), (0, expected));
}

/// WebSocket and REST: of a cancel that is not sent, only a look-up can tell.
#[test]
fn a_whole_task_over_tls_with_an_authority_in_ssl_cert_file() {
    let secured = Secured::new();
    let (stage, jail) = (&secured.stage, secured.jail());
    jail.copy(&secured.pki.ca(), "/ca.pem");
    let program = jail.program().env("SSL_CERT_FILE", "/ca.pem");
    let args = [secured.args(), ["--reconcile-interval", "1s"].map(str::to_owned).to_vec()].concat();
    let mut worker = stage.start(program, &args);
    worker.wait_log(DEADLINE, is_connected);
    stage.run_a_task();
    let id = stage.plane.submit(stage.spec("trap 'exit 7' TERM; sleep 1000 & wait"));
    stage.plane.wait_message(&id, "task_claimed");
    stage.plane.cancel_unheard(&id);
    let report = stage.plane.wait_message(&id, "task_failed").data;
    assert_eq!(report["failure_reason"], "task_cancelled", "{report:#}");
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0), "{:#?}", worker.stderr().all());
    assert_eq!(stage.engine.containers_of(&stage.worker_id), Vec::<Value>::new());
    stage.plane.assert_no_violations();
    assert!(!worker.stderr().all().join("\n").contains("certificates not usable"), "nothing to warn of");
}

#[test]
fn whom_nobody_vouches_for_is_refused() {
    let secured = Secured::new();
    let jail = secured.jail();
    let worker = secured.stage.start(jail.program(), &secured.args());
    secured.stage.refuses(worker, UNKNOWN);
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    let secured = Secured::new();
    let jail = secured.jail();
    jail.copy(&secured.pki.ca(), "/ca.pem");
    let args = secured.stage.secured_args("other.example", &secured.door);
    let worker = secured.stage.start(jail.program().env("SSL_CERT_FILE", "/ca.pem"), &args);
    secured.stage.refuses(worker, "hostname mismatch");
}

#[test]
fn the_authorities_of_the_system_are_found_in_their_usual_places() {
    let secured = Secured::new();
    let folders = ["/etc/ssl/certs", "/etc/pki/tls/certs"];
    let hashed = folders.map(|folder| format!("{folder}/{}", secured.hashed()));
    for place in BUNDLES.into_iter().chain(hashed.iter().map(String::as_str)) {
        eprintln!("{place}");
        let jail = secured.jail();
        jail.copy(&secured.pki.ca(), place);
        secured.stage.connects(secured.stage.start(jail.program(), &secured.args()));
    }
}

/// What the README says of both variables.
#[test]
fn ssl_cert_file_takes_the_place_of_the_bundle_and_not_of_the_folder() {
    let secured = Secured::new();
    let (stage, other) = (&secured.stage, Pki::named("another authority"));
    let start =
        |jail: &Jail, name: &str, path: &str| stage.start(jail.program().env(name, path), &secured.args());
    let jail = secured.jail();
    jail.copy(&other.ca(), "/other.pem");
    jail.copy(&secured.pki.ca(), BUNDLES[0]);
    stage.refuses(start(&jail, "SSL_CERT_FILE", "/other.pem"), UNKNOWN);

    // A file that is not there takes nobody's place.
    let worker = start(&jail, "SSL_CERT_FILE", "/gone.pem");
    let warning = "certificates not usable variable=SSL_CERT_FILE path=/gone.pem";
    worker.wait_log(DEADLINE, |line| line.contains(warning));
    stage.connects(worker);

    let jail = secured.jail();
    jail.copy(&other.ca(), "/other.pem");
    jail.copy(&secured.pki.ca(), &format!("/etc/ssl/certs/{}", secured.hashed()));
    stage.connects(start(&jail, "SSL_CERT_FILE", "/other.pem"));

    // A folder of one's own counts besides, in a list too.
    let jail = secured.jail();
    jail.copy(&other.ca(), BUNDLES[0]);
    jail.copy(&secured.pki.ca(), &format!("/mine/{}", secured.hashed()));
    stage.connects(start(&jail, "SSL_CERT_DIR", "/mine"));
    let worker = start(&jail, "SSL_CERT_DIR", "/gone:/mine");
    let warning = "certificates not usable variable=SSL_CERT_DIR path=/gone";
    worker.wait_log(DEADLINE, |line| line.contains(warning));
    stage.connects(worker);
}

/// The engine's TLS trusts the same.
#[test]
fn an_engine_behind_tls_is_trusted_by_the_systems_bundle() {
    let (stage, pki) = (Stage::new(), Pki::new());
    let engine =
        Door::open(stage.engine.host(), Some(Lock::new(&pki.server("engine", "DNS:localhost", 2), None)));
    let host = format!("https://localhost:{}", engine.port());
    let start = |jail: &Jail| {
        jail.put("/etc/hosts", HOSTS);
        let args = stage.plain_args("localhost");
        let program =
            jail.program().args(args.iter().map(String::as_str)).env("OZ_API_KEY", stage.plane.key());
        program.env("DOCKER_HOST", &host).start()
    };
    let jail = Jail::new();
    let mut worker = start(&jail);
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(4), "{:#?}", worker.stderr().all());
    let jail = Jail::new();
    jail.copy(&pki.ca(), BUNDLES[0]);
    stage.connects(start(&jail));
}

#[test]
fn names_are_looked_up_in_the_hosts_file_and_at_a_name_server() {
    let (stage, server) = (Stage::new(), NameServer::start());
    let jail = Jail::new();
    jail.put("/etc/hosts", "127.0.0.1 known.example\n");
    jail.put("/etc/resolv.conf", format!("nameserver {ADDRESS}\n"));
    let connects = |host: &str| stage.connects(stage.start(jail.program(), &stage.plain_args(host)));
    connects("known.example");
    assert_eq!(server.answers(), (0, 0));
    connects("plane.example");
    assert!(matches!(server.answers(), (1.., 0)), "{:?}", server.answers());
    connects("large.example");
    assert!(matches!(server.answers(), (_, 1..)), "{:?}", server.answers());
}

/// The tests of whole tasks are run with this very binary when they are told to.
#[test]
fn the_tests_take_the_worker_that_they_are_told_to() {
    let named = crate::support::worker::binary();
    assert_eq!(
        named,
        static_binary().canonicalize().unwrap(),
        "OZ_TEST_WORKER, which `make test-packages` sets"
    );
    assert!(Path::new(&named).is_absolute());
}
