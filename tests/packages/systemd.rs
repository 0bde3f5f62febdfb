//! The installed deb under a real systemd with a real engine: the service from its start to its removal.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use crate::DEADLINE;
use crate::artifacts::deb;
use crate::root::{Root, System, run};
use crate::stage::Stage;
use crate::support::control_plane::State;
use crate::support::engine_proxy::EngineProxy;
use crate::support::images::RootFs as Archive;
use crate::support::process::Process;
use crate::support::stage;
use crate::support::worker::ONE_SIGNAL;

pub const UNIT: &str = "oz-agent-worker.service";
pub const SETTINGS: &str = "/etc/oz-agent-worker/worker.env";

/// A booted Debian with the package and the engine's socket at /run/docker.sock.
pub struct Host {
    pub stage: Stage,
    pub system: System,
    _engine: EngineProxy,
}

impl Host {
    /// Boots a host whose worker has no settings.
    pub fn new() -> Self {
        Self::prepared(|_, _| ())
    }

    /// Boots a host and installs the package after `prepare`.
    fn prepared(prepare: impl FnOnce(&Root, &Stage)) -> Self {
        let stage = Stage::new();
        let root = Root::debian();
        root.sh("groupadd --system docker");
        prepare(&root, &stage);
        let engine = EngineProxy::start(stage.engine.host());
        let socket = Path::new(engine.host().strip_prefix("unix://").unwrap()).to_owned();
        let shared = socket.parent().unwrap();
        // An engine's socket belongs to the group docker: here the id of that group inside the booted Debian.
        let group = root.sh("getent group docker | cut -d: -f3").trim().parse().unwrap();
        chown(&socket, Some(0), Some(group)).unwrap();
        run(Command::new("chmod").arg("660").arg(&socket));
        run(Command::new("chmod").arg("711").arg(shared));
        let system = root.boot(shared);
        system.sh(&format!("ln -s /shared/{} /run/docker.sock", socket.file_name().unwrap().display()));
        let host = Self { stage, system, _engine: engine };
        host.install(1);
        host
    }

    fn install(&self, release: u8) -> String {
        let package = self.system.root().copy_in(&deb(release));
        self.system.sh(&format!("dpkg -i {package} 2>&1 </dev/null"))
    }

    pub fn set(&self, settings: &str) {
        self.system.root().write(SETTINGS, settings);
    }

    /// Starts a unit, which must succeed.
    pub fn start(&self, unit: &str) {
        let started = self.system.command(&format!("systemctl start {unit}")).status().unwrap();
        assert!(started.success(), "{}", self.system.journal(unit));
    }

    /// Starts a unit, which must fail.
    pub fn fails_to_start(&self, unit: &str) {
        let started = self.system.command(&format!("systemctl start {unit} 2>&1")).status().unwrap();
        assert!(!started.success(), "{unit} started");
    }

