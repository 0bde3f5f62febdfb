//! Workers on a real Swarm of three nodes, deployed with the stack file that operators use: a rolling update, a node that dies and
//! returns, a manager that dies, a drained node, a rotated key, and what an operator sees of mistakes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::node::{Node, SOCKET, wait_or};
use crate::support::control_plane::{ControlPlane, Model, Options, Pacing, Run, RunSpec, State};
use crate::support::images::{AGENT, Layout, RootFs};
use crate::support::sync_dir::{SyncDir, WAIT};

/// As the real control plane does it.
const POLL: Duration = Duration::from_millis(1500);
const RUNS: usize = 60;
const STACK: &str = "packaging/swarm/oz-agent-worker.yml";
const KEY: &str = "oz_api_key";

struct Cluster {
    plane: ControlPlane,
    nodes: Vec<Node>,
    sync: SyncDir,
    folder: PathBuf,
    began: Instant,
}

/// Returns the root file system of the worker's image, with the binary changed by `change`.
fn image(change: impl Fn(&mut Vec<u8>)) -> RootFs {
    let path = std::env::var_os("OZ_TEST_WORKER").expect("OZ_TEST_WORKER names a static binary");
    let mut binary = std::fs::read(path).unwrap();
    change(&mut binary);
    ["usr", "usr/local", "usr/local/bin"]
        .into_iter()
        .fold(RootFs::default(), |root, folder| root.folder(folder, 0o755))
        .file("usr/local/bin/oz-agent-worker", 0o755, binary)
}

/// Loads what the tests need into a node.
fn load(node: &Node) {
    let entrypoint = "&changes=ENTRYPOINT%20%5B%22%2Fusr%2Flocal%2Fbin%2Foz-agent-worker%22%5D";
    for tag in ["a", "b"] {
        node.import("oz-agent-worker", image(|_| ()), &format!("&tag={tag}{entrypoint}"));
    }
    // The machine in an ELF header: one that does not exist, so that no emulator runs it.
    let wrong = image(|binary| binary[18..20].copy_from_slice(&[0xfe, 0xfe]));
    node.import("oz-agent-worker", wrong, &format!("&tag=wrong{entrypoint}"));
    node.import("task", RootFs::busybox(), "&tag=1&changes=ENV%20PATH%3D%2Fbin");
    node.import("agent", RootFs::sidecar(Layout::Root, AGENT), "&tag=1");
}

/// Returns the ids of the connected workers.
fn connected(model: &Model) -> BTreeSet<String> {
    let open = model.connections.iter().filter(|connection| connection.ended.is_none());
    open.map(|connection| connection.worker.clone()).collect()
}

impl Cluster {
    /// Starts two nodes and makes a Swarm of them; the first is its manager.
    fn start() -> Self {
        let base =
            PathBuf::from(std::env::var_os("OZ_FLEET_FOLDER").expect("run this with `make test-fleet`"));
        let address = std::env::var("OZ_FLEET_ADDRESS").unwrap().parse().unwrap();
        let plane =
            ControlPlane::start(Options { address, pacing: Pacing::Poll(POLL), ..Options::default() });
        let nodes = [1, 2].map(|number| Node::start(&base, number)).into();
        let cluster = Self { plane, nodes, sync: SyncDir::new(), folder: base, began: Instant::now() };
        cluster.nodes.iter().for_each(Node::wait_ready);
        cluster.nodes.iter().for_each(load);
        let manager = &cluster.nodes[0];
        manager.docker(&["swarm", "init", "--advertise-addr", &manager.address]).unwrap();
        cluster.join(&cluster.nodes[1]);
        cluster.write_override();
        cluster
    }

    fn say(&self, what: &str) {
        println!("{:6.1} s {what}", self.began.elapsed().as_secs_f64());
    }

    /// Polls until `holds`. Panics with `what` and what the operator sees.
    fn wait(&self, what: &str, holds: impl FnMut() -> bool) {
        let seen = || {
            let show = |args: &[&str]| self.manager().docker(args).unwrap_or_else(|error| error);
            let tasks = show(&["service", "ps", "--no-trunc", "oz_worker"]);
            format!("{what}\n{}\n{tasks}\n{}", show(&["node", "ls"]), show(&["service", "logs", "oz_worker"]))
        };
        wait_or(seen, holds);
    }

