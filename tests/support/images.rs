//! Images made on the spot, without a registry: a tar with a root file system, imported into the engine.
//!
//! A task image has busybox and no more; a sidecar image has files and no program at all, as nothing may be run in one.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::engine::{Engine, encode};

/// The agent of the tests: shows its arguments one a line (not when `OZ_TEST_QUIET` is set), then does what
/// `OZ_TEST_SCRIPT` says, with the arguments as `"$@"`.
pub const AGENT: &str = r#"#!/bin/sh
[ -n "$OZ_TEST_QUIET" ] || printf 'arg: %s\n' "$@"
[ -z "$OZ_TEST_SCRIPT" ] || eval "$OZ_TEST_SCRIPT"
"#;

/// Where a sidecar image carries its script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `/entrypoint.sh` in the image.
    Root,
    /// `/agent/entrypoint.sh` in the image, so that it lands at `/agent/agent/entrypoint.sh`.
    Nested,
    /// No script at all.
    None,
}

/// A root file system that is being put together.
pub struct RootFs(tar::Builder<Vec<u8>>);

/// Images of one test, removed when it is dropped.
pub struct Images {
    engine: Engine,
    prefix: String,
    names: Vec<String>,
}

/// Something in `target/tools`, put there by `tests/support/setup.sh`.
pub fn tool(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(name);
    assert!(path.exists(), "{} is missing: run `make setup`", path.display());
    path
}

impl Default for RootFs {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl RootFs {
    fn add(mut self, path: &str, mode: u32, kind: tar::EntryType, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, path, content).expect("a tar in memory");
        self
    }

    /// Adds a file.
    pub fn file(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        self.add(path, mode, tar::EntryType::Regular, content.as_ref())
    }

    /// Adds a folder.
    pub fn folder(self, path: &str, mode: u32) -> Self {
        self.add(path, mode, tar::EntryType::Directory, &[])
    }

    /// Adds a symbolic link.
    pub fn link(mut self, path: &str, target: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        self.0.append_link(&mut header, path, target).expect("a tar in memory");
        self
    }

    /// The tar.
    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("a tar in memory")
    }

    /// busybox under all its names, users, and a `/tmp`.
    pub fn busybox() -> Self {
        let path = tool("busybox");
        let list = Command::new(&path).arg("--list").output().expect("busybox runs").stdout;
        let list = String::from_utf8(list).expect("names");
        let program = std::fs::read(&path).expect("busybox");
        let root = Self::default().folder("bin", 0o755).file("bin/busybox", 0o755, program);
        let names = list.lines().filter(|name| *name != "busybox");
        let root = names.fold(root, |root, name| root.link(&format!("bin/{name}"), "busybox"));
        root.folder("tmp", 0o1777)
            .folder("etc", 0o755)
            .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
            .file("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n")
            .folder("root", 0o700)
    }

    /// An agent's script in one of the layouts, with a few files beside it.
    pub fn sidecar(layout: Layout, script: &str) -> Self {
        let root = Self::default()
            .folder("lib", 0o755)
            .file("lib/data.txt", 0o644, "data\n")
            .file("lib/tool", 0o755, "#!/bin/sh\necho tool\n")
            .link("lib/link", "data.txt")
            .folder("empty", 0o700);
        match layout {
            Layout::Root => root.file("entrypoint.sh", 0o755, script),
            Layout::Nested => root.folder("agent", 0o755).file("agent/entrypoint.sh", 0o755, script),
            Layout::None => root,
        }
    }
}

impl Images {
    /// None yet. Names begin with `prefix` and are new for each call.
    pub fn new(engine: &Engine, prefix: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{prefix}-{}-{count}", std::process::id());
        Self { engine: engine.clone(), prefix, names: Vec::new() }
    }

    /// Makes `{prefix}-{name}:test` of a root file system and, if any, Dockerfile instructions (`ENV`, `CMD`,
    /// `ENTRYPOINT` and the like); the result is the image's name.
    pub fn make(&mut self, name: &str, root: RootFs, changes: &[&str]) -> String {
        let repository = format!("{}-{name}", self.prefix);
        let mut path = format!("/images/create?fromSrc=-&repo={repository}:test");
        for change in changes {
            path += &format!("&changes={}", encode(change));
        }
        self.engine
            .progress(&path, &[("Content-Type", "application/x-tar")], &root.finish())
            .expect("an import");
        let image = format!("{repository}:test");
        self.names.push(image.clone());
        image
    }

    /// A task image.
    pub fn task(&mut self) -> String {
        self.make("task", RootFs::busybox(), &["ENV PATH=/bin", "ENV IMAGE=task", "CMD [\"/bin/sh\"]"])
    }

    /// A sidecar image with the agent of the tests.
    pub fn sidecar(&mut self, layout: Layout) -> String {
        let name = format!("sidecar-{}", format!("{layout:?}").to_lowercase());
        self.make(&name, RootFs::sidecar(layout, AGENT), &[])
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        for name in &self.names {
            self.engine.remove_image(name);
        }
    }
}
