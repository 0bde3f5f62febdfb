//! From the start of the process until the control plane has accepted its connection, with containers and volumes of others on the
//! engine. The floor is the start and the end of `true`.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::bench::Bench;
use crate::figure::Figure;
use crate::session::{Session, timed};
use crate::support::control_plane::run::new_id;
use crate::support::engine::Engine;
use crate::support::process::Process;

/// Containers that are created and never started, each with a volume. Dropping it removes them.
struct Objects<'a> {
    engine: &'a Engine,
    names: Vec<String>,
}

pub fn measure(bench: &Bench) -> Vec<Figure> {
    let mut objects = Objects { engine: &bench.engine, names: Vec::new() };
    let mut figures = Vec::new();
    for count in bench.pick([0, 20, 200].as_slice(), [0, 20].as_slice()) {
        // Creating and removing a container takes about 50 ms.
        let missing = u32::try_from(count - objects.names.len()).expect("few");
        if missing > 0 && !bench.has_time(Duration::from_millis(50) * missing) {
            break;
        }
        objects.grow(*count, &bench.spec("").docker_image.expect("an image"));
        figures.push(exec_to_connected(bench, *count));
    }
    figures
}

fn exec_to_connected(bench: &Bench, objects: usize) -> Figure {
    let mut time = bench.figure(format!("exec to connected, {objects} containers"), "ms");
    for _ in bench.rounds(20, 7) {
        for (index, program) in bench.programs.iter().enumerate() {
            let floor = timed(|| {
                let mut process = Process::spawn(&mut Command::new("true"), None);
                assert!(process.wait_exit(Duration::from_secs(10)).success());
            });
            let mut session = None;
            let value = timed(|| session = Some(Session::start(&bench.engine, program, &[])));
            time.add_pair(index, floor, value);
        }
    }
    time
}

impl Objects<'_> {
    fn grow(&mut self, count: usize, image: &str) {
        while self.names.len() < count {
            let name = format!("bench-object-{}", new_id());
            let mount = json!({"Type": "volume", "Source": name, "Target": "/data"});
            let body = json!({"Image": image, "Labels": {"of": "bench"}, "HostConfig": {"Mounts": [mount]}});
            self.engine.json("POST", &format!("/containers/create?name={name}"), &body);
            self.names.push(name);
        }
    }
}

impl Drop for Objects<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            self.engine.remove_container(name);
            self.engine.remove_volume(name);
        }
    }
}
