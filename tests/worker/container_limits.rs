//! The operator's limits for task containers, as the engine and the containers see them, and tasks that try to exceed them.

use serde_json::{Value, json};

use crate::support::control_plane::{Run, State};
use crate::support::engine_proxy::EngineProxy;
use crate::support::images::tool;
use crate::support::podman::Podman;
use crate::support::stage::{DEADLINE, Stage, StageBuilder};
use crate::support::worker::Worker;

/// Prints the first of two files of the container's cgroup: version 2 has the first, version 1 the second.
const CGROUP: &str = "g() { cat /sys/fs/cgroup/$1 2>/dev/null || cat /sys/fs/cgroup/$2; }; ";

/// Prints what the container's cgroup limits: memory, swap or memory with swap, processors, processes.
const SHOW: &str = "g memory.max memory/memory.limit_in_bytes; \
                    g memory.swap.max memory/memory.memsw.limit_in_bytes; \
                    g cpu.max cpu/cpu.cfs_quota_us | cut -d' ' -f1; \
                    g pids.max pids/pids.max; ";

/// Limits of every kind.
const FLAGS: [&str; 14] = [
    "--memory=64m",
    "--memory-reservation=32m",
    "--cpus=0.5",
    "--pids-limit=64",
    "--shm-size=8m",
    "--ulimit=nofile=100:200",
    "--add-host=mirror.example:192.0.2.7",
    "--cap-drop=NET_RAW",
    "--cap-add=SYS_NICE",
    "--security-opt=no-new-privileges",
    "--tmpfs=/scratch:size=1m",
    "--label=team=a b",
    "--read-only",
    "--network=none",
];

const MEMORY: u64 = 64 << 20;

/// Waits until the container of a run exists, and returns its inspect data.
fn inspect(stage: &Stage, id: &str) -> Value {
    let inspected = stage.wait_running(id);
    stage.engine.json("GET", &format!("/containers/{}/json", inspected["Id"].as_str().unwrap()), &Value::Null)
}

fn output(run: &Run) -> Vec<String> {
    let output = run.output.as_deref().unwrap_or_else(|| panic!("{run:#?}"));
    output.lines().map(str::to_owned).collect()
}

/// Runs a task under limits of every kind, and checks them from outside and inside.
fn check_limits(stage: &Stage, init: bool) {
    // Podman needs another program for it, which need not be installed, and its defaults need a hard limit that tests may lack.
    let init_flag = if init { "--init" } else { "--ulimit=nproc=1024:1024" };
    let worker = stage.start(stage.worker().args(FLAGS).args([init_flag]));
    let script = format!(
        "{CGROUP}{SHOW} ulimit -Sn; ulimit -Hn; df -k /dev/shm /scratch | tr -s ' ' | cut -d' ' -f2 | tail -n 2; \
         grep -c 192.0.2.7 /etc/hosts; grep NoNewPrivs /proc/self/status | tr -d '\\t'; \
         touch /x 2>/dev/null || echo read-only; touch /scratch/x && echo scratch; trap 'exit 0' TERM; sleep 1000 & wait"
    );
    let id = stage.plane.submit(stage.spec(&script));
    let container = inspect(stage, &id);
    let host = &container["HostConfig"];
    let expected = json!({
        "Memory": MEMORY, "MemorySwap": MEMORY, "MemoryReservation": MEMORY / 2, "NanoCpus": 500_000_000, "PidsLimit": 64,
        "ShmSize": 8 << 20, "ReadonlyRootfs": true, "NetworkMode": "none",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&host[name], value, "{name}");
    }
    // Podman does not show it.
    if init && host["LogConfig"]["Type"] == "json-file" {
        assert_eq!(host["LogConfig"]["Config"], json!({"max-size": "2g", "max-file": "2"}));
    }
    assert_eq!(host["Init"].as_bool().unwrap_or_default(), init);
    assert_eq!(container["Config"]["Labels"]["team"], "a b");
    let container = container["Id"].as_str().unwrap();
    stage.wait("the task has written", || {
        let path = format!("/containers/{container}/logs?stdout=1");
        String::from_utf8_lossy(&stage.engine.request("GET", &path, &[], &[]).body).contains("scratch\n")
    });
    stage.engine.json("POST", &format!("/containers/{container}/kill?signal=TERM"), &Value::Null);
    let run = stage.plane.wait_ended(&id);
    let lines = output(&run);
    // With version 2 swap is limited alone, to nothing.
    let swap = lines[1].parse::<u64>().unwrap();
    assert!(swap == MEMORY || swap == 0, "{lines:?}");
    let expected = [
        "67108864",
        &lines[1],
        "50000",
        "64",
        "100",
        "200",
        "8192",
        "1024",
        "1",
        "NoNewPrivs:1",
        "read-only",
        "scratch",
    ];
    assert_eq!(lines, expected);

    check_shapes(stage, &worker);
    stage.stop(worker);
}

