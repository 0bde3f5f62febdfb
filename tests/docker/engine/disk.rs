//! The free space of a real engine's disk.

use oz_agent_worker::app::disk::DiskWatch;
use oz_agent_worker::docker::Docker;
use oz_agent_worker::sys::cancel::CancelToken;

use crate::docker::endpoint_at;
use crate::support::engine::Engine;
use crate::support::fake_docker::client;
use crate::support::fault_proxy::FaultProxy;

fn connect(host: &str) -> Docker {
    client(&CancelToken::new(), endpoint_at(host), None).unwrap()
}

#[test]
fn the_disk_of_an_engine_on_this_machine_is_watched() {
    let engine = Engine::get();
    let docker = connect(engine.host());
    assert!(docker.engine().root.starts_with('/'), "{:?}", docker.engine());
    let watch = DiskWatch::new(&docker, 1).unwrap();
    assert_eq!(watch.low(), None);
    let reason = DiskWatch::new(&docker, u64::MAX).unwrap().low().unwrap();
    assert!(reason.contains("iB free, less than --min-free-disk"), "{reason}");
    assert!(DiskWatch::new(&docker, 0).is_some_and(|watch| !watch.refuses_tasks() && !watch.is_full()));
    let forward = FaultProxy::to(engine.host());
    assert!(DiskWatch::new(&connect(&forward.host()), 1).is_none(), "its disk may be on another machine");
}