    fn manager(&self) -> &Node {
        &self.nodes[0]
    }

    fn join(&self, node: &Node) {
        let token = self.manager().docker(&["swarm", "join-token", "-q", "worker"]).unwrap();
        let manager = format!("{}:2377", self.manager().address);
        node.docker(&["swarm", "join", "--token", &token, "--advertise-addr", &node.address, &manager])
            .unwrap();
    }

    fn label(&self, node: usize, label: &str) {
        let node = &self.nodes[node].name;
        self.manager().docker(&["node", "update", "--label-add", label, node]).unwrap();
    }

    /// What this test adds to the stack file: images exist on the nodes only, tasks write into a folder of the test, and checks of
    /// the health are more frequent, and updates quicker.
    fn write_override(&self) {
        let text = format!(
            "version: \"3.8\"\nservices:\n  worker:\n    environment:\n      OZ_PULL: missing\n      OZ_VOLUMES: {}\n      \
             OZ_MAX_CONCURRENT_TASKS: \"4\"\n      OZ_RECONNECT_SPREAD: 1s\n    healthcheck: {{interval: 2s}}\n    \
             deploy: {{update_config: {{monitor: 2s}}}}\n",
            self.sync.mount()
        );
        std::fs::write(self.folder.join("override.yml"), text).unwrap();
    }

    /// Deploys a stack.
    fn deploy(&self, file: &Path, stack: &str, image: &str, secret: &str) -> Result<String, String> {
        let file = file.to_str().unwrap();
        let with = self.folder.join("override.yml").display().to_string();
        let image = format!("oz-agent-worker:{image}");
        let variables = [
            ("OZ_IMAGE", image.as_str()),
            ("OZ_SERVER_ROOT_URL", &self.plane.root_url()),
            ("OZ_API_KEY_SECRET", secret),
        ];
        let args = ["stack", "deploy", "--resolve-image", "never", "-c", file, "-c", &with, stack];
        self.manager().docker_with(&args, &variables)
    }

    fn deploy_workers(&self, image: &str, secret: &str) {
        self.deploy(Path::new(STACK), "oz", image, secret).unwrap();
    }

    fn create_secret(&self, name: &str, key: &str) {
        let file = self.folder.join(name);
        std::fs::write(&file, key).unwrap();
        self.manager().docker(&["secret", "create", name, file.to_str().unwrap()]).unwrap();
    }

    /// Waits until `count` workers are connected, and returns their ids.
    fn wait_workers(&self, count: usize) -> BTreeSet<String> {
        self.wait("the workers are connected", || self.plane.view(connected).len() == count);
        self.plane.view(connected)
    }

    /// Waits until the last update of the service has ended. Panics if it was paused.
    fn wait_updated(&self) {
        self.wait("the update is complete", || {
            let args = ["service", "inspect", "oz_worker", "--format", "{{.UpdateStatus.State}}"];
            let state = self.manager().docker(&args).unwrap();
            assert!(state != "paused", "{}", self.tasks("oz_worker"));
            state == "completed"
        });
    }

    /// Returns what `docker service ps` shows.
    fn tasks(&self, service: &str) -> String {
        let format = "{{.Node}} {{.Image}} {{.DesiredState}} {{.CurrentState}} {{.Error}}";
        self.manager().docker(&["service", "ps", "--no-trunc", "--format", format, service]).unwrap()
    }

    /// Waits until `docker service ps` shows this.
    fn wait_tasks(&self, service: &str, text: &str) -> String {
        let mut seen = String::new();
        self.wait(&format!("docker service ps {service} shows {text:?}"), || {
            seen = self.tasks(service);
            seen.contains(text)
        });
        seen
    }

