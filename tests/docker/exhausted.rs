//! A process without file descriptors: that is no failure of the engine.

use std::fs::File;

use oz_agent_worker::docker::{Error, Negotiated, RegistryEnv, Timeouts};
use oz_agent_worker::sys::cancel::CancelToken;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::endpoint_at;
use crate::link::in_own_process;

#[test]
fn a_lack_of_descriptors_is_told_from_an_unreachable_engine() {
    // The limit applies to a whole process.
    in_own_process("docker::exhausted::in_a_process_without_descriptors", &[]);
}

#[test]
#[ignore = "run by the test above in a separate process"]
fn in_a_process_without_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    let registries = RegistryEnv::new(Some(folder.path().as_os_str()), None, []);
    let call = |host: &str| {
        Negotiated::new(&CancelToken::new(), endpoint_at(host), None, Timeouts::default()).unwrap_err()
    };
    let engines = ["unix:///nonexistent/docker.sock", "tcp://127.0.0.1:1", "tcp://localhost:1"];
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).unwrap();
    let files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    for host in engines {
        let error = call(host);
        assert!(error.is_exhausted() && !error.is_unreachable() && !error.is_gone(), "{host}: {error:?}");
        assert!(error.to_string().contains("no file descriptor"), "{error}");
    }
    let login = registries.login(&CancelToken::new(), "registry.example");
    assert!(matches!(login, Err(Error::Exhausted { .. })), "{login:?}");
    drop(files);
    for host in engines {
        assert!(call(host).is_unreachable(), "{host}");
    }
    assert!(registries.login(&CancelToken::new(), "registry.example").is_ok());
}
