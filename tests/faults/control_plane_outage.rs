//! The control plane is unavailable for a while, or keeps a connection that has ended for the worker.

use std::time::{Duration, Instant};

use super::fleet::{Fleet, Tally};
use super::{pending, reports, starts};
use crate::support::control_plane::{Dialect, Disconnect, Model, State};
use crate::support::fault_proxy::{Cut, Direction};
use crate::support::rng::Seed;
use crate::support::stage::DEADLINE;

/// Long enough for several attempts to connect.
const OUTAGE: Duration = Duration::from_secs(12);

/// Tasks that end during the outage; each keeps its slot until its report is delivered.
const SLOTS: usize = 64;

const TASKS: usize = 200;

/// Tasks that wait for a slot when the outage begins.
const WAITING: usize = 20;

/// Submits `count` runs, never more than `max_pending` at a time: a run that does not fit into the backlog is rejected and
/// comes again only after the claim time-out.
fn submit(fleet: &Fleet, count: usize, max_pending: usize) {
    for _ in 0..count {
        let room = |model: &Model| pending(model) < max_pending;
        assert!(fleet.stage.plane.holds_within(DEADLINE, room), "no run ended in time");
        fleet.submit_held();
    }
}

/// Of 200 tasks, 64 end during the outage and 20 wait for a slot. Each is started once and reported, and no container is
/// left.
#[test]
fn two_hundred_tasks_around_an_outage_are_all_reported() {
    let seed = Seed::new();
    let fleet = Fleet::new(Dialect::Old, vec![Vec::new()], SLOTS, &mut seed.rng());
    let (plane, worker) = (&fleet.stage.plane, &fleet.members[0].worker);
    plane.wait_connected(1);
    let before = (TASKS - SLOTS - WAITING) / 2;
    fleet.sync.release(before);
    submit(&fleet, before + SLOTS + WAITING, SLOTS + WAITING);
    fleet.sync.wait_lines(&fleet.stage, before + SLOTS);
    plane.wait_for(DEADLINE, |model| pending(model) == SLOTS + WAITING);
    plane.refuse_with(Some(503));
    plane.drop_connections(Disconnect::Rst);
    let back = Instant::now() + OUTAGE;
    worker.wait_log(DEADLINE, |line| line.contains("connection lost"));
    fleet.sync.release(SLOTS);
    let mut ended = 0;
    worker.wait_log(DEADLINE, |line| {
        ended += usize::from(line.contains("task ended"));
        ended == before + SLOTS
    });
    assert_eq!(fleet.sync.lines().len(), before + SLOTS, "no task is started during the outage");
    assert!(!plane.holds_within(back.saturating_duration_since(Instant::now()), |_| false));
    plane.refuse_with(None);
    let connected = plane.connections() + 1;
    plane.wait_connected(connected);
    fleet.sync.release(TASKS);
    // No more than the backlog holds, because the slots are occupied until their reports are confirmed.
    submit(&fleet, TASKS - before - SLOTS - WAITING, SLOTS);
    plane.wait_for(DEADLINE, |model| pending(model) == 0);
    fleet.wait_clean();
    assert_eq!(fleet.tally(), Tally { reported: TASKS, void: 0 });
    let late = plane.runs().into_iter().filter(|run| run.state == State::Failed);
    let late: Vec<_> = late.map(|run| reports(&run)[0].connection).collect();
    assert_eq!(
        late, [connected; SLOTS],
        "reports of tasks that ended during the outage, all on the next connection"
    );
    fleet.stop();
}

/// The public control plane does not fail the runs of a connection that ends. What ends meanwhile is reported on the next one.
#[test]
fn tasks_that_end_during_an_outage_of_the_public_control_plane_are_reported_afterwards() {
    const TASKS: usize = 16;
    let seed = Seed::new();
    let fleet = Fleet::new(Dialect::Upstream, vec![Vec::new()], TASKS, &mut seed.rng());
    let (plane, worker) = (&fleet.stage.plane, &fleet.members[0].worker);
    plane.wait_connected(1);
    (0..TASKS).for_each(|_| drop(fleet.submit_held()));
    fleet.sync.wait_lines(&fleet.stage, TASKS);
    plane.refuse_with(Some(503));
    plane.drop_connections(Disconnect::Rst);
    fleet.sync.release(TASKS);
    let mut ended = 0;
    worker.wait_log(DEADLINE, |line| {
        ended += usize::from(line.contains("task ended"));
        ended == TASKS
    });
    assert_eq!(plane.view(pending), TASKS);
    plane.refuse_with(None);
    plane.wait_for(DEADLINE, |model| pending(model) == 0);
    fleet.wait_clean();
    assert_eq!(fleet.tally(), Tally { reported: TASKS, void: 0 });
    assert!(plane.runs().iter().all(|run| run.state == State::Succeeded && reports(run)[0].connection == 2));
    fleet.stop();
}

/// After a half-open connection the control plane may have two connections of one worker for a while. It sends runs to
/// both. When the old connection ends, the control plane requeues or fails the runs of the new one too.
#[test]
fn no_run_is_lost_when_an_old_connection_ends_late_at_the_control_plane() {
    let seed = Seed::new();
    let fleet = Fleet::new(Dialect::Old, vec![Vec::new()], 4, &mut seed.rng());
    let (plane, proxy) = (&fleet.stage.plane, &fleet.members[0].proxy);
    plane.wait_connected(1);
    let first: Vec<String> = (0..2).map(|_| fleet.submit_held()).collect();
    fleet.sync.wait_lines(&fleet.stage, 2);
    for direction in [Direction::Upstream, Direction::Downstream] {
        proxy.swallow(1, direction);
    }
    proxy.cut_one_end(1, Direction::Downstream, Cut::Rst);
    plane.wait_connected(2);
    assert_eq!(plane.view(Model::connected), 2);
    // Sent alternately to both connections: three are swallowed, two are started and one waits.
    let others: Vec<String> = (0..6).map(|_| fleet.submit_held()).collect();
    fleet.sync.wait_lines(&fleet.stage, 4);
    proxy.cut_one_end(1, Direction::Upstream, Cut::Fin);
    plane.wait_for(DEADLINE, |model| model.connected() == 1);
    fleet.sync.release(8);
    plane.wait_for(DEADLINE, |model| pending(model) == 0);
    fleet.wait_clean();
    assert_eq!(fleet.tally(), Tally { reported: 8, void: 0 });
    let failed = |id: &&String| plane.run(id).state == State::Failed;
    assert_eq!(
        first.iter().chain(&others).filter(failed).count(),
        4,
        "those that were running when the old connection ended"
    );
    assert_eq!(starts(&fleet.sync.lines()).len(), 8);
    fleet.stop();
}