    /// Returns what `docker service logs` shows. It fails if a node of an earlier task is not there, but shows the rest.
    fn logs(&self, service: &str) -> String {
        self.manager().docker(&["service", "logs", "--raw", service]).unwrap_or_else(|error| error)
    }

    fn submit(&self, script: &str) -> String {
        let script = format!("echo $TASK_ID >> /sync/log; {script}");
        self.plane.submit(RunSpec::quiet("task:1", "agent:1", &script))
    }

    /// Submits runs that wait for a release, and waits until all have started. Returns them by their workers.
    fn hold(&self, count: usize) -> BTreeMap<String, Run> {
        let before = self.sync.lines().len();
        let ids: Vec<_> = (0..count).map(|_| self.submit(WAIT)).collect();
        self.wait("the runs have started", || self.sync.lines().len() == before + count);
        let runs: BTreeMap<_, _> =
            ids.iter().map(|id| self.plane.run(id)).map(|run| (run.worker.clone().unwrap(), run)).collect();
        assert_eq!(runs.len(), count, "one for each worker");
        runs
    }

    fn wait_state(&self, id: &str, state: State) -> Run {
        self.wait(&format!("{id} is {state}"), || {
            let run = self.plane.run(id);
            assert!(run.state == state || !run.state.ended(), "{run:#?}");
            run.state == state
        });
        self.plane.run(id)
    }
}

/// Returns the id in `ids` of the worker on this node.
fn worker_on(ids: &BTreeSet<String>, node: usize) -> String {
    let prefix = format!("node{}-", node + 1);
    ids.iter().find(|id| id.starts_with(&prefix)).unwrap_or_else(|| panic!("{prefix} in {ids:?}")).clone()
}

#[test]
fn a_swarm_runs_one_worker_on_each_node() {
    let mut cluster = Cluster::start();
    cluster.say("two engines are a Swarm");
    no_secret_yet(&cluster);
    cluster.create_secret(KEY, cluster.plane.key());
    cluster.deploy_workers("a", KEY);
    assert_eq!(cluster.tasks("oz_worker"), "", "no node has the label");
    cluster.label(0, "oz=true");
    cluster.label(1, "oz=true");
    let ids = cluster.wait_workers(2);
    cluster.say(&format!("workers {ids:?} are connected"));
    rolling_update(&cluster);
    outage(&mut cluster);

    let node = Node::start(&cluster.folder, 3);
    node.wait_ready();
    load(&node);
    cluster.join(&node);
    cluster.nodes.push(node);
    assert_eq!(cluster.wait_workers(2), ids, "the new node has no label");
    cluster.label(2, "oz=true");
    let ids = cluster.wait_workers(3);
    cluster.say("a third node has joined");

    worker_dies(&mut cluster, &ids);
    manager_dies(&mut cluster, &ids);
    drain(&cluster, &ids);
    rotate(&cluster);
    mistakes(&mut cluster);
    cluster.plane.assert_no_violations();
    let starts = cluster.sync.lines();
    let unique: BTreeSet<_> = starts.iter().collect();
    assert_eq!(unique.len(), starts.len(), "a run was started twice");
}

fn no_secret_yet(cluster: &Cluster) {
    let error = cluster.deploy(Path::new(STACK), "oz", "a", KEY).unwrap_err();
    assert!(error.contains("secret not found: oz_api_key"), "{error}");
    let error = cluster.manager().docker(&["stack", "deploy", "-c", STACK, "oz"]).unwrap_err();
    assert!(error.contains("is missing a value: set OZ_"), "{error}");
    cluster.say(&format!("without variables: {error}"));
}