/// Runs tasks with shapes, under the limits of [`check_limits`].
fn check_shapes(stage: &Stage, worker: &Worker) {
    // A shape above the limits is reduced; the message of a failed task keeps its exit code.
    for (code, message) in [(0, ""), (3, "the task exited with code 3; ")] {
        let mut spec = stage.spec(&format!("{CGROUP}{SHOW} exit {code}"));
        spec.instance_shape = Some(json!({"vcpus": 0.75, "memory_gb": 2}));
        let run = stage.run(&spec);
        assert_eq!(output(&run)[..1], ["67108864"]);
        let reduced = "the shape was reduced to the limits of the worker: memory from 2048 MiB to 64 MiB (--memory), processors \
                       from 0.75 to 0.5 (--cpus)";
        assert_eq!(run.message, Some(format!("{message}{reduced}")));
        let is_logged =
            |line: &str| line.contains("shape reduced") && line.contains(&format!("task={}", run.id));
        worker.wait_log(DEADLINE, is_logged);
    }
    let mut spec = stage.spec(&format!("{CGROUP}{SHOW}"));
    spec.instance_shape = Some(json!({"vcpus": 0.25, "memory_gb": 0.03125}));
    let run = stage.run(&spec);
    assert_eq!((&output(&run)[0], &output(&run)[2]), (&"33554432".to_owned(), &"25000".to_owned()));
    assert_eq!(run.message, None);
}

#[test]
fn limits_hold_in_a_container_of_docker() {
    check_limits(&Stage::new(), true);
}

#[test]
fn limits_hold_in_a_container_of_podman() {
    let podman = Podman::start();
    check_limits(&StageBuilder::new("limits").engine(podman.engine()).build(), false);
}

/// A fork bomb, a task that takes all memory, and one that writes without end run at the same time as another task.
#[test]
fn greedy_tasks_leave_the_host_usable() {
    let stage = Stage::new();
    let flags = [
        "--default-memory=64m",
        "--pids-limit=64",
        "--cpus=0.5",
        "--log-opt=max-size=1m",
        "--log-opt=max-file=2",
        "--max-concurrent-tasks=4",
    ];
    let worker = stage.start(stage.worker().args(flags));
    let bomb = stage
        .plane
        .submit(stage.spec("sleep 1000 & main=$!; (while :; do sleep 1000 & done) 2>/dev/null & wait $main"));
    let writer = stage.plane.submit(stage.spec("yes 0123456789012345678901234567890123456789"));
    let hog = stage.plane.submit(stage.spec("x=0123456789; while :; do x=$x$x; done"));
    let full = inspect(&stage, &bomb);
    let log = inspect(&stage, &writer)["LogPath"].as_str().unwrap().to_owned();
    let pids = |id: &str| stage.engine.json("GET", &format!("/containers/{id}/stats?stream=0"), &Value::Null);
    let bomb_id = full["Id"].as_str().unwrap();
    stage.wait("the fork bomb has reached its limit", || {
        pids(bomb_id)["pids_stats"]["current"].as_u64().is_some_and(|count| count >= 60)
    });
    assert_eq!(stage.plane.wait_ended(&hog).failure_reason.as_deref(), Some("container_oom"));
    stage.wait("the log was rotated", || std::fs::exists(format!("{log}.1")).unwrap_or_default());
    let run = stage.run(&stage.spec("echo alive; grep -c . /proc/loadavg"));
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("alive\n1\n")));
    assert!(pids(bomb_id)["pids_stats"]["current"].as_u64().is_some_and(|count| count <= 64));
    for file in [log.clone(), format!("{log}.1")] {
        let length = std::fs::metadata(&file).map(|file| file.len()).unwrap_or_default();
        assert!(length < 3 << 19, "{file} has {length} bytes");
    }
    for id in [&bomb, &writer] {
        stage.plane.cancel(id);
        assert_eq!(stage.plane.wait_ended(id).state, State::Cancelled);
    }
    stage.wait_clean();
    stage.stop(worker);
}

