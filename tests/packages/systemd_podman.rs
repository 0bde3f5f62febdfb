//! The installed deb under a real systemd with the socket of a real Podman, which belongs to root.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::artifacts::deb;
use crate::root::{Root, System};
use crate::source;
use crate::support::control_plane::State;
use crate::support::engine_proxy::EngineProxy;
use crate::support::podman::Podman;
use crate::support::stage::StageBuilder;
use crate::systemd::{SETTINGS, UNIT, worker_settings};

/// Podman's service, which passes each connection on to a Podman outside.
const SERVICE: &str = "[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd /shared/s\n";

/// Returns the drop-in of `podman.socket` and the address for `DOCKER_HOST`, from the manual.
fn recipe() -> (String, String) {
    let manual = std::fs::read_to_string(source("src/cli/docs/manual/engine.md")).unwrap();
    let (_, part) = manual.split_once("\n## Podman\n").unwrap();
    let drop_in = part.split("```\n").nth(1).unwrap();
    let address = part.split('`').find(|span| span.starts_with("DOCKER_HOST=")).unwrap();
    (drop_in.to_owned(), address.to_owned())
}

/// Boots a host with Podman's own units and folders, and the package.
fn boot(shared: &Path) -> System {
    let root = Root::debian();
    for file in ["/usr/lib/systemd/system/podman.socket", "/usr/lib/tmpfiles.d/podman.conf"] {
        root.write(file, &std::fs::read_to_string(file).expect("Podman is not installed: run `make setup`"));
    }
    root.write("/usr/lib/systemd/system/podman.service", SERVICE);
    let system = root.boot(shared);
    // As at a boot with Podman installed.
    system.sh("mkdir -p -m 700 /run/podman; systemd-tmpfiles --create /usr/lib/tmpfiles.d/podman.conf");
    assert_eq!(system.sh("stat -c %a:%U /run/podman").trim(), "700:root");
    let package = system.root().copy_in(&deb(1));
    system.sh(&format!("dpkg -i {package} 2>&1 </dev/null"));
    system
}

#[test]
fn the_service_uses_podman_by_the_recipe_of_the_manual() {
    let podman = Podman::start();
    let stage = StageBuilder::new("test").engine(podman.engine()).build();
    let proxy = EngineProxy::start(stage.engine.host());
    let host = proxy.host();
    let shared = Path::new(host.strip_prefix("unix://").unwrap()).parent().unwrap();
    std::fs::set_permissions(shared, std::fs::Permissions::from_mode(0o711)).unwrap();
    let system = boot(shared);
    let (drop_in, address) = recipe();
    system.root().write(SETTINGS, &format!("{}{address}\n", worker_settings(&stage)));

    // Without the drop-in only root may use the socket, and the worker says what to do.
    system.sh("systemctl start podman.socket");
    let started = system.command("systemctl start oz-agent-worker 2>&1").status().unwrap();
    assert!(!started.success(), "{}", system.journal(UNIT));
    system.await_journal(UNIT, "access to Podman's socket and its folder");
    system.sh("systemctl stop oz-agent-worker podman.socket");

    system.root().write("/etc/systemd/system/podman.socket.d/override.conf", &drop_in);
    system.sh("systemctl daemon-reload; systemctl start podman.socket");
    assert_eq!(
        system.sh("stat -c %a:%G /run/podman /run/podman/podman.sock").trim(),
        "710:docker\n660:docker"
    );
    let started = system.command("systemctl start oz-agent-worker 2>&1").status().unwrap();
    assert!(started.success(), "{}", system.journal(UNIT));
    let run = stage.run(&stage.spec("echo by Podman"));
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("by Podman\n")), "{run:?}");
    stage.wait_clean();
    system.sh("systemctl stop oz-agent-worker");
}
