//! The effect of a connection's end, and how the stand-in ends or stalls connections.

use tungstenite::{Error, Message};

use super::fake_worker::FakeWorker;
use crate::support::control_plane::model::Ended;
use crate::support::control_plane::{ControlPlane, DEADLINE, Disconnect, Options, RunSpec, State};

#[test]
fn the_end_of_a_connection_requeues_claimed_runs_and_fails_running_ones() {
    let plane = ControlPlane::start(Options::default());
    let (running, claimed) = (plane.submit(RunSpec::default()), plane.submit(RunSpec::default()));
    let mut worker = FakeWorker::connect(&plane, "w");
    let _ = (worker.assigned(), worker.assigned());
    worker.claim(&running);
    plane.wait_state(&running, State::InProgress);
    drop(worker);
    assert_eq!(plane.wait_ended(&running).state, State::Failed);
    assert_eq!(plane.run(&claimed).state, State::Pending);
    assert_eq!(FakeWorker::connect(&plane, "w").assigned(), claimed);
}

#[test]
fn the_end_of_an_older_connection_fails_the_runs_of_a_newer_one() {
    let plane = ControlPlane::start(Options::default());
    let old = FakeWorker::connect(&plane, "w");
    plane.hold_pongs(true);
    let mut new = FakeWorker::connect(&plane, "w");
    let ids = [plane.submit(RunSpec::default()), plane.submit(RunSpec::default())];
    let id = new.assigned();
    assert!(ids.contains(&id));
    new.claim(&id);
    new.sync();
    drop(old);
    assert_eq!(plane.run(&id).state, State::InProgress, "the end of a held connection is not noticed");
    plane.hold_pongs(false);
    assert_eq!(plane.wait_ended(&id).state, State::Failed);
}

#[test]
fn each_kind_of_disconnect_is_seen_as_such_by_the_worker() {
    let plane = ControlPlane::start(Options::default());
    let mut ends = Vec::new();
    for how in [Disconnect::Fin, Disconnect::Rst, Disconnect::Close1001] {
        let mut worker = FakeWorker::connect(&plane, "w");
        plane.wait_for(DEADLINE, |model| model.connected() == 1);
        plane.drop_connections(how);
        ends.push(worker.socket.read());
        drop(worker);
        plane.wait_for(DEADLINE, |model| model.connected() == 0);
    }
    assert!(matches!(ends[0], Err(Error::Protocol(_))), "{:?}", ends[0]);
    assert!(matches!(ends[1], Err(Error::Io(_))), "{:?}", ends[1]);
    assert!(matches!(&ends[2], Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 1001));
}

#[test]
fn a_close_frame_is_distinguished_from_a_lost_connection() {
    let plane = ControlPlane::start(Options::default());
    let mut worker = FakeWorker::connect(&plane, "w");
    worker.socket.close(None).unwrap();
    while worker.socket.read().is_ok() {}
    drop(worker);
    drop(FakeWorker::connect(&plane, "w"));
    plane.wait_for(DEADLINE, |model| model.connections.len() == 2 && model.connected() == 0);
    let ends = plane.view(|model| model.connections.iter().map(|one| one.ended).collect::<Vec<_>>());
    assert_eq!(ends, [Some(Ended::Closed(None)), Some(Ended::Lost)]);
}

#[test]
fn a_held_connection_sends_but_does_not_read() {
    let plane = ControlPlane::start(Options::default());
    let mut worker = FakeWorker::connect(&plane, "w");
    plane.hold_pongs(true);
    worker.socket.send(Message::text("no message")).unwrap();
    // When the second one arrives, the iteration that sent the first has ended, and it would have read the message.
    plane.send_text("1");
    assert_eq!(worker.next(), 1);
    plane.send_text("2");
    assert_eq!(worker.next(), 2);
    assert!(plane.violations().is_empty());
    plane.hold_pongs(false);
    plane.wait_for(DEADLINE, |model| model.violations.len() == 1);
}
