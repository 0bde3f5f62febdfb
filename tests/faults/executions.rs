//! Cuts and kills while two executions of each task run: each is started once at most, and reported with its own result if it was
//! started.

use std::time::Duration;

use serde_json::{Value, json};

use super::starts;
use crate::support::control_plane::Received;
use crate::support::control_plane::run::new_id;
use crate::support::fault_proxy::{Cut, FaultProxy, Jitter};
use crate::support::process::Signal;
use crate::support::rng::{Rng, Seed};
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::SyncDir;
use crate::support::worker::WorkerBuilder;

/// The default seed.
const SEED: u64 = 13;
const WORKERS: usize = 4;
/// How often each worker is killed, or loses its connection.
const FAULTS: usize = 3;
const EXECUTIONS: [&str; 2] = ["1", "2"];

/// One worker that gets two executions of a new task before each fault.
struct Pairs<'a> {
    stage: &'a Stage,
    sync: &'a SyncDir,
    id: String,
    tasks: Vec<String>,
}

impl<'a> Pairs<'a> {
    fn new(stage: &'a Stage, sync: &'a SyncDir, number: usize) -> Self {
        Self { stage, sync, id: format!("{}-{number}", stage.worker_id), tasks: Vec::new() }
    }

    fn builder(&self, address: &str) -> WorkerBuilder {
        let worker = self.stage.worker_via(&self.id, address);
        worker.args(["-v", &self.sync.mount(), "--max-concurrent-tasks", "4", "--reconcile-interval", "0"])
    }

    /// Sends two executions of a new task. Returns `false` without a connection.
    fn assign(&mut self) -> bool {
        let task = new_id();
        for execution in EXECUTIONS {
            let script = format!(
                "echo {task}/{execution} >> /sync/log; usleep 300000; echo {execution}; exit {execution}"
            );
            let mut data = self.stage.spec(&script).assignment(&task);
            data["execution_id"] = json!(execution);
            let message = json!({"type": "task_assignment", "data": data});
            if !self.stage.plane.send_text_to(&self.id, message.to_string()) {
                return false;
            }
        }
        self.tasks.push(task);
        true
    }

    /// Waits until the worker's connection `number` is open.
    fn wait_connected(&self, number: usize) {
        self.stage.plane.wait_for(DEADLINE, |model| {
            let mut own = model.connections.iter().filter(|one| one.worker == self.id).skip(number - 1);
            own.any(|one| one.ended.is_none())
        });
    }

    /// Sends two executions of new tasks until those of one are reported. A connection that was cut may still be open at the
    /// control plane, and loses what is sent there.
    fn assign_until_reported(&mut self) {
        let (stage, before) = (self.stage, self.tasks.len());
        stage.wait("both executions of a task are reported", || {
            self.assign();
            let tasks = &self.tasks[before..];
            stage.plane.holds_within(Duration::from_secs(5), |model| {
                let is_report =
                    |task: &str, one: &&Received| one.kind == "task_completed" && one.data["task_id"] == task;
                let reports =
                    |task: &String| model.messages.iter().filter(|one| is_report(task, one)).count();
                tasks.iter().any(|task| reports(task) >= EXECUTIONS.len())
            })
        });
    }

    /// Waits until an execution of the newest task has started.
    fn wait_started(&self) {
        let task = self.tasks.last().expect("a task");
        let started = || self.sync.lines().iter().any(|line| line.starts_with(task.as_str()));
        self.stage.wait("an execution has started", started);
    }

