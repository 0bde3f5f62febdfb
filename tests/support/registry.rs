//! A real registry on 127.0.0.1, which an engine on this machine may use without TLS.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::engine::Engine;
use super::images::tool;
use super::process::Process;

/// The user of a registry that asks for one.
pub const USER: &str = "tester";
/// Its password.
pub const PASSWORD: &str = "registry-password";
/// bcrypt of [`PASSWORD`], made with crypt(3).
const HASH: &str = "$2b$05$abcdefghijklmnopqrstuux7DVfxfgfXTmp/9Tsk6HzX2QQGjxePG";

/// A running registry; dropping it ends it and removes its storage.
pub struct Registry {
    process: Process,
    port: u16,
    auth: bool,
    _folder: TempDir,
}

impl Registry {
    /// One that anybody may read and write.
    pub fn open() -> Self {
        Self::start(false)
    }

    /// One that asks for [`USER`] and [`PASSWORD`].
    pub fn with_password() -> Self {
        Self::start(true)
    }

    fn start(auth: bool) -> Self {
        for _ in 0..5 {
            let folder = tempfile::tempdir().expect("a folder");
            let port = free_port();
            let config = configure(folder.path(), port, auth);
            let process =
                Process::spawn(Command::new(tool("docker-registry")).arg("serve").arg(config), None);
            let ready = |line: &str| line.contains("listening on");
            if process.stderr().find(Duration::from_secs(30), ready).is_some() {
                return Self { process, port, auth, _folder: folder };
            }
            // Somebody else may have taken the port in between.
        }
        panic!("the registry does not start")
    }

    /// `127.0.0.1:port`, the first part of its images' names.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Pushes a local image as `host/repository:tag`; the result is that name. The engine does not keep the name.
    pub fn push(&self, engine: &Engine, image: &str, repository: &str, tag: &str) -> String {
        let full = format!("{}/{repository}", self.host());
        engine.json("POST", &format!("/images/{image}/tag?repo={full}&tag={tag}"), &Value::Null);
        let header = self.auth_header();
        engine
            .progress(&format!("/images/{full}/push?tag={tag}"), &[("X-Registry-Auth", &header)], &[])
            .expect("a push");
        let name = format!("{full}:{tag}");
        engine.remove_image(&name);
        name
    }

    /// The `X-Registry-Auth` header for this registry.
    pub fn auth_header(&self) -> String {
        let auth = if self.auth {
            json!({"username": USER, "password": PASSWORD, "serveraddress": self.host()})
        } else {
            json!({})
        };
        data_encoding::BASE64URL.encode(auth.to_string().as_bytes())
    }

    /// The `auths` object of a `config.json` that has this registry's user.
    pub fn docker_config(&self) -> Value {
        let auth = data_encoding::BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes());
        json!({"auths": {self.host(): {"auth": auth}}})
    }

    /// Whether it asks for a password.
    pub fn asks(&self) -> bool {
        self.auth
    }

    /// Its log so far.
    pub fn log(&self) -> Vec<String> {
        self.process.stderr().all()
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn configure(folder: &Path, port: u16, auth: bool) -> std::path::PathBuf {
    let storage = folder.join("storage");
    let mut config = json!({
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": storage}},
        "http": {"addr": format!("127.0.0.1:{port}")},
    });
    if auth {
        let users = folder.join("users");
        std::fs::write(&users, format!("{USER}:{HASH}\n")).expect("a file");
        config["auth"] = json!({"htpasswd": {"realm": "test", "path": users}});
    }
    let path = folder.join("config.yml");
    // JSON is YAML.
    std::fs::write(&path, config.to_string()).expect("a file");
    path
}
