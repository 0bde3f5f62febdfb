//! From the reset of a connection that has just begun until the next one, without the random pause.

use std::time::Duration;

use crate::bench::Bench;
use crate::figure::Figure;
use crate::session::{Session, timed};
use crate::support::control_plane::Disconnect;

pub fn measure(bench: &Bench) -> Vec<Figure> {
    let mut time = bench.figure("after a reset", "ms");
    for _ in bench.rounds(5, 2) {
        for (index, program) in bench.programs.iter().enumerate() {
            // A new worker for each sample, because the pause grows with the number of short connections.
            let session = Session::start(&bench.engine, program, &[("OZ_RECONNECT_SPREAD", "0")]);
            std::thread::sleep(Duration::from_millis(500));
            let value = timed(|| {
                session.plane.drop_connections(Disconnect::Rst);
                session.wait_connected(2);
            });
            time.add(index, value);
        }
    }
    vec![time]
}
