//! What the end of a connection does, and the ways in which this side can end or stall one.

use tungstenite::{Error, Message};

use super::fake_worker::FakeWorker;
use crate::support::control_plane::model::Ended;
use crate::support::control_plane::{ControlPlane, DEADLINE, Disconnect, Options, RunSpec, State};

#[test]
fn the_end_of_a_connection_requeues_the_claimed_and_fails_the_running() {
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
fn an_older_connection_that_closes_fails_what_the_newer_one_runs() {
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
    assert_eq!(plane.run(&id).state, State::InProgress, "a held connection does not see its end");
    plane.hold_pongs(false);
    assert_eq!(plane.wait_ended(&id).state, State::Failed);
}

#[test]
fn each_way_of_ending_looks_as_it_should() {
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
fn a_close_frame_of_the_worker_is_told_from_a_lost_connection() {
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
    // When the second one is here, the turn that sent the first is over, and with it its reading.
    plane.send_text("1");
    assert_eq!(worker.next(), 1);
    plane.send_text("2");
    assert_eq!(worker.next(), 2);
    assert!(plane.violations().is_empty());
    plane.hold_pongs(false);
    plane.wait_for(DEADLINE, |model| model.violations.len() == 1);
}
