//! The static binary in an otherwise empty root folder: no libraries, no shell, only the files that a test adds.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::dns::{ADDRESS, NameServer};
use crate::elf::Elf;
use crate::jail::Jail;
use crate::stage::{Stage, is_connected, run_container};
use crate::support::images::RootFs;
use crate::support::pki::Pki;
use crate::support::process::Signal;
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::tls_proxy::{ServerTls, TlsProxy};
use crate::{DEADLINE, arch, emulator, static_binary};

/// The largest size for x86-64 and for arm64.
const LARGEST: [u64; 2] = [7 * 1024 * 1024, 8 * 1024 * 1024];
const HOSTS: &str = "127.0.0.1 localhost other.example\n";
/// OpenSSL's text for an unknown CA.
const UNKNOWN: &str = "unable to get local issuer certificate";
/// The CA bundles of Debian, Fedora, RHEL, SUSE and Alpine.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A control plane behind TLS, with a certificate for `localhost` from a test CA.
struct Secured {
    stage: Stage,
    pki: Pki,
    proxy: TlsProxy,
}

impl Secured {
    fn new() -> Self {
        let stage = Stage::new();
        let pki = Pki::new();
        let proxy = stage.secured(&pki.server("server", "DNS:localhost", 2));
        Self { stage, pki, proxy }
    }

    /// Returns a jail with a hosts file.
    fn jail(&self) -> Jail {
        let jail = Jail::new();
        jail.put("/etc/hosts", HOSTS);
        jail
    }

    fn args(&self) -> Vec<String> {
        self.stage.secured_args("localhost", &self.proxy)
    }

    /// Returns the file name under which OpenSSL looks for the CA in a folder.
    fn hashed(&self) -> String {
        let mut command = Command::new("openssl");
        let output = command.args(["x509", "-hash", "-noout", "-in"]).arg(self.pki.ca()).output().unwrap();
        let hash = String::from_utf8(output.stdout).unwrap();
        assert_eq!(hash.trim().len(), 8, "{hash}");
        format!("{}.0", hash.trim())
    }
}

#[test]
fn the_binary_is_static_and_within_its_size_limit() {
    let path = static_binary();
    let elf = Elf::read(&path);
    let expected = Elf {
        arch: elf.arch,
        position_independent: true,
        has_interpreter: false,
        needed: 0,
        executable_stack: false,
    };
    assert_eq!(elf, expected);
    assert_eq!(elf.arch, arch());
    let size = std::fs::metadata(&path).unwrap().len();
    let limit = LARGEST[usize::from(arch() == "aarch64")];
    assert!(size <= limit, "{size} bytes; the limit is {limit}");
    if emulator().is_some() {
        return;
    }
    let output = Command::new("ldd").arg(&path).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(text.contains("statically linked"), "{text}");
}

/// The test above would also pass if the reader found no headers.
#[test]
fn the_elf_reader_recognizes_a_dynamic_program() {
    let elf = Elf::read(&std::env::current_exe().unwrap());
    assert!(elf.has_interpreter && elf.needed > 0, "{elf:?}");
}

/// Paths would leak the build machine's layout and make builds differ.
#[test]
fn the_binary_contains_no_path_of_the_build() {
    let bytes = std::fs::read(static_binary()).unwrap();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("oz_agent_worker"), "the search finds nothing at all");
    let home = std::env::var("HOME").unwrap();
    for path in [env!("CARGO_MANIFEST_DIR"), &format!("{home}/.cargo"), "static-build"] {
        assert!(!has(path), "the binary contains {path}");
    }
}

#[test]
fn the_binary_runs_in_an_empty_root_folder() {
    let jail = Jail::new();
    let mut worker = jail.program().args(["--version"]).start();
    let code = worker.wait_exit(DEADLINE).code();
    let expected = [format!("oz-agent-worker {}", env!("CARGO_PKG_VERSION"))];
    assert_eq!((code, worker.stdout().all()), (Some(0), expected.to_vec()), "{:#?}", worker.stderr().all());
}

