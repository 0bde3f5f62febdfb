//! The tasks: random ones, some of them cancelled, sent twice or wrong on purpose.
//!
//! Owns what is asked for, and when. What comes of it is for the ledger.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Until;
use crate::ledger::{End, Ledger};
use crate::stage::{SLOTS, Stage};
use crate::support::control_plane::{RunSpec, World};
use crate::support::dice::Dice;

/// So many runs are under way at the most: those that run, and a few in the backlog.
const AT_ONCE: usize = 12;

/// Long enough for all of them to run at the same time.
const WARM_UP_MILLIS: u64 = 5000;

const MIB: u64 = 1 << 20;

/// Chooses and submits, and counts what it has chosen.
pub struct Tasks {
    dice: Dice,
    /// The runs that are to be cancelled, and whether the worker is told.
    cancels: Vec<(Instant, String, bool)>,
    pub count: Count,
}

#[derive(Debug, Default)]
pub struct Count {
    pub tasks: usize,
    pub repeated: usize,
    pub cancelled: usize,
    pub cancelled_unheard: usize,
}

fn under_way(world: &World) -> usize {
    world.runs.iter().filter(|run| !run.state.ended()).count()
}

impl Tasks {
    pub fn new(dice: &mut Dice) -> Self {
        Self { dice: dice.split(), cancels: Vec::new(), count: Count::default() }
    }

    /// Has all slots report the largest output at the same time, once from each place that it is read from. An allocator keeps
    /// what such a burst has taken; from here on there is nothing that could need more.
    pub fn warm_up(&mut self, stage: &Stage, ledger: &mut Ledger) -> Result<(), String> {
        let bytes = usize::try_from(4 * MIB).expect("it is small");
        for file in [false, true] {
            for _ in 0..SLOTS {
                let spec = spec(stage, &script(WARM_UP_MILLIS, bytes, 0, file));
                ledger.expect(stage.plane.submit(spec), End::Exit { millis: WARM_UP_MILLIS, bytes, code: 0 });
                self.count.tasks += 1;
            }
            stage.wait_idle()?;
            ledger.settle(&stage.plane);
        }
        Ok(())
    }

    /// Submits one after the other, as many as there is room for.
    pub fn submit(&mut self, until: &Until<'_>, stage: &Stage, ledger: &mut Ledger) {
        while !until.over() {
            if stage.plane.holds_within(Duration::from_millis(50), |world| under_way(world) < AT_ONCE) {
                self.submit_one(stage, ledger);
            }
            self.cancel(Instant::now(), stage, ledger);
            ledger.settle(&stage.plane);
        }
        // Those that were chosen for a time that does not come.
        self.cancel(Instant::now() + Duration::from_secs(3600), stage, ledger);
    }

    fn submit_one(&mut self, stage: &Stage, ledger: &mut Ledger) {
        let (data, end) = self.choose(stage);
        let Some(id) = stage.plane.submit_raw(data) else { return };
        self.count.tasks += 1;
        // Only what takes a while: a run that has ended is not sent again by any control plane.
        let slow = matches!(end, End::Exit { millis: 1000.., .. });
        ledger.expect(id.clone(), end);
        if slow && self.dice.within(0..=3) == 0 {
            self.count.repeated += usize::from(stage.plane.repeat(&id));
        }
        if self.dice.within(0..=5) == 0 {
            let due = Instant::now() + Duration::from_millis(self.dice.within(0..=4000));
            self.cancels.push((due, id, self.dice.within(0..=2) > 0));
        }
    }

    fn cancel(&mut self, now: Instant, stage: &Stage, ledger: &mut Ledger) {
        for (_, id, heard) in self.cancels.extract_if(.., |(due, ..)| *due <= now) {
            // One that has ended meanwhile may be forgotten already.
            let goes_on = stage.plane.view(|world| world.run(&id).is_some_and(|run| !run.state.ended()));
            if !goes_on {
                continue;
            }
            ledger.cancelled(&id);
            // Nobody but this thread makes the control plane forget a run.
            if heard {
                stage.plane.cancel(&id);
                self.count.cancelled += 1;
            } else {
                stage.plane.cancel_unheard(&id);
                self.count.cancelled_unheard += 1;
            }
        }
    }

    /// An assignment and what must come of it.
    fn choose(&mut self, stage: &Stage) -> (Value, End) {
        let millis = [0, 0, 200, 1500, 3000, 12_000][self.dice.size(0..=5)];
        let millis = self.dice.within(0..=millis);
        let bytes = [0, 0, 100, 100, 64 << 10, 64 << 10, MIB, 4 * MIB][self.dice.size(0..=7)];
        let bytes = self.dice.size(0..=usize::try_from(bytes).expect("it is small"));
        let code = [0, 0, 0, 1, 42, 255][self.dice.size(0..=5)];
        let mut spec = spec(stage, &script(millis, bytes, code, self.dice.within(0..=1) == 0));
        let mut end = End::Exit { millis, bytes, code };
        match self.dice.within(0..=29) {
            0 => {
                spec.docker_image = Some("127.0.0.1:1/oz-soak/none:none".to_owned());
                end = End::Failure("image_pull");
            }
            1 => {
                spec.sidecar_image.clone_from(&stage.sidecar_images[1]);
                end = End::Failure("sidecar_prep");
            }
            2 => end = End::Failure("invalid_assignment"),
            3..=5 => {
                let [image, _] = &stage.sidecar_images;
                spec.additional_sidecars =
                    vec![json!({"image": image, "mount_path": "/own", "read_write": true})];
            }
            _ => {}
        }
        let mut data = spec.assignment(&crate::support::control_plane::run::new_id());
        if end == End::Failure("invalid_assignment") {
            data["env_vars"] = json!(7);
        }
        (data, end)
    }
}

/// Tells of its start, takes its time, says its own id as often as fits into so many bytes, and exits.
fn script(millis: u64, bytes: usize, code: i64, file: bool) -> String {
    let into = if file { "mkdir -p .oz; exec > .oz/agent_output.txt;" } else { "" };
    format!(
        "echo $TASK_ID >> /soak/started; usleep {millis}000; {into} yes $TASK_ID | head -c {bytes}; exit {code}"
    )
}

fn spec(stage: &Stage, script: &str) -> RunSpec {
    let env = [("OZ_TEST_QUIET", "1"), ("OZ_TEST_SCRIPT", script)];
    RunSpec {
        docker_image: Some(stage.task_image.clone()),
        sidecar_image: stage.sidecar_images[0].clone(),
        env_vars: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..RunSpec::default()
    }
}
