//! Connection faults of every kind between workers and the control plane, at random bytes, while tasks run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::fleet::{Fleet, Member};
use super::pending;
use crate::support::control_plane::{ControlPlane, Dialect, Disconnect};
use crate::support::fault_proxy::{Cut, Direction};
use crate::support::rng::{Rng, Seed};
use crate::support::stage::DEADLINE;

/// How often each worker's connection is ended.
const FAULTS_EACH: usize = 3;

/// The limit on runs that have not ended, including those in the backlogs.
const MAX_PENDING: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Rst,
    Fin,
    /// The control plane closes with code 1001, as when it is restarted.
    Away,
    /// Silence in these directions and then a reset, because the worker's own time-out is a minute.
    HalfOpen(&'static [Direction]),
}

const KINDS: [Fault; 6] = [
    Fault::Rst,
    Fault::HalfOpen(&[Direction::Upstream]),
    Fault::Away,
    Fault::HalfOpen(&[Direction::Downstream]),
    Fault::Fin,
    Fault::HalfOpen(&[Direction::Upstream, Direction::Downstream]),
];

/// Returns after how many bytes the connections of one worker stop: about one of eight within the handshake, the others
/// within the traffic of about eight tasks.
fn limits(rng: &mut Rng) -> Vec<u64> {
    let limit = |_| if rng.u64(0..=7) == 0 { rng.u64(0..=500) } else { rng.u64(600..=8000) };
    (0..FAULTS_EACH).map(limit).collect()
}

impl Fault {
    /// Injects the fault into a connection that is stopped.
    fn inject(self, member: &Member, number: usize, plane: &ControlPlane, rng: &mut Rng) {
        let proxy = &member.proxy;
        match self {
            Self::Rst => proxy.cut(number, Cut::Rst),
            Self::Fin => proxy.cut(number, Cut::Fin),
            Self::Away if plane.drop_worker(&member.id, Disconnect::Close1001) => proxy.resume(number),
            // During the handshake the control plane has no connection to close.
            Self::Away => proxy.cut(number, Cut::Rst),
            Self::HalfOpen(directions) => {
                directions.iter().for_each(|direction| proxy.swallow(number, *direction));
                proxy.resume(number);
                // The duration of the fault.
                std::thread::sleep(Duration::from_millis(rng.u64(50..=600)));
                proxy.cut(number, Cut::Rst);
            }
        }
    }
}

/// Ends one worker's connections, one after another, and returns how many.
fn inject_faults(
    member: &Member,
    kinds: impl Iterator<Item = Fault>,
    plane: &ControlPlane,
    rng: &mut Rng,
    over: &AtomicBool,
) -> usize {
    for (number, fault) in (1..).zip(kinds.take(FAULTS_EACH)) {
        while !member.proxy.wait_stopped(number, Duration::from_millis(200)) {
            if over.load(Ordering::SeqCst) {
                return number - 1;
            }
        }
        fault.inject(member, number, plane, rng);
    }
    FAULTS_EACH
}

/// At least `tasks` tasks and `faults` faults. Each task that was started was started once and has a correct report, and no container
/// is left. `workers * FAULTS_EACH` must exceed `faults`, because the last faults may find no connection to end.
fn run(dialect: Dialect, tasks: usize, faults: usize, workers: usize) {
    let seed = Seed::new();
    let mut rng = seed.rng();
    let all_limits = (0..workers).map(|_| limits(&mut rng)).collect();
    let fleet = Fleet::new(dialect, all_limits, 4, &mut rng);
    let plane = &fleet.stage.plane;
    let (over, left, count) = (AtomicBool::new(false), AtomicUsize::new(workers), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (index, member) in fleet.members.iter().enumerate() {
            let (over, left, count) = (&over, &left, &count);
            let mut rng = rng.fork();
            scope.spawn(move || {
                let kinds = KINDS.into_iter().cycle().skip(index);
                let injected = inject_faults(member, kinds, plane, &mut rng, over);
                count.fetch_add(injected, Ordering::SeqCst);
                left.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let mut submitted = 0;
        // Submits tasks until all workers had their faults, because a connection reaches its limit only with traffic.
        while submitted < tasks || left.load(Ordering::SeqCst) > 0 && submitted < 2 * tasks {
            fleet.submit(rng.u64(0..=1500), [0, 0, 3][rng.usize(0..=2)]);
            submitted += 1;
            let room = plane.holds_within(DEADLINE, |model| pending(model) < MAX_PENDING);
            over.store(!room, Ordering::SeqCst);
            assert!(room, "no run ended in time");
        }
        over.store(true, Ordering::SeqCst);
    });
    plane.wait_for(DEADLINE, |model| pending(model) == 0);
    fleet.wait_clean();
    let (tally, count) = (fleet.tally(), count.into_inner());
    eprintln!("{count} faults: {tally:?}");
    assert!(count >= faults, "only {count} faults");
    assert!(tally.reported >= tasks - tally.void && tally.void < tasks / 2, "{tally:?}");
    fleet.stop();
}

#[test]
fn tasks_over_thirty_connection_faults_each_run_once_and_are_reported() {
    run(Dialect::Old, 150, 30, 11);
}

#[test]
fn tasks_of_the_public_control_plane_over_ten_connection_faults_each_run_once_and_are_reported() {
    run(Dialect::Upstream, 50, 10, 4);
}
