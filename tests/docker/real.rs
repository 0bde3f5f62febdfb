//! The client against the real engine at `OZ_TEST_DOCKER_HOST`.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use oz_agent_worker::docker::{
    ApiVersion, CreateContainer, Docker, Error, HostConfig, LogStream, Method, Mount, Reference, Request,
    RequestTarget, VolumeOptions, Wait,
};
use oz_agent_worker::secret::Secret;
use oz_agent_worker::sys::cancel::{CancelReason, CancelToken};

use super::endpoint_at;
use crate::support::fake_docker::client;
use crate::support::images::tool;
use crate::support::stage::DEADLINE;

const LABEL: &str = "oz-test-run";

/// A client, a busybox image and a label. Everything with the label is removed on drop.
struct Lab {
    docker: Docker,
    cancel: CancelToken,
    run: String,
    image: String,
}

impl Lab {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let docker = connect();
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        let run = format!("{}-{nanos}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let image = format!("oz-test-{run}:busybox");
        let lab = Self { docker, cancel: CancelToken::new(), run, image };
        lab.import();
        lab
    }

    fn import(&self) {
        let (repo, tag) = self.image.split_once(':').unwrap();
        let tar = busybox();
        let target =
            RequestTarget::of("images/create").query("fromSrc", "-").query("repo", repo).query("tag", tag);
        let mut source = tar.as_slice();
        let request =
            Request::post(target.query("changes", "ENV PATH=/bin")).stream("application/x-tar", &mut source);
        let mut answer = self.docker.exchange(&self.cancel, request).unwrap().success().unwrap();
        let mut text = String::new();
        answer.body.read_to_string(&mut text).unwrap();
        assert!(text.contains("sha256:"), "{text}");
    }

    fn name(&self, name: &str) -> String {
        format!("oz-test-{}-{name}", self.run)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(LABEL.to_owned(), self.run.clone())])
    }

    fn shell(&self, script: &str) -> CreateContainer {
        CreateContainer {
            image: self.image.clone(),
            entrypoint: Some(vec!["/bin/sh".to_owned()]),
            cmd: vec![Secret::new("-c"), Secret::new(script)],
            labels: self.labels(),
            ..CreateContainer::default()
        }
    }

    fn create(&self, name: &str, create: &CreateContainer) -> String {
        self.docker.container_create(&self.cancel, &self.name(name), create).unwrap().id
    }

    /// Returns a wait once the engine has told that it waits. It would never end if the container exited before.
    fn wait(&self, cancel: &CancelToken, id: &str) -> Wait {
        let mut wait = self.docker.container_wait(cancel, id).unwrap();
        assert!(wait.begin(DEADLINE).unwrap());
        wait
    }

    fn with_volume(&self, volume: &str) -> CreateContainer {
        let mount = Mount {
            source: volume.to_owned(),
            target: "/agent".to_owned(),
            volume_options: Some(VolumeOptions { no_copy: true, ..VolumeOptions::default() }),
            ..Mount::default()
        };
        let host_config = HostConfig { mounts: vec![mount], ..HostConfig::default() };
        CreateContainer { host_config, ..self.shell("exit 0") }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let docker = &self.docker;
        let cancel = CancelToken::new();
        let label = [(LABEL, self.run.as_str())];
        for container in docker.container_list(&cancel, &label).unwrap_or_default() {
            let _ = docker.container_remove(&cancel, &container.id);
        }
        for volume in docker.volume_list(&cancel, &label).unwrap_or_default() {
            let _ = docker.volume_remove(&cancel, &volume.name);
        }
        if let Ok(image) = RequestTarget::of("images").image(&self.image) {
            let _ = docker.exchange(&cancel, Request::new(Method::Delete, image));
        }
    }
}

fn connect() -> Docker {
    let host = std::env::var("OZ_TEST_DOCKER_HOST").unwrap_or_default();
    assert!(
        !host.is_empty(),
        "OZ_TEST_DOCKER_HOST must name a Docker engine for tests; `make test` starts one"
    );
    client(&CancelToken::new(), endpoint_at(&host), None).unwrap()
}