/// Sixty runs, with an update of the image after the first ones.
fn rolling_update(cluster: &Cluster) {
    let ids: Vec<_> = (0..RUNS).map(|_| cluster.submit("sleep 2")).collect();
    let ended = |model: &Model| model.runs.iter().filter(|run| run.state.ended()).count();
    cluster.wait("some runs have ended", || cluster.plane.view(ended) >= 10);
    cluster.deploy_workers("b", KEY);
    let at = cluster.plane.view(ended);
    cluster.wait_updated();
    let left = RUNS - cluster.plane.view(ended);
    cluster.say(&format!("updated after {at} runs, with {left} left"));
    cluster.wait("all runs have ended", || cluster.plane.view(ended) == RUNS);
    let mut parts: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for id in &ids {
        let run = cluster.plane.run(id);
        assert_eq!((run.state, run.exit_code), (State::Succeeded, Some(0)), "{run:#?}");
        parts.entry(run.worker.unwrap()).or_default().push(run.connection.unwrap());
    }
    let counts: BTreeMap<_, _> = parts.iter().map(|(worker, on)| (worker, on.len())).collect();
    cluster.say(&format!("runs of each worker: {counts:?}"));
    assert!(counts.len() == 2 && counts.values().all(|count| *count >= RUNS / 4), "{counts:?}");
    // Both workers had runs before and after their update.
    assert!(parts.values().all(|on| on.iter().collect::<BTreeSet<_>>().len() == 2), "{parts:?}");
    let started: BTreeSet<_> = cluster.sync.lines().into_iter().collect();
    assert_eq!((cluster.sync.lines().len(), started), (RUNS, ids.into_iter().collect()));
    let tasks = cluster.tasks("oz_worker");
    let running = tasks.lines().filter(|line| line.contains(":b Running Running"));
    assert_eq!(running.count(), 2, "{tasks}");
}

/// The control plane is away for longer than the health checks tolerate.
fn outage(cluster: &mut Cluster) {
    let list = |cluster: &Cluster| {
        let args = ["service", "ps", "-q", "--no-trunc", "oz_worker"];
        cluster.manager().docker(&args).unwrap()
    };
    let before = list(cluster);
    let address = std::env::var("OZ_FLEET_ADDRESS").unwrap().parse().unwrap();
    // A plane in its place while it is taken out.
    let placeholder = ControlPlane::start(Options { address, ..Options::default() });
    let plane = std::mem::replace(&mut cluster.plane, placeholder);
    cluster.plane = plane.restart_after(Duration::from_secs(12));
    cluster.wait_workers(2);
    assert_eq!(list(cluster), before, "a worker was replaced because the control plane was away");
    cluster.say("the control plane was away for 12 s, and the workers stayed");
}

fn worker_dies(cluster: &mut Cluster, ids: &BTreeSet<String>) {
    let runs = cluster.hold(3);
    let dead = worker_on(ids, 1);
    cluster.nodes[1].crash();
    let lost = cluster.wait_state(&runs[&dead].id, State::Failed);
    assert_eq!(lost.message.as_deref(), Some("the worker disconnected"));
    cluster.sync.release(2);
    for run in runs.values().filter(|run| run.worker.as_ref() != Some(&dead)) {
        cluster.wait_state(&run.id, State::Succeeded);
    }
    cluster.wait("the manager notices", || {
        cluster.manager().docker(&["node", "ls"]).unwrap().lines().any(|line| line.contains("Down"))
    });
    cluster.say("a node has died; its run failed, the others went on");
    cluster.nodes[1].boot(SOCKET);
    cluster.nodes[1].wait_ready();
    cluster.wait_workers(3);
    cluster.wait("the node reports what it owes", || cluster.plane.run(&lost.id).terminal_reports == 1);
    let engine = cluster.nodes[1].engine();
    cluster.wait("nothing is left on the node", || engine.containers_of(&dead).is_empty());
    cluster.say("the node has returned, reported its run and removed the container");
}

/// The only manager dies: the others work on.
fn manager_dies(cluster: &mut Cluster, ids: &BTreeSet<String>) {
    cluster.nodes[0].crash();
    let others = cluster.wait_workers(2);
    assert!(!others.contains(&worker_on(ids, 0)), "{others:?}");
    let runs: Vec<_> = (0..4).map(|_| cluster.submit("true")).collect();
    for id in &runs {
        cluster.wait_state(id, State::Succeeded);
    }
    cluster.nodes[0].boot(SOCKET);
    cluster.nodes[0].wait_ready();
    cluster.wait_workers(3);
    cluster.say("the manager died and returned; the other nodes took runs meanwhile");
}