    /// Waits until the container of a task runs and returns its id.
    pub fn running(&self, task: &str) -> String {
        self.stage.plane.wait_state(task, State::InProgress);
        let label = format!("oz-task-id={task}");
        let end = std::time::Instant::now() + DEADLINE;
        loop {
            let found = self.stage.engine.containers("label", &label);
            if let Some(container) = found.iter().find(|container| container["State"] == "running") {
                return container["Id"].as_str().unwrap().to_owned();
            }
            assert!(std::time::Instant::now() < end, "the container of {task} does not run: {found:#?}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Ends a task that runs [`WAITS`].
    pub fn release(&self, container: &str) {
        let go = Archive::default().file("go", 0o644, "").finish();
        let path = format!("/containers/{container}/archive?path=/tmp");
        assert_eq!(self.stage.engine.request("PUT", &path, &[], &go).status, 200);
    }

    /// Checks that the running service leaves no core dump, and that tasks are killed for memory before it.
    fn check_limits(&self) {
        let system = &self.system;
        let properties = system.property(UNIT, "LimitCORE,LimitCORESoft,OOMScoreAdjust");
        let mut properties: Vec<_> = properties.lines().collect();
        properties.sort_unstable();
        assert_eq!(properties, ["-100", "0", "0"]);
        let pid = system.property(UNIT, "MainPID");
        assert_eq!(
            system.sh(&format!("stat -c %U /proc/{pid}/environ")).trim(),
            "root",
            "the process may be dumped"
        );
        assert!(system.property(UNIT, "After").split_whitespace().any(|unit| unit == "time-sync.target"));
    }
}

/// Returns settings with which the worker can connect and run tasks.
pub fn worker_settings(stage: &stage::Stage) -> String {
    let address = stage.plane.address();
    let key = stage.plane.key();
    let id = &stage.worker_id;
    let socket = stage.plane.ws_url();
    format!(
        "OZ_API_KEY={key}\nOZ_WORKER_ID={id}\nOZ_WS_URL={socket}\nOZ_SERVER_ROOT_URL=http://{address}\nOZ_PULL=missing\nOZ_MAX_CONCURRENT_TASKS=4\n"
    )
}

impl Drop for Host {
    /// Stops the workers before `Stage` removes containers that they would remove.
    fn drop(&mut self) {
        let _ = self.system.command("systemctl stop 'oz-agent-worker*.service'").output();
    }
}

/// The script of a task that ends once the test calls [`Host::release`].
pub const WAITS: &str = "until [ -e /tmp/go ]; do sleep 0.1; done; echo done";

#[test]
fn a_service_runs_tasks_reports_its_status_and_drains_on_an_upgrade_and_a_removal() {
    let host = Host::new();
    let stage = &host.stage;
    let system = &host.system;
    assert_eq!(system.property(UNIT, "ActiveState,UnitFileState").trim(), "inactive\ndisabled");
    host.set(&(worker_settings(stage) + "OZ_DRAIN_TIMEOUT=2h\n"));
    // The drain takes longer than this, so the worker must extend the timeout.
    system
        .root()
        .write(&format!("/etc/systemd/system/{UNIT}.d/timeout.conf"), "[Service]\nTimeoutStopSec=2s\n");
    system.sh("systemctl daemon-reload");
    system.sh("systemctl enable --now oz-agent-worker 2>&1");
    // The unit is ready once the worker is connected.
    assert_eq!(stage.plane.connections(), 1);
    assert_eq!(system.property(UNIT, "StatusText"), "connected, tasks: 0 of 4");
    let user = system.sh(&format!("stat -c %U /proc/{}", system.property(UNIT, "MainPID")));
    assert_eq!(user.trim(), "oz-agent-worker");
    host.check_limits();
    stage.run_a_task();

    let task = stage.plane.submit(stage.spec(WAITS));
    let container = host.running(&task);
    let old = system.property(UNIT, "MainPID");
    let output = host.install(2);
    let printed =
        format!("restarting {UNIT} (connected, tasks: 1 of 4) in the background: the old process takes no");
    let hurry = format!("To end the running tasks now, run: systemctl kill {UNIT}");
    assert!(output.contains(&printed) && output.contains(&hurry), "{output}");
    // The upgrade has ended and the old process drains, which it logs after ten seconds.
    system.await_journal(UNIT, "draining tasks=1");
    assert_eq!(system.property(UNIT, "MainPID"), old);
    assert_eq!(system.property(UNIT, "TimeoutStopUSec"), "2s");
    host.release(&container);
    let run = stage.plane.wait_ended(&task);
    assert_eq!(
        (run.state, run.output.as_deref(), run.claims),
        (State::Succeeded, Some("done\n"), 1),
        "{run:#?}"
    );
    stage.plane.wait_connected(2);
    stage.run_a_task();
    assert_ne!(system.property(UNIT, "MainPID"), old);
    assert_eq!(system.property(UNIT, "NRestarts"), "0", "systemd restarted a failed worker");

    // The removal waits, until somebody does what it prints.
    let task = stage.plane.submit(stage.spec("trap 'exit 7' TERM; sleep 1000 & wait"));
    host.running(&task);
    let mut removal = Process::spawn(&mut system.command("dpkg -r oz-agent-worker 2>&1"), None);
    let printed = format!("stopping {UNIT} (connected, tasks: 1 of 4). It takes no new tasks and waits");
    let line = removal.stdout().find(DEADLINE, |line| line.contains(&printed)).unwrap();
    let (_, hurry) = line.split_once("To end them now, run: ").unwrap();
    system.await_journal(UNIT, "stopping tasks=1");
    assert!(removal.is_running());
    std::thread::sleep(ONE_SIGNAL);
    system.sh(hurry);
    assert!(removal.wait_exit(DEADLINE).success(), "{:?}", removal.stdout().all());
    let run = stage.plane.run(&task);
    assert_eq!((run.failure_reason.as_deref(), run.exit_code), (Some("graceful_shutdown"), Some(7)));
    assert_eq!(system.sh("systemctl list-units --all --no-legend 'oz-agent*'"), "");
    assert_eq!(stage.engine.containers_of(&stage.worker_id), Vec::<serde_json::Value>::new());
    stage.plane.assert_no_violations();
}

#[test]
fn permanent_errors_are_in_the_journal_and_cause_no_restart() {
    let host = Host::new();
    let cases = [
        (String::new(), "missing API key: set OZ_API_KEY or OZ_API_KEY_FILE", "2"),
        ("OZ_API_KEY=wrong\nOZ_WORKER_ID=w\n".to_owned(), "check OZ_API_KEY or OZ_API_KEY_FILE", "3"),
        ("OZ_API_KEY=k\n".to_owned(), "missing worker ID: set --worker-id or OZ_WORKER_ID", "2"),
    ];
    for (settings, reason, code) in cases {
        let urls: Vec<_> =
            worker_settings(&host.stage).lines().skip(2).map(|line| format!("{line}\n")).collect();
        host.set(&(settings + &urls.concat()));
        host.fails_to_start(UNIT);
        let state = host.system.property(UNIT, "ActiveState,ExecMainStatus,NRestarts");
        let mut state: Vec<_> = state.lines().collect();
        state.sort_unstable();
        assert_eq!(state, ["0", code, "failed"]);
        assert!(host.system.journal(UNIT).contains(reason), "{}", host.system.journal(UNIT));
        assert!(!host.system.journal(UNIT).contains("=wrong"));
        // systemd shows the code by a name of its own, so the last status gives the reason.
        let status = host.system.property(UNIT, "StatusText");
        assert_eq!(status.starts_with("refused: ") && status.contains(reason), code == "3", "{status}");
        host.system.sh(&format!("systemctl reset-failed {UNIT}; journalctl --rotate --vacuum-time=1s -q"));
    }
}

/// A start limit of systemd would count them.
#[test]
fn ten_good_restarts_in_a_row_all_succeed() {
    let host = Host::new();
    host.set(&worker_settings(&host.stage));
    host.start(UNIT);
    for restart in 1..=10 {
        let output = host.system.command(&format!("systemctl restart {UNIT} 2>&1")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "restart {restart}: {text}\n{}", host.system.journal(UNIT));
    }
    assert_eq!(host.system.property(UNIT, "ActiveState"), "active");
    host.stage.run_a_task();
}

/// As at boot: the unit is started, and ready, before there is an engine.
#[test]
fn a_service_waits_for_an_engine_that_comes_late() {
    let host = Host::new();
    let system = &host.system;
    host.set(&worker_settings(&host.stage));
    system.sh("mv /run/docker.sock /run/later");
    host.start(UNIT);
    system.await_journal(UNIT, "waiting for the engine waited_s=0");
    let status = system.property(UNIT, "StatusText");
    let expected =
        "waiting for the engine: the docker engine at unix:///var/run/docker.sock is not reachable";
    assert!(status.starts_with(expected) && status.contains("; install and start an engine"), "{status}");
    assert_eq!(host.stage.plane.connections(), 0);
    system.sh("mv /run/later /run/docker.sock");
    host.stage.plane.wait_connected(1);
    host.stage.run_a_task();
    assert_eq!(system.property(UNIT, "NRestarts"), "0");
}

/// It fails more often than systemd's default limit allows, and starts once somebody has given it access.
#[test]
fn a_service_without_the_right_to_use_the_engine_is_restarted_until_it_has_it() {
    let host = Host::new();
    let system = &host.system;
    host.set(&worker_settings(&host.stage));
    // Instead of ten seconds between two starts.
    let faster = "[Service]\nRestartSec=100ms\n";
    system.root().write(&format!("/etc/systemd/system/{UNIT}.d/faster.conf"), faster);
    system.sh("systemctl daemon-reload; chmod 600 $(readlink -f /run/docker.sock)");
    host.fails_to_start(UNIT);
    system.await_journal(UNIT, "restart counter is at 8.");
    let status = system.property(UNIT, "StatusText");
    assert!(status.is_empty() || status.starts_with("engine not usable: "), "{status}");
    assert!(system.journal(UNIT).contains("add the worker's user to the group `docker`"));
    system.sh("chmod 660 $(readlink -f /run/docker.sock)");
    host.stage.plane.wait_connected(1);
    host.stage.run_a_task();
}

/// The worker id of an instance is its name, even if the shared settings set another one.
#[test]
fn instances_have_shared_settings_and_their_own() {
    let host = Host::new();
    host.set(&worker_settings(&host.stage));
    let (first, second) = (format!("{}-a", host.stage.worker_id), format!("{}-b", host.stage.worker_id));
    host.system.root().write(
        &format!("/etc/oz-agent-worker/{second}.env"),
        "OZ_WORKER_ARGS=--no-cleanup --max-concurrent-tasks 3\n",
    );
    host.start(&format!("oz-agent-worker@{first}"));
    host.start(&format!("oz-agent-worker@{second}"));
    let mut workers = host.stage.plane.view(|world| {
        world.connections.iter().map(|connection| connection.worker.clone()).collect::<Vec<_>>()
    });
    workers.sort();
    assert_eq!(workers, [first.clone(), second.clone()]);
    let journal = |id: &str| host.system.journal(&format!("oz-agent-worker@{id}"));
    assert!(
        journal(&second).contains("slots=3") && journal(&first).contains("slots=4"),
        "{}",
        journal(&second)
    );
    host.system.sh(&format!("systemctl stop oz-agent-worker@{first} oz-agent-worker@{second}"));
}

/// Uses the lines of the comment in the unit.
#[test]
fn the_api_key_can_be_a_systemd_credential() {
    let host = Host::new();
    let settings = worker_settings(&host.stage).replace("OZ_API_KEY=", "# ");
    host.set(&settings);
    let root = host.system.root();
    root.write("/etc/oz-agent-worker/api-key", &format!("{}\n", host.stage.plane.key()));
    root.sh("chmod 600 /etc/oz-agent-worker/api-key");
    let unit = root.read("/usr/lib/systemd/system/oz-agent-worker.service");
    let (_, rest) = unit.split_once("add\n").unwrap();
    let lines = rest.lines().map_while(|line| line.strip_prefix("#   ")).map(|line| format!("{line}\n"));
    root.write(&format!("/etc/systemd/system/{UNIT}.d/key.conf"), &lines.collect::<String>());
    host.system.sh("systemctl daemon-reload");
    host.start(UNIT);
    host.stage.run_a_task();
}

#[test]
fn an_installation_onto_existing_settings_starts_the_worker() {
    let host = Host::prepared(|root, stage| root.write(SETTINGS, &worker_settings(stage)));
    assert_eq!(host.stage.plane.connections(), 1);
    host.stage.run_a_task();
    assert_eq!(host.system.property(UNIT, "UnitFileState"), "enabled");
}

#[test]
fn the_units_expose_little_and_are_well_formed() {
    let root = Root::debian();
    let package = root.copy_in(&deb(1));
    root.sh(&format!("dpkg -i {package}"));
    for unit in ["oz-agent-worker.service", "oz-agent-worker@.service"] {
        let file = format!("/usr/lib/systemd/system/{unit}");
        let output = root.sh(&format!("systemd-analyze security --offline=yes --no-pager {file}"));
        let level = output.lines().find_map(|line| line.split("exposure level for ").nth(1)).unwrap();
        let level: f64 = level.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(level <= 2.0, "{output}");
        let output = root.sh(&format!("systemd-analyze verify --man=no --recursive-errors=no {file} 2>&1"));
        assert_eq!(output, "", "{unit}");
    }
}
