//! Images made without a registry: a tar with a root file system is imported into the engine.
//!
//! A task image has only busybox. A sidecar image has files but no program, because nothing may be executed in it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::engine::{Engine, encode};

/// The agent of the tests: prints its arguments, one per line, unless `OZ_TEST_QUIET` is set; then executes
/// `OZ_TEST_SCRIPT` with the arguments as `"$@"`.
pub const AGENT: &str = r#"#!/bin/sh
[ -n "$OZ_TEST_QUIET" ] || printf 'arg: %s\n' "$@"
[ -z "$OZ_TEST_SCRIPT" ] || eval "$OZ_TEST_SCRIPT"
"#;

/// Where a sidecar image has its script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `/entrypoint.sh` in the image.
    Root,
    /// `/agent/entrypoint.sh` in the image, which becomes `/agent/agent/entrypoint.sh` in the task.
    Nested,
    /// No script.
    None,
}

/// A root file system as a tar in memory.
pub struct RootFs(tar::Builder<Vec<u8>>);

/// The images of one test; dropping it removes them.
pub struct Images {
    engine: Engine,
    prefix: String,
    names: Vec<String>,
}

/// Returns the path of a program in `target/tools`, where `tests/support/setup.sh` puts it.
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

    /// Returns the tar.
    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("a tar in memory")
    }

    /// Creates one with busybox under all its names, users, and a `/tmp`.
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

    /// Creates one with an agent's script in one of the layouts, and a few other files.
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
    /// Creates an empty set. The names of its images begin with `prefix` and are unique to it.
    pub fn new(engine: &Engine, prefix: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{prefix}-{}-{count}", std::process::id());
        Self { engine: engine.clone(), prefix, names: Vec::new() }
    }

    /// Makes an image from a root file system and Dockerfile instructions such as `ENV`, and returns its name,
    /// `{prefix}-{name}:test`.
    pub fn make(&mut self, name: &str, root: RootFs, changes: &[&str]) -> String {
        self.import(name, &root.finish(), changes)
    }

    /// As [`Images::make`], from the root file system in a tar.
    pub fn import(&mut self, name: &str, root: &[u8], changes: &[&str]) -> String {
        let repository = format!("{}-{name}", self.prefix);
        let mut path = format!("/images/create?fromSrc=-&repo={repository}:test");
        for change in changes {
            path += &format!("&changes={}", encode(change));
        }
        self.engine.progress(&path, &[("Content-Type", "application/x-tar")], root).expect("an import");
        let image = format!("{repository}:test");
        self.names.push(image.clone());
        image
    }

    /// Makes a task image.
    pub fn task(&mut self) -> String {
        self.make("task", RootFs::busybox(), &["ENV PATH=/bin", "ENV IMAGE=task", "CMD [\"/bin/sh\"]"])
    }

    /// Makes an image that is as `image`, but has this signal as its STOPSIGNAL.
    pub fn stopped_by(&mut self, image: &str, signal: &str) -> String {
        let repository = format!("{}-{}", self.prefix, signal.to_lowercase());
        let spec = json!({"Image": image, "StopSignal": signal});
        let created = self.engine.json("POST", "/containers/create", &spec);
        let id = created["Id"].as_str().expect("an id");
        let path = format!("/commit?container={id}&repo={repository}&tag=test");
        self.engine.json("POST", &path, &Value::Null);
        self.engine.remove_container(id);
        let made = format!("{repository}:test");
        let config = self.engine.json("GET", &format!("/images/{made}/json"), &Value::Null);
        assert_eq!(config["Config"]["StopSignal"], signal);
        self.names.push(made.clone());
        made
    }

    /// Makes a sidecar image with the agent of the tests.
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