/// Returns a root file system with busybox and the applets that the tests use, as a tar.
fn busybox() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let program = std::fs::read(tool("busybox")).expect("busybox");
    append(&mut tar, "bin/busybox", &program, 0o755);
    for applet in ["sh", "cat", "echo", "sleep", "true"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    append(&mut tar, "agent/entrypoint.sh", b"echo hello\n", 0o644);
    tar.into_inner().unwrap()
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, data: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, path, data).unwrap();
}

fn files(body: impl Read) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(body).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        files.insert(path, data);
    }
    files
}

#[test]
fn the_engine_reports_its_properties() {
    let docker = connect();
    let engine = docker.engine();
    assert!(engine.api_version >= ApiVersion::MIN && engine.api_version <= ApiVersion::MAX);
    assert_eq!(engine.os, "linux");
    assert!(["amd64", "arm64"].contains(&engine.arch.as_str()), "{engine:?}");
    assert!(engine.cpus > 0 && !engine.version.is_empty(), "{engine:?}");
    assert_eq!(docker.address(), std::env::var("OZ_TEST_DOCKER_HOST").unwrap());
}

#[test]
fn a_container_is_created_run_and_removed() {
    let lab = Lab::new();
    let docker = &lab.docker;
    let cancel = &lab.cancel;
    let image = docker.image_inspect(cancel, &lab.image).unwrap();
    assert_eq!((image.os.as_str(), image.architecture.as_str()), ("linux", docker.engine().arch.as_str()));

    let mut create = lab.shell("echo out $K; echo err >&2; mkdir -p /w; echo -n said > /w/f; exit 7");
    create.env = vec![Secret::new("K=v w")];
    create.host_config.memory = Some(64 << 20);
    create.host_config.memory_swap = Some(64 << 20);
    let id = lab.create("walk", &create);
    let found = docker.container_inspect(cancel, &id).unwrap();
    assert_eq!(found.name, lab.name("walk"));
    let target = RequestTarget::of("containers").segment(&id).unwrap().then("json");
    let raw: serde_json::Value = docker.exchange(cancel, Request::get(target)).unwrap().json().unwrap();
    assert_eq!(raw["Config"]["Image"].as_str(), Some(lab.image.as_str()));
    assert_eq!((found.labels, found.state.status.as_str()), (lab.labels(), "created"));
    assert!(found.state.started_at.starts_with("0001-01-01T00:00:00"), "{}", found.state.started_at);

    let wait = lab.wait(cancel, &id);
    docker.container_start(cancel, &id).unwrap();
    assert_eq!(wait.join().unwrap(), 7);
    docker.container_stop(cancel, &id, Duration::from_secs(1)).unwrap();
    let state = docker.container_inspect(cancel, &id).unwrap().state;
    assert_eq!((state.status.as_str(), state.exit_code, state.running), ("exited", 7, false));

    let mut out = Vec::new();
    let mut err = Vec::new();
    let mut sink = |stream, bytes: &[u8]| match stream {
        LogStream::Stdout => out.extend_from_slice(bytes),
        _ => err.extend_from_slice(bytes),
    };
    let mut log = docker.send_logs(cancel, &id, Duration::MAX).unwrap().finish().unwrap();
    while log.read_some(cancel, &mut sink).unwrap() {}
    assert_eq!((out.as_slice(), err.as_slice()), (b"out v w\n".as_slice(), b"err\n".as_slice()));

    let listed = docker.container_list(cancel, &[(LABEL, &lab.run)]).unwrap();
    assert_eq!(listed.iter().map(|found| found.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    let got = docker.send_archive_get(cancel, &id, "/w/f").unwrap().finish().unwrap().unwrap();
    assert_eq!(files(got.body)["f"], b"said");
    docker.container_remove(cancel, &id).unwrap();
    docker.container_remove(cancel, &id).unwrap();
    assert!(docker.container_inspect(cancel, &id).unwrap_err().is_not_found());
}

#[test]
fn a_volume_is_filled_from_an_image_without_starting_a_container() {
    let lab = Lab::new();
    let docker = &lab.docker;
    let cancel = &lab.cancel;
    let volume = lab.name("volume");
    docker.volume_create(cancel, &volume, &lab.labels()).unwrap();
    let sidecar = lab.create("sidecar", &lab.shell("exit 0"));
    let helper = lab.create("helper", &lab.with_volume(&volume));
    assert_eq!(docker.archive_stat(cancel, &helper, "/agent/bin/busybox").unwrap(), None);
    let mut export = docker.container_export(cancel, &sidecar).unwrap();
    docker.archive_put(cancel, &helper, "/agent", &mut export).unwrap();

    let other = lab.create("other", &lab.with_volume(&volume));
    let stat = docker.archive_stat(cancel, &other, "/agent/bin/busybox").unwrap().unwrap();
    assert!(stat.is_file() && !stat.is_link());
    let program =
        docker.send_archive_get(cancel, &other, "/agent/bin/busybox").unwrap().finish().unwrap().unwrap();
    assert!(files(program.body)["busybox"] == std::fs::read(tool("busybox")).unwrap());
    let folder = docker.archive_stat(cancel, &other, "/agent/agent").unwrap().unwrap();
    assert!(!folder.is_file() && !folder.is_link(), "{folder:?}");
    let link = docker.archive_stat(cancel, &other, "/agent/bin/sh").unwrap().unwrap();
    assert!(!link.is_file() && link.is_link(), "{link:?}");
    assert_eq!(link.link_target, "/agent/bin/busybox");
    let link = docker.send_archive_get(cancel, &other, "/agent/bin/sh").unwrap().finish().unwrap().unwrap();
    let mut archive = tar::Archive::new(link.body);
    let link = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(link.header().entry_type(), tar::EntryType::Symlink);
    assert_eq!(link.link_name().unwrap().as_deref(), Some(std::path::Path::new("busybox")));
    let got = docker.send_archive_get(cancel, &other, "/agent/agent").unwrap().finish().unwrap().unwrap();
    assert_eq!(files(got.body)["agent/entrypoint.sh"], b"echo hello\n");

    let listed = docker.volume_list(cancel, &[(LABEL, &lab.run)]).unwrap();
    assert_eq!(listed.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), [volume.as_str()]);
    assert!(docker.volume_remove(cancel, &volume).unwrap_err().is_conflict());
    docker.container_remove(cancel, &helper).unwrap();
    docker.container_remove(cancel, &other).unwrap();
    docker.volume_remove(cancel, &volume).unwrap();
    docker.volume_remove(cancel, &volume).unwrap();
}

#[test]
fn a_wait_returns_when_the_container_is_stopped() {
    let lab = Lab::new();
    let docker = &lab.docker;
    let cancel = &lab.cancel;
    let mut create = lab.shell("trap 'exit 3' TERM; echo ready; while true; do sleep 0.1; done");
    // As the image of a container that an earlier version of the worker has created may say.
    create.stop_signal = Some("SIGKILL".to_owned());
    let id = lab.create("stop", &create);
    let wait = lab.wait(cancel, &id);
    docker.container_start(cancel, &id).unwrap();
    docker.container_start(cancel, &id).unwrap();
    assert!(docker.container_inspect(cancel, &id).unwrap().state.running);
    // Before it has a handler, process 1 of a container ignores TERM.
    let mut log = Vec::new();
    while log != b"ready\n" {
        log.clear();
        let mut answer = docker.send_logs(cancel, &id, Duration::MAX).unwrap().finish().unwrap();
        while answer.read_some(cancel, &mut |_, bytes| log.extend_from_slice(bytes)).unwrap() {}
    }
    docker.container_stop(cancel, &id, Duration::from_secs(30)).unwrap();
    assert_eq!(wait.join().unwrap(), 3);
}

#[test]
fn a_running_container_can_be_renamed_but_not_removed_without_force() {
    let lab = Lab::new();
    let docker = &lab.docker;
    let cancel = &lab.cancel;
    let id = lab.create("first", &lab.shell("sleep 600"));
    let other = lab.create("other", &lab.shell(""));
    docker.container_start(cancel, &id).unwrap();
    docker.container_rename(cancel, &id, &lab.name("second")).unwrap();
    let found = docker.container_inspect(cancel, &lab.name("second")).unwrap();
    assert_eq!((found.id, found.state.running), (id.clone(), true));
    assert!(docker.container_inspect(cancel, &lab.name("first")).unwrap_err().is_not_found());
    assert!(docker.container_rename(cancel, &other, &lab.name("second")).unwrap_err().is_conflict());
    assert!(docker.container_remove_idle(cancel, &id).unwrap_err().is_conflict());
    for _ in 0..2 {
        docker.container_remove_idle(cancel, &other).unwrap();
    }
    assert!(docker.container_inspect(cancel, &other).unwrap_err().is_not_found());
    assert!(docker.container_inspect(cancel, &id).unwrap().state.running);
}

#[test]
fn a_cancel_ends_a_wait_for_a_running_container() {
    let lab = Lab::new();
    let id = lab.create("cancel", &lab.shell("sleep 600"));
    let token = CancelToken::new();
    let wait = lab.wait(&token, &id);
    lab.docker.container_start(&lab.cancel, &id).unwrap();
    let waiter = std::thread::spawn(move || wait.join());
    token.cancel(CancelReason::Requested);
    assert!(waiter.join().unwrap().unwrap_err().is_cancelled());
    lab.docker.container_remove(&lab.cancel, &id).unwrap();
}

#[test]
fn missing_objects_and_taken_names_have_their_own_errors() {
    let lab = Lab::new();
    let docker = &lab.docker;
    let cancel = &lab.cancel;
    assert!(docker.image_inspect(cancel, "no-such-image:x").unwrap_err().is_not_found());
    let missing = CreateContainer { image: "no-such-image:x".to_owned(), ..lab.shell("") };
    assert!(docker.container_create(cancel, &lab.name("a"), &missing).unwrap_err().is_not_found());
    let id = lab.create("taken", &lab.shell("exit 0"));
    assert!(docker.container_create(cancel, &lab.name("taken"), &lab.shell("")).unwrap_err().is_conflict());
    assert_eq!(docker.archive_stat(cancel, &id, "/no/such").unwrap(), None);
    assert!(docker.send_archive_get(cancel, &id, "/no/such").unwrap().finish().unwrap().is_none());
    assert!(docker.archive_stat(cancel, "no-such-container", "/").unwrap_err().is_not_found());
    let error = docker.archive_put(cancel, &id, "/no/such", &mut io::empty()).unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[test]
fn a_variable_quoted_by_the_engine_is_masked() {
    let lab = Lab::new();
    let create = CreateContainer { env: vec![Secret::new("=hunter2")], ..lab.shell("") };
    let error = lab.docker.container_create(&lab.cancel, &lab.name("env"), &create).unwrap_err();
    assert!(matches!(&error, Error::Engine { status: 400, .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn a_failed_pull_is_an_error() {
    let lab = Lab::new();
    let image = Reference::parse("127.0.0.1:1/no/such:x").unwrap();
    let tick = Duration::from_millis(100);
    let error = lab.docker.image_pull(&lab.cancel, &image, None, None, tick, &mut |_| {}).unwrap_err();
    assert!(
        matches!(&error, Error::Engine { message, .. } | Error::Pull { message } if message.contains("refused")),
        "{error:?}"
    );
}

#[test]
fn a_failed_upload_returns_the_error_of_its_source() {
    struct Failing(bool);
    impl Read for Failing {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                return Err(io::Error::other("the disk is gone"));
            }
            let mut header = tar::Header::new_gnu();
            header.set_path("half").unwrap();
            header.set_size(1 << 20);
            header.set_mode(0o644);
            header.set_cksum();
            buf[..512].copy_from_slice(header.as_bytes());
            Ok(512)
        }
    }
    let lab = Lab::new();
    let id = lab.create("cut", &lab.shell("exit 0"));
    let error = lab.docker.archive_put(&lab.cancel, &id, "/", &mut Failing(false)).unwrap_err();
    assert!(
        matches!(&error, Error::Upload { source } if source.to_string() == "the disk is gone"),
        "{error:?}"
    );
}

#[test]
fn a_pinned_version_is_used_unless_it_is_too_old() {
    let endpoint = endpoint_at(&std::env::var("OZ_TEST_DOCKER_HOST").unwrap());
    let connect = |minor| {
        let pin = ApiVersion { major: 1, minor };
        client(&CancelToken::new(), endpoint.clone(), Some(pin))
    };
    assert_eq!(connect(41).unwrap().engine().api_version, ApiVersion::MIN);
    assert!(matches!(connect(40), Err(Error::TooOld { .. })));
    let error = connect(999).unwrap_err();
    assert!(matches!(&error, Error::Engine { status: 400, .. }), "{error:?}");
}