/// Installs a package from a repository that it makes itself, whose script runs a program as another user.
const INSTALL: &str = r#"set -e; exec 2>&1
mkdir -p /repo /p/DEBIAN /p/opt; echo x >/p/opt/file
printf 'Package: oz-hello\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.com>\nDescription: a\n' >/p/DEBIAN/control
printf '#!/bin/sh\nset -e\nchown daemon:daemon /opt/file\nsetpriv --reuid=daemon --clear-groups id -un >/opt/user\n' >/p/DEBIAN/postinst
chmod 755 /p/DEBIAN/postinst
dpkg-deb --build /p /repo/a.deb >/dev/null; cd /repo
{ dpkg-deb -f a.deb; echo Filename: ./a.deb; echo Size: $(stat -c %s a.deb)
  echo SHA256: $(sha256sum a.deb | cut -d' ' -f1); } >Packages
rm -rf /etc/apt/sources.list.d; echo 'deb [trusted=yes] file:/repo ./' >/etc/apt/sources.list
apt-get -qq update; apt-get -qq install oz-hello >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }
cat /opt/user; stat -c %U /opt/file; grep -E 'CapBnd|NoNewPrivs' /proc/self/status | tr -d '\t'
mount -t tmpfs none /mnt 2>/dev/null || echo 'no mount'; tr '\0' ' ' </proc/1/cmdline | cut -d' ' -f1
"#;

#[test]
fn a_hardened_task_installs_packages_with_apt_get() {
    let mut stage = Stage::new();
    let root = std::fs::read(tool("debian-root.tar")).unwrap();
    let debian = stage.images.import("debian", &root, &["ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
    let worker = stage.start(stage.worker().args(["--hardened"]));
    let mut spec = stage.spec(&format!("{INSTALL}{CGROUP} g pids.max pids/pids.max"));
    spec.docker_image = Some(debian);
    let run = stage.run(&spec);
    let expected = [
        "daemon",
        "daemon",
        "NoNewPrivs:1",
        "CapBnd:00000000000001fb",
        "no mount",
        "/sbin/docker-init",
        "4096",
    ];
    let mut lines = output(&run);
    lines.sort();
    let mut expected = expected.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(lines, expected);
    stage.stop(worker);
}

/// An engine whose answer to `/info` says what it cannot do.
fn engine_with(stage: &Stage, change: impl Fn(&mut Value)) -> EngineProxy {
    let proxy = EngineProxy::start(stage.engine.host());
    let mut info = stage.engine.json("GET", "/info", &Value::Null);
    change(&mut info);
    let body = info.to_string();
    proxy.answer("/info", format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes(), 1);
    proxy
}

#[test]
fn an_engine_whose_logs_cannot_be_read_is_refused_at_the_start() {
    let stage = Stage::new();
    let proxy = engine_with(&stage, |info| info["LoggingDriver"] = json!("none"));
    let mut worker = stage.worker().env("DOCKER_HOST", &proxy.host()).start();
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(4));
    let log = worker.stderr().all().join("\n");
    assert!(
        log.contains("log driver none cannot be read") && log.contains("use json-file or local"),
        "{log}"
    );
}

#[test]
fn limits_that_the_engine_does_not_enforce_are_logged_at_the_start() {
    let stage = Stage::new();
    let proxy = engine_with(&stage, |info| {
        info["SwapLimit"] = json!(false);
        info["PidsLimit"] = json!(false);
        info["SecurityOptions"] = json!(["name=rootless"]);
    });
    let worker = stage.start(stage.worker().env("DOCKER_HOST", &proxy.host()));
    let lines = worker.stderr().all();
    let found: Vec<_> = lines.iter().filter(|line| line.contains("limit not enforced")).collect();
    assert!(
        found.len() == 2 && found[0].contains("limit=swap") && found[1].contains("limit=pids"),
        "{lines:#?}"
    );
    assert!(found[1].contains("rootless"), "{found:?}");
    stage.stop(worker);
}