    /// Waits until the engine has no container of the worker, and checks the starts and reports. Returns how many executions were
    /// reported.
    fn check(&self) -> usize {
        self.stage.wait("no container is left", || self.stage.engine.containers_of(&self.id).is_empty());
        let lines = self.sync.lines();
        let (starts, mut reported) = (starts(&lines), 0);
        for task in &self.tasks {
            for execution in EXECUTIONS {
                let started = starts.get(format!("{task}/{execution}").as_str()).copied().unwrap_or(0);
                let code: i64 = execution.parse().unwrap();
                let is_own = |data: &Value| data["task_id"] == task.as_str() && data["exit_code"] == code;
                let reports = self.stage.plane.messages();
                let reports: Vec<_> = reports.iter().filter(|one| is_own(&one.data)).collect();
                assert!(started <= 1, "{task}/{execution} was started {started} times");
                assert_eq!(started > 0, !reports.is_empty(), "{task}/{execution}: {reports:#?}");
                let output = json!(format!("{execution}\n"));
                assert!(reports.iter().all(|one| one.data["output"] == output), "{reports:#?}");
                reported += started;
            }
        }
        reported
    }
}

fn random_moment(rng: &mut Rng) {
    // A random moment, not an event.
    std::thread::sleep(Duration::from_millis(rng.u64(0..=900)));
}

/// Runs `act` for each worker in a thread, and returns how many executions were reported.
fn in_parallel(act: impl Fn(&mut Pairs<'_>, &mut Rng) + Sync) -> usize {
    let seed = Seed::or(SEED);
    let mut rng = seed.rng();
    let (stage, sync) = (Stage::new(), SyncDir::new());
    let reported = std::thread::scope(|scope| {
        let run = |number| {
            let (mut rng, stage, sync, act) = (rng.fork(), &stage, &sync, &act);
            scope.spawn(move || {
                let mut pairs = Pairs::new(stage, sync, number);
                act(&mut pairs, &mut rng);
                pairs.check()
            })
        };
        let threads: Vec<_> = (0..WORKERS).map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("a worker")).sum()
    });
    (0..WORKERS).for_each(|number| stage.engine.remove_all_of(&Pairs::new(&stage, &sync, number).id));
    stage.plane.assert_no_violations();
    reported
}

#[test]
fn two_executions_of_a_task_survive_kills() {
    let reported = in_parallel(|pairs, rng| {
        let address = pairs.stage.plane.address().to_string();
        for kill in 1..=FAULTS {
            let mut worker = pairs.builder(&address).start();
            pairs.wait_connected(kill);
            assert!(pairs.assign());
            // The first kill interrupts a running execution, however slow the machine is.
            if kill == 1 {
                pairs.wait_started();
            } else {
                random_moment(rng);
            }
            worker.signal(Signal::KILL);
            worker.wait_exit(DEADLINE);
        }
        let mut worker = pairs.builder(&address).start();
        pairs.wait_connected(FAULTS + 1);
        pairs.assign_until_reported();
        pairs.check();
        worker.signal(Signal::TERM);
        assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0));
    });
    assert!(reported >= 3 * WORKERS, "only {reported} were reported, not all of those that were awaited");
}

#[test]
fn two_executions_of_a_task_survive_cut_connections() {
    let reported = in_parallel(|pairs, rng| {
        let limits = (0..FAULTS).map(|_| rng.u64(400..=2500)).collect();
        let jitter = Jitter { max_delay_ms: 3, rng: rng.fork() };
        let proxy = FaultProxy::seeded(&format!("tcp://{}", pairs.stage.plane.address()), limits, jitter);
        let mut worker = pairs.builder(&proxy.address()).start();
        for connection in 1..=FAULTS {
            // It stops only with traffic, and may stop within the handshake.
            let mut assigned = 0;
            while !proxy.wait_stopped(connection, Duration::from_millis(100)) {
                assigned += usize::from(assigned < 3 && pairs.assign());
            }
            proxy.cut(connection, Cut::Rst);
        }
        pairs.wait_connected(1);
        pairs.assign_until_reported();
        pairs.stage.wait("the tasks have ended", || pairs.stage.engine.containers_of(&pairs.id).is_empty());
        worker.signal(Signal::TERM);
        assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0));
    });
    assert!(reported >= 2 * WORKERS, "only {reported} were reported, not all of those that were awaited");
}