#[test]
fn the_binary_runs_in_an_empty_container() {
    let mut stage = Stage::new();
    let mut root = RootFs::default().file("oz-agent-worker", 0o755, std::fs::read(static_binary()).unwrap());
    let mut command = vec!["/oz-agent-worker", "--version"];
    if let Some(emulator) = emulator() {
        root = root.file("emulator", 0o755, std::fs::read(emulator).unwrap());
        command.insert(0, "/emulator");
    }
    let image = stage.images.make("empty", root, &[]);
    let spec = json!({"Image": image, "Cmd": command, "Tty": true});
    let expected = format!("oz-agent-worker {}\r\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run_container(&stage.engine, &spec), (0, expected));
}

/// Uses both WebSocket and REST: the cancel is not sent, so only polling the run finds it.
#[test]
fn a_whole_task_runs_over_tls_with_a_ca_in_ssl_cert_file() {
    let secured = Secured::new();
    let stage = &secured.stage;
    let jail = secured.jail();
    jail.copy(&secured.pki.ca(), "/ca.pem");
    let program = jail.program().env("SSL_CERT_FILE", "/ca.pem");
    let args = [secured.args(), ["--reconcile-interval", "1s"].map(str::to_owned).to_vec()].concat();
    let mut worker = stage.start(program, &args);
    worker.wait_log(DEADLINE, is_connected);
    stage.run_a_task();
    let id = stage.plane.submit(stage.spec("trap 'exit 7' TERM; sleep 1000 & wait"));
    stage.plane.wait_message(&id, "task_claimed");
    stage.plane.cancel_silently(&id);
    let report = stage.plane.wait_message(&id, "task_failed").data;
    assert_eq!(report["failure_reason"], "task_cancelled", "{report:#}");
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0), "{:#?}", worker.stderr().all());
    assert_eq!(stage.engine.containers_of(&stage.worker_id), Vec::<Value>::new());
    stage.plane.assert_no_violations();
    assert!(!worker.stderr().all().join("\n").contains("certificates not usable"), "a needless warning");
}

#[test]
fn a_large_output_is_reported_in_full() {
    let stage = Stage::new();
    let jail = Jail::new();
    let args =
        [stage.plain_args("127.0.0.1"), ["--max-output", "16MiB"].map(str::to_owned).to_vec()].concat();
    let mut worker = stage.start(jail.program(), &args);
    worker.wait_log(DEADLINE, is_connected);
    let run = stage.run(&stage.spec("head -c 8388608 /dev/zero | tr '\\0' x"));
    let output = run.output.unwrap();
    assert!(output.len() == 8 << 20 && output.bytes().all(|byte| byte == b'x'), "{} bytes", output.len());
    // A stop leaves 2 s for the look-up of a run, which has the output twice.
    stage.wait_clean();
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0), "{:#?}", worker.stderr().all());
}

#[test]
fn the_task_of_a_killed_worker_is_adopted_and_reported() {
    let stage = Stage::new();
    let jail = Jail::new();
    let sync = SyncDir::new();
    // The control plane takes a run of a lost connection for failed.
    let finish = ["--lost-runs", "finish"].map(str::to_owned);
    let volume = ["--volumes".to_owned(), sync.mount()];
    let args = [stage.plain_args("127.0.0.1"), finish.to_vec(), volume.to_vec()].concat();
    let mut worker = stage.start(jail.program(), &args);
    let id = stage.plane.submit(stage.spec(&format!("echo >>/sync/log; {WAIT}; echo done; exit 4")));
    sync.wait_lines(&stage, 1);
    worker.signal(Signal::KILL);
    worker.wait_exit(DEADLINE);
    let mut worker = stage.start(jail.program(), &args);
    worker.wait_log(DEADLINE, |line| line.contains("container adopted") && line.contains("state=running"));
    sync.release(1);
    let report = stage.plane.wait_message(&id, "task_completed").data;
    assert_eq!((&report["exit_code"], &report["output"]), (&json!(4), &json!("done\n")));
    stage.wait_clean();
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0), "{:#?}", worker.stderr().all());
    assert_eq!(sync.lines().len(), 1, "it ran once");
}

#[test]
fn a_certificate_from_an_unknown_ca_is_refused() {
    let secured = Secured::new();
    let jail = secured.jail();
    let worker = secured.stage.start(jail.program(), &secured.args());
    secured.stage.assert_refuses(worker, UNKNOWN);
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    let secured = Secured::new();
    let jail = secured.jail();
    jail.copy(&secured.pki.ca(), "/ca.pem");
    let args = secured.stage.secured_args("other.example", &secured.proxy);
    let worker = secured.stage.start(jail.program().env("SSL_CERT_FILE", "/ca.pem"), &args);
    secured.stage.assert_refuses(worker, "hostname mismatch");
}

