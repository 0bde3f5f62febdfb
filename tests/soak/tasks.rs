//! Random tasks, some of them cancelled, sent twice or invalid.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Until;
use crate::ledger::{End, Ledger};
use crate::setup::{SLOTS, Setup};
use crate::support::control_plane::run::new_id;
use crate::support::control_plane::{ControlPlane, Model};
use crate::support::rng::Rng;

/// The limit on runs that have not ended: one per slot, and a few in the backlog.
const MAX_PENDING: usize = 12;

/// Long enough for all slots to run at the same time.
const WARM_UP_MILLIS: u64 = 5000;

const MIB: u64 = 1 << 20;

/// Chooses and submits tasks, and counts them.
pub struct Tasks {
    rng: Rng,
    cancels: Vec<Cancel>,
    pub count: Count,
}

/// A cancel that is planned.
struct Cancel {
    due: Instant,
    id: String,
    /// Without a message to the worker.
    silent: bool,
}

#[derive(Debug, Default)]
pub struct Count {
    pub tasks: usize,
    pub resent: usize,
    pub cancelled: usize,
    pub cancelled_silently: usize,
}

fn pending(model: &Model) -> usize {
    model.runs.iter().filter(|run| !run.state.ended()).count()
}

impl Tasks {
    pub fn new(rng: &mut Rng) -> Self {
        Self { rng: rng.fork(), cancels: Vec::new(), count: Count::default() }
    }

    /// Lets all slots report the largest output at the same time, once from stdout and once from the output file. The
    /// allocator keeps the memory of such a burst, and nothing later needs more.
    pub fn warm_up(&mut self, setup: &Setup, ledger: &mut Ledger) -> Result<(), String> {
        let bytes = usize::try_from(4 * MIB).expect("it is small");
        for file in [false, true] {
            for _ in 0..SLOTS {
                let spec = setup.stage.spec(&script(WARM_UP_MILLIS, bytes, 0, file));
                let id = setup.stage.plane.submit(spec);
                ledger.expect(id, End::Exit { millis: WARM_UP_MILLIS, bytes, code: 0 });
                self.count.tasks += 1;
            }
            setup.wait_idle()?;
            ledger.settle(&setup.stage.plane);
        }
        Ok(())
    }

    /// Submits and cancels tasks until the phase is over.
    pub fn submit(&mut self, until: &Until<'_>, setup: &Setup, ledger: &mut Ledger) {
        let plane = &setup.stage.plane;
        while !until.over() {
            if plane.holds_within(Duration::from_millis(50), |model| pending(model) < MAX_PENDING) {
                self.submit_one(setup, ledger);
            }
            self.cancel_due(Instant::now(), plane, ledger);
            ledger.settle_old(plane);
        }
        // All cancels that are still planned.
        self.cancel_due(Instant::now() + Duration::from_secs(3600), plane, ledger);
    }

    fn submit_one(&mut self, setup: &Setup, ledger: &mut Ledger) {
        let (data, end) = self.choose(setup);
        let Some(id) = setup.stage.plane.submit_raw(data) else { return };
        self.count.tasks += 1;
        // Only slow ones: a control plane does not send a run again that has ended.
        let slow = matches!(end, End::Exit { millis: 1000.., .. });
        ledger.expect(id.clone(), end);
        if slow && self.rng.u64(0..=3) == 0 {
            self.count.resent += usize::from(setup.stage.plane.resend(&id));
        }
        if self.rng.u64(0..=5) == 0 {
            let due = Instant::now() + Duration::from_millis(self.rng.u64(0..=4000));
            self.cancels.push(Cancel { due, id, silent: self.rng.u64(0..=2) == 0 });
        }
    }

    fn cancel_due(&mut self, now: Instant, plane: &ControlPlane, ledger: &mut Ledger) {
        for Cancel { id, silent, .. } in self.cancels.extract_if(.., |cancel| cancel.due <= now) {
            // A run that has ended may have been removed. Only this thread removes runs.
            let pending = plane.view(|model| model.run(&id).is_some_and(|run| !run.state.ended()));
            if !pending {
                continue;
            }
            ledger.cancelled(&id);
            if silent {
                plane.cancel_silently(&id);
                self.count.cancelled_silently += 1;
            } else {
                plane.cancel(&id);
                self.count.cancelled += 1;
            }
        }
    }

    /// Returns a random assignment and its expected outcome.
    fn choose(&mut self, setup: &Setup) -> (Value, End) {
        let Setup { stage, broken_sidecar, .. } = setup;
        let millis = [0, 0, 200, 1500, 3000, 12_000][self.rng.usize(0..=5)];
        let millis = self.rng.u64(0..=millis);
        let bytes = [0, 0, 100, 100, 64 << 10, 64 << 10, MIB, 4 * MIB][self.rng.usize(0..=7)];
        let bytes = self.rng.usize(0..=usize::try_from(bytes).expect("it is small"));
        let code = [0, 0, 0, 1, 42, 255][self.rng.usize(0..=5)];
        let mut spec = stage.spec(&script(millis, bytes, code, self.rng.u64(0..=1) == 0));
        let mut end = End::Exit { millis, bytes, code };
        match self.rng.u64(0..=29) {
            0 => {
                spec.docker_image = Some("127.0.0.1:1/oz-soak/none:none".to_owned());
                end = End::Failure("image_pull");
            }
            1 => {
                spec.sidecar_image.clone_from(broken_sidecar);
                end = End::Failure("sidecar_prep");
            }
            2 => end = End::Failure("invalid_assignment"),
            3..=5 => {
                let image = &stage.sidecar_image;
                spec.additional_sidecars =
                    vec![json!({"image": image, "mount_path": "/own", "read_write": true})];
            }
            _ => {}
        }
        let mut data = spec.assignment(&new_id());
        if end == End::Failure("invalid_assignment") {
            data["env_vars"] = json!(7);
        }
        (data, end)
    }
}

/// Returns a script that records its start, sleeps, writes `bytes` of output and exits.
fn script(millis: u64, bytes: usize, code: i64, file: bool) -> String {
    let redirect = if file { "mkdir -p .oz; exec > .oz/agent_output.txt;" } else { "" };
    format!(
        "echo $TASK_ID >> /soak/started; usleep {millis}000; {redirect} yes $TASK_ID | head -c {bytes}; exit {code}"
    )
}
