//! A real registry on 127.0.0.1, which an engine on this machine uses without TLS.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::engine::Engine;
use super::images::{RootFs, tool};
use super::process::Process;

/// The user of a registry with a password.
pub const USER: &str = "tester";
/// Its password.
pub const PASSWORD: &str = "registry-password";
/// bcrypt of [`PASSWORD`], made with crypt(3).
const HASH: &str = "$2b$05$abcdefghijklmnopqrstuux7DVfxfgfXTmp/9Tsk6HzX2QQGjxePG";

/// A running registry; dropping it ends it and removes its data.
pub struct Registry {
    process: Process,
    port: u16,
    auth: bool,
    folder: TempDir,
}

impl Registry {
    /// Starts a registry without a password.
    pub fn open() -> Self {
        Self::start(false)
    }

    /// Starts a registry that requires [`USER`] and [`PASSWORD`].
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
                return Self { process, port, auth, folder };
            }
            // Another process may have taken the port in between.
        }
        panic!("the registry did not start")
    }

    /// Returns `127.0.0.1:port`, the first part of its images' names.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Pushes a local image and returns its name, `host/repository:tag`. The engine does not keep that name.
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

    /// Uploads an image with one layer directly, so that the engine does not have the layer. Returns the digests of its
    /// manifest and of its layer.
    pub fn put(&self, name: &str, root: RootFs, architecture: &str, env: &[&str]) -> (String, String) {
        let (repository, tag) = name.rsplit_once(':').expect("a tag");
        let tar = root.finish();
        let layer = self.put_blob(repository, &tar);
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Env": env},
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        })
        .to_string();
        let media_type = |name: &str| format!("application/vnd.docker.{name}");
        let kind = media_type("distribution.manifest.v2+json");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind,
            "config": {"mediaType": media_type("container.image.v1+json"), "size": config.len(),
                "digest": self.put_blob(repository, config.as_bytes())},
            "layers": [{"mediaType": media_type("image.rootfs.diff.tar.gzip"), "size": tar.len(), "digest": layer}],
        })
        .to_string();
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.request("PUT", &path, &kind, manifest.as_bytes());
        (digest(manifest.as_bytes()), layer)
    }

    fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let head = self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), "text/plain", &[]);
        let location = head.lines().find_map(|line| line.strip_prefix("Location: ")).expect("a location");
        let (_, path) = location.split_once(&self.host()).expect("a location in this registry");
        let digest = digest(bytes);
        self.request("PUT", &format!("{path}&digest={digest}"), "application/octet-stream", bytes);
        digest
    }

    /// Sends a request that must succeed and returns the answer's head.
    fn request(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.host()).expect("the registry");
        let user = data_encoding::BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes());
        let auth = if self.auth { format!("Authorization: Basic {user}\r\n") } else { String::new() };
        let head = format!("{method} {path} HTTP/1.0\r\nHost: {}\r\n{auth}Content-Type: {kind}", self.host());
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n", body.len()).expect("a head goes out");
        stream.write_all(body).expect("a body goes out");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.0 20"), "{method} {path}: {answer}");
        answer.replace('\r', "")
    }

    /// Truncates a blob to half, as a full or broken disk might.
    pub fn break_blob(&self, digest: &str) {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        let blobs = self.folder.path().join("storage/docker/registry/v2/blobs/sha256");
        let path = blobs.join(hex.get(..2).expect("a digest")).join(hex).join("data");
        let half = std::fs::read(&path).expect("a blob").len() / 2;
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(half as u64))
            .expect("a truncated blob");
    }

    /// Waits until a request for this path was answered, and returns how many were so far.
    pub fn answered(&self, method: &str, path: &str) -> usize {
        let (method, path) = (format!("http.request.method={method} "), format!("{path}\""));
        let is_one = |line: &str| {
            line.contains("response completed") && line.contains(&method) && line.contains(&path)
        };
        self.process.stderr().find(Duration::from_secs(30), is_one);
        self.log().iter().filter(|line| is_one(line)).count()
    }

    /// Returns the `X-Registry-Auth` header for this registry.
    pub fn auth_header(&self) -> String {
        let auth = if self.auth {
            json!({"username": USER, "password": PASSWORD, "serveraddress": self.host()})
        } else {
            json!({})
        };
        data_encoding::BASE64URL.encode(auth.to_string().as_bytes())
    }

    /// Returns a `config.json` with the user and password of this registry.
    pub fn docker_config(&self) -> Value {
        let auth = data_encoding::BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes());
        json!({"auths": {self.host(): {"auth": auth}}})
    }

    /// Whether it requires a password.
    pub fn requires_password(&self) -> bool {
        self.auth
    }

    /// Returns its log so far.
    pub fn log(&self) -> Vec<String> {
        self.process.stderr().all()
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&Sha256::digest(bytes)))
}

pub fn free_port() -> u16 {
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