fn drain(cluster: &Cluster, ids: &BTreeSet<String>) {
    let runs = cluster.hold(3);
    let drained = worker_on(ids, 2);
    let availability = |state: &str| {
        cluster.manager().docker(&["node", "update", "--availability", state, "node3"]).unwrap();
    };
    availability("drain");
    let is_draining = |line: &str| line.starts_with("node3 ") && line.contains(" Shutdown Running ");
    cluster.wait("the worker drains", || cluster.tasks("oz_worker").lines().any(is_draining));
    cluster.sync.release(3);
    for run in runs.values() {
        cluster.wait_state(&run.id, State::Succeeded);
    }
    let left = cluster.wait_workers(2);
    assert!(!left.contains(&drained), "{left:?}");
    let more: Vec<_> = (0..4).map(|_| cluster.submit("true")).collect();
    for id in &more {
        let run = cluster.wait_state(id, State::Succeeded);
        assert_ne!(run.worker.as_ref(), Some(&drained));
    }
    availability("active");
    cluster.wait_workers(3);
    cluster.say("a node was drained after its run had ended, and took part again");
}

fn rotate(cluster: &Cluster) {
    cluster.plane.change_key("second-key");
    cluster.create_secret("oz_api_key_2", "second-key\n");
    let before = cluster.plane.connections();
    cluster.deploy_workers("b", "oz_api_key_2");
    cluster.wait_updated();
    cluster.wait_workers(3);
    assert_eq!(cluster.plane.connections(), before + 3);
    let id = cluster.submit("true");
    cluster.wait_state(&id, State::Succeeded);
    cluster.manager().docker(&["secret", "rm", KEY]).unwrap();
    cluster.say("the key was rotated");
}

/// What an operator sees.
fn mistakes(cluster: &mut Cluster) {
    let stack = std::fs::read_to_string(STACK).unwrap();
    // Without the secret.
    let (start, rest) = stack.split_once("    secrets:\n      - source").unwrap();
    let (_, end) = rest.split_once("    volumes:\n").unwrap();
    let without = [start, "    volumes:\n", end].concat().replace("node.labels.oz ", "node.labels.bad ");
    let file = cluster.folder.join("without-secret.yml");
    std::fs::write(&file, without).unwrap();
    cluster.label(0, "bad=true");
    cluster.deploy(&file, "bad", "b", "oz_api_key_2").unwrap();
    let seen = cluster.wait_tasks("bad_worker", "non-zero exit (2)");
    let logs = cluster.logs("bad_worker");
    let expected = "cannot read OZ_API_KEY_FILE \"/run/secrets/oz_api_key\": must be a file that this user may read, in a Swarm a \
                    secret of the service";
    assert!(logs.contains(expected), "{logs}");
    cluster.say(&format!("a stack without its secret:\n{seen}\n{logs}"));
    cluster.manager().docker(&["stack", "rm", "bad"]).unwrap();

    // An image for other processors.
    let file = cluster.folder.join("wrong.yml");
    std::fs::write(&file, stack.replace("node.labels.oz ", "node.labels.wrong ")).unwrap();
    cluster.label(1, "wrong=true");
    cluster.deploy(&file, "wrong", "wrong", "oz_api_key_2").unwrap();
    let seen = cluster.wait_tasks("wrong_worker", "Failed");
    let logs = cluster.logs("wrong_worker");
    assert!([&seen, &logs].iter().any(|text| text.contains("exec format error")), "{seen}\n{logs}");
    cluster.say(&format!("an image for other processors:\n{seen}\n{logs}"));
    cluster.manager().docker(&["stack", "rm", "wrong"]).unwrap();

    // A node without the socket.
    cluster.nodes[2].crash();
    cluster.nodes[2].boot("unix:///run/other.sock");
    cluster.nodes[2].wait_ready();
    let seen = cluster.wait_tasks("oz_worker", "bind source path does not exist: /var/run/docker.sock");
    cluster.say(&format!("a node without the socket:\n{seen}"));
    cluster.wait_workers(2);
}