#[test]
fn the_system_s_cas_are_found_in_every_usual_place() {
    let secured = Secured::new();
    let folders = ["/etc/ssl/certs", "/etc/pki/tls/certs"];
    let hashed = folders.map(|folder| format!("{folder}/{}", secured.hashed()));
    for place in BUNDLES.into_iter().chain(hashed.iter().map(String::as_str)) {
        eprintln!("{place}");
        let jail = secured.jail();
        jail.copy(&secured.pki.ca(), place);
        secured.stage.assert_connects(secured.stage.start(jail.program(), &secured.args()));
    }
}

#[test]
fn ssl_cert_file_replaces_the_bundle_and_ssl_cert_dir_adds_folders() {
    let secured = Secured::new();
    let stage = &secured.stage;
    let other = Pki::named("another authority");
    let start =
        |jail: &Jail, name: &str, path: &str| stage.start(jail.program().env(name, path), &secured.args());
    let jail = secured.jail();
    jail.copy(&other.ca(), "/other.pem");
    jail.copy(&secured.pki.ca(), BUNDLES[0]);
    stage.assert_refuses(start(&jail, "SSL_CERT_FILE", "/other.pem"), UNKNOWN);

    // A missing file does not replace the bundle.
    let worker = start(&jail, "SSL_CERT_FILE", "/gone.pem");
    let warning = "certificates not usable variable=SSL_CERT_FILE path=/gone.pem";
    worker.wait_log(DEADLINE, |line| line.contains(warning));
    stage.assert_connects(worker);

    let jail = secured.jail();
    jail.copy(&other.ca(), "/other.pem");
    jail.copy(&secured.pki.ca(), &format!("/etc/ssl/certs/{}", secured.hashed()));
    stage.assert_connects(start(&jail, "SSL_CERT_FILE", "/other.pem"));

    // SSL_CERT_DIR adds to the bundle, also as a list of folders.
    let jail = secured.jail();
    jail.copy(&other.ca(), BUNDLES[0]);
    jail.copy(&secured.pki.ca(), &format!("/mine/{}", secured.hashed()));
    stage.assert_connects(start(&jail, "SSL_CERT_DIR", "/mine"));
    let worker = start(&jail, "SSL_CERT_DIR", "/gone:/mine");
    let warning = "certificates not usable variable=SSL_CERT_DIR path=/gone";
    worker.wait_log(DEADLINE, |line| line.contains(warning));
    stage.assert_connects(worker);
}

#[test]
fn an_engine_behind_tls_is_checked_against_the_system_s_bundle() {
    let stage = Stage::new();
    let pki = Pki::new();
    let engine =
        TlsProxy::start(stage.engine.host(), ServerTls::new(&pki.server("engine", "DNS:localhost", 2), None));
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
    stage.assert_connects(start(&jail));
}

#[test]
fn names_resolve_by_the_hosts_file_and_a_dns_server() {
    let stage = Stage::new();
    let server = NameServer::start();
    let jail = Jail::new();
    jail.put("/etc/hosts", "127.0.0.1 known.example\n");
    jail.put("/etc/resolv.conf", format!("nameserver {ADDRESS}\n"));
    let connects = |host: &str| stage.assert_connects(stage.start(jail.program(), &stage.plain_args(host)));
    connects("known.example");
    assert_eq!(server.answers(), (0, 0));
    connects("plane.example");
    assert!(matches!(server.answers(), (1.., 0)), "{:?}", server.answers());
    connects("large.example");
    assert!(matches!(server.answers(), (_, 1..)), "{:?}", server.answers());
}

/// `make test-packages` also runs the tests of whole tasks, and they must use the static binary, or a script that runs it in an
/// emulator.
#[test]
fn the_other_tests_use_the_static_binary() {
    let mut expected = static_binary().canonicalize().unwrap();
    if emulator().is_some() {
        expected.set_file_name("emulated");
    }
    let named = crate::support::worker::binary();
    assert_eq!(
        named, expected,
        "OZ_TEST_WORKER is not the static binary: run these tests with `make test-packages`"
    );
    assert!(Path::new(&named).is_absolute());
}
