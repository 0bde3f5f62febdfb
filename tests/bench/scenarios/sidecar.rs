//! Tasks whose sidecar image is new, so that its files are first unpacked into a volume: one task, and ten that need the same image
//! at once. The floor is to read the image's files once by hand.

use crate::bench::Bench;
use crate::figure::Figure;
use crate::session::timed;
use crate::support::control_plane::run::new_id;
use crate::support::images::{AGENT, Images, Layout, RootFs};

/// The content of a sidecar image.
struct Content {
    small_files: usize,
    large_files: usize,
    /// In KiB.
    small: usize,
    large: usize,
}

const SMALL: Content = Content { small_files: 4, large_files: 0, small: 1, large: 0 };
/// 225 MiB in 4,004 files.
const LARGE: Content = Content { small_files: 4000, large_files: 4, small: 8, large: 49_600 };
const MEDIUM: Content = Content { small_files: 500, large_files: 4, small: 8, large: 7_000 };

/// How many tasks need one image at once.
const TASKS: usize = 10;

pub fn measure(bench: &Bench) -> Vec<Figure> {
    let large = bench.pick(LARGE, MEDIUM);
    vec![
        from_nothing(bench, &SMALL, 1, (5, 2)),
        from_nothing(bench, &large, 1, (2, 1)),
        from_nothing(bench, &MEDIUM, TASKS, (3, 1)),
    ]
}

fn from_nothing(bench: &Bench, content: &Content, tasks: usize, (full, quick): (usize, usize)) -> Figure {
    let files = content.small_files + content.large_files;
    let kib = content.small_files * content.small + content.large_files * content.large;
    let for_tasks = if tasks > 1 { format!(", {tasks} tasks") } else { String::new() };
    let mut time = bench.figure(format!("new, {} MiB, {files} files{for_tasks}", kib >> 10), "ms");
    let slots = TASKS.to_string();
    let sessions = bench.start_all(&[("OZ_PULL", "missing"), ("OZ_MAX_CONCURRENT_TASKS", &slots)]);
    for session in &sessions {
        session.run(&bench.spec("true"));
    }
    for _ in bench.rounds(full, quick) {
        for (index, session) in sessions.iter().enumerate() {
            // Each image has other content, so that no earlier volume serves for it.
            let mut images = Images::new(&bench.engine, "oz-bench-new");
            let mut spec = bench.spec("true");
            spec.sidecar_image = images.make("sidecar", content.root_fs(), &[]);
            let floor = timed(|| assert!(bench.hand.export(&spec.sidecar_image) > kib as u64));
            time.add_pair(index, floor, session.run_all(&spec, tasks));
        }
    }
    time
}

impl Content {
    fn root_fs(&self) -> RootFs {
        let root = RootFs::sidecar(Layout::Root, AGENT).file("nonce", 0o644, new_id()).folder("files", 0o755);
        let root = add_files(root, "small", self.small_files, self.small);
        add_files(root, "large", self.large_files, self.large)
    }
}

fn add_files(root: RootFs, name: &str, count: usize, kib: usize) -> RootFs {
    let bytes = vec![b'x'; kib << 10];
    (0..count).fold(root, |root, number| root.file(&format!("files/{name}-{number}"), 0o644, &bytes))
}
