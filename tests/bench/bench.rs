//! What every scenario uses: the engine with its images, the workers, and the time that is left.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::figure::Figure;
use crate::hand::Hand;
use crate::session::{Program, Session};
use crate::support::control_plane::RunSpec;
use crate::support::engine::{Engine, encode};
use crate::support::images::{Images, Layout};
use crate::support::registry::Registry;

/// The surroundings of all scenarios.
pub struct Bench {
    pub engine: Engine,
    pub programs: Vec<Program>,
    /// Whether `BENCH_QUICK` is set.
    pub quick: bool,
    /// Whether all scenarios run.
    pub complete: bool,
    /// The floor of everything that runs a container.
    pub hand: Hand,
    task_image: String,
    sidecar_image: String,
    registry: Registry,
    interrupted: Arc<AtomicBool>,
    /// When the current scenario should end.
    end: Cell<Instant>,
    /// Dropped last: the images that the registry's were made from.
    _images: Images,
}

impl Bench {
    /// Makes the images, pushes them to a registry and pulls them, as a worker does.
    pub fn new(programs: Vec<Program>, [quick, complete]: [bool; 2], interrupted: Arc<AtomicBool>) -> Self {
        let engine = Engine::get();
        let registry = Registry::open();
        let mut images = Images::new(&engine, "oz-bench");
        let (task, sidecar) = (images.task(), images.sidecar(Layout::Root));
        let tag = std::process::id().to_string();
        let task_image = registry.push(&engine, &task, "bench/task", &tag);
        let sidecar_image = registry.push(&engine, &sidecar, "bench/sidecar", &tag);
        for image in [&task_image, &sidecar_image] {
            let (name, tag) = image.rsplit_once(':').expect("a tag");
            let path = format!("/images/create?fromImage={}&tag={tag}", encode(name));
            engine.progress(&path, &[], &[]).expect("a pull");
        }
        let hand = Hand::new(&engine, &task_image);
        Self {
            engine,
            programs,
            quick,
            complete,
            hand,
            task_image,
            sidecar_image,
            registry,
            interrupted,
            end: Cell::new(Instant::now()),
            _images: images,
        }
    }

    /// Sets when the next scenario should end.
    pub fn ends_at(&self, end: Instant) {
        self.end.set(end);
    }

    /// Returns the first or the second value, depending on `BENCH_QUICK`.
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Returns the numbers of the rounds: this many, or fewer if another one, as long as those before, would take more than the
    /// scenario's time, but at least one.
    pub fn rounds(&self, full: usize, quick: usize) -> impl Iterator<Item = usize> {
        let start = Instant::now();
        let each = move |rounds: usize| start.elapsed() / u32::try_from(rounds).expect("few rounds");
        (0..self.pick(full, quick)).take_while(move |round| *round == 0 || self.has_time(each(*round)))
    }

    /// Whether the scenario may use this much more time.
    pub fn has_time(&self, time: Duration) -> bool {
        !self.interrupted.load(Ordering::SeqCst) && Instant::now() + time < self.end.get()
    }

    /// Returns a figure without samples.
    pub fn figure(&self, name: impl Into<String>, unit: &'static str) -> Figure {
        Figure::new(name, unit, self.programs.len())
    }

    /// Starts every worker with these variables.
    pub fn start_all(&self, settings: &[(&str, &str)]) -> Vec<Session> {
        self.programs.iter().map(|program| Session::start(&self.engine, program, settings)).collect()
    }

    /// Returns a run whose agent executes `script` and prints nothing else. Its images are on the engine and in the registry.
    pub fn spec(&self, script: &str) -> RunSpec {
        RunSpec::quiet(&self.task_image, &self.sidecar_image, script)
    }

    /// Returns a run that is claimed and then fails at once: neither the engine nor the registry has its image.
    pub fn failing_spec(&self) -> RunSpec {
        let image = format!("{}/bench/missing:1", self.registry.host());
        RunSpec { docker_image: Some(image), ..self.spec("true") }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.engine.remove_image(&self.task_image);
        self.engine.remove_image(&self.sidecar_image);
    }
}
