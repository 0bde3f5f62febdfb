//! Files and helpers together: which one is used, and the message if one fails.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use data_encoding::{BASE64, BASE64URL};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::sys::cancel::CancelReason;

const HUB: &str = "https://index.docker.io/v1/";

/// A `DOCKER_CONFIG` folder, which also holds the helpers.
struct Lab(TempDir);

impl Lab {
    fn new(config: &Value) -> Self {
        Self::with(config.to_string().as_bytes())
    }

    fn with(config: &[u8]) -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        fs::write(lab.file(), config).unwrap();
        lab
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("config.json")
    }

    /// Adds a helper that returns the user `name` for every registry and records each registry. Written by another process,
    /// see `helper_tests.rs`.
    fn helper(self, name: &str) -> Self {
        let script = format!(
            "#!/bin/sh\n[ -z \"$OZ_API_KEY$WARP_API_KEY$OZ_ENV$OZ_WORKER_ARGS\" ] || exit 9\ncat >>\"$0.asked\"\n\
             echo '{{\"Username\":\"{name}\",\"Secret\":\"MARKER\"}}'\n"
        );
        self.script(name, &script)
    }

    fn script(self, name: &str, script: &str) -> Self {
        let path = self.0.path().join(format!("docker-credential-{name}"));
        let shell = ["-c", "cat >\"$0\" && chmod 755 \"$0\""];
        let mut child = Command::new("/bin/sh").args(shell).arg(path).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        self
    }

    fn asked(&self, name: &str) -> String {
        let path = self.0.path().join(format!("docker-credential-{name}.asked"));
        fs::read_to_string(path).unwrap_or_default()
    }

    fn env(&self) -> RegistryEnv {
        let path = format!("{}:/usr/bin:/bin", self.0.path().display());
        let secrets = ["OZ_API_KEY", "WARP_API_KEY", "OZ_ENV", "OZ_WORKER_ARGS"].map(|name| (name, "MARKER"));
        let variables = [("PATH", path.as_str())].into_iter().chain(secrets);
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        RegistryEnv::new(Some(self.0.path().as_os_str()), Some(OsStr::new("/nonexistent")), variables)
    }

    fn login(&self, host: &str) -> Login {
        self.env().login(&CancelToken::new(), host).unwrap()
    }
}

fn auth(user: &str) -> Value {
    json!({ "auth": BASE64.encode(format!("{user}:MARKER").as_bytes()) })
}

/// Returns the user and the server in the header.
fn sent(login: &Login) -> Option<(String, String)> {
    let header = login.auth.as_ref()?;
    let json: Value = serde_json::from_slice(&BASE64URL.decode(header.expose().as_bytes()).unwrap()).unwrap();
    let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    Some((text("username"), text("serveraddress")))
}

fn pair(user: &str, server: &str) -> Option<(String, String)> {
    Some((user.to_owned(), server.to_owned()))
}

#[test]
fn the_registrys_helper_precedes_the_common_one_and_the_file() {
    let lab = Lab::new(&json!({
        "auths": {"own.io": auth("file"), "other:1": auth("file"), "off.io": auth("file")},
        "credHelpers": {"own.io": "own", "off.io": ""}, "credsStore": "all",
    }))
    .helper("own")
    .helper("all");
    assert_eq!(sent(&lab.login("own.io")), pair("own", "own.io"));
    assert_eq!(sent(&lab.login("other:1")), pair("all", "other:1"));
    assert_eq!(sent(&lab.login("docker.io")), pair("all", HUB));
    assert_eq!(sent(&lab.login("off.io")), pair("file", "off.io"));
    assert_eq!((lab.asked("own"), lab.asked("all")), ("own.io".into(), format!("other:1{HUB}")));
    assert_eq!(lab.login("own.io").origin, "docker-credential-own");
    let lab = Lab::new(&json!({"auths": {HUB: auth("hub")}}));
    let login = lab.login("docker.io");
    assert_eq!(sent(&login), pair("hub", HUB));
    assert_eq!((login.origin, login.warning), (lab.file().display().to_string(), None));
}

#[test]
fn a_helper_without_credentials_ends_the_look_up_and_a_failed_one_does_not() {
    let file = json!({"auths": {"h": auth("file")}, "credsStore": "x"});
    let none = "#!/bin/sh\necho credentials not found in native keychain\nexit 1\n";
    let login = Lab::new(&file).script("x", none).login("h");
    assert_eq!((login.auth.as_ref(), login.warning.as_ref()), (None, None));
    assert_eq!(login.explain("h"), "no credentials for h were found in docker-credential-x");
    let lab = Lab::new(&file);
    let login = lab.login("h");
    assert_eq!(sent(&login), pair("file", "h"));
    assert_eq!(login.explain("h"), format!("h refused the credentials from {}", lab.file().display()));
    let problem = "credential helper docker-credential-x: no such program is on the PATH";
    assert_eq!(login.warning.as_deref(), Some(problem));
    let login = Lab::new(&file).script("x", "#!/bin/sh\necho MARKER\n").login("other");
    assert_eq!(login.auth, None);
    let problem = "credential helper docker-credential-x: its output is not valid credentials";
    assert_eq!(login.explain("other"), format!("cannot get credentials for other: {problem}"));
}

#[test]
fn an_unusable_file_is_a_warning_that_names_it() {
    let cases: [(&[u8], &str); 5] = [
        (b"MARKER", "it is not JSON (line 1, column 1)"),
        (b"{\"auths\":\n[\"MARKER\"]}", "it has an unexpected structure (line 2, column 0)"),
        (b"{\"auths\":{\"h\":{\"auth\":\"MARKER\"}}}", "the entry \"h\" of auths has an invalid auth"),
        (&[b' '; MAX_FILE + 1], "it cannot be read: it is longer than 1048576 bytes"),
        (b"\xff\xfe", "it is not JSON"),
    ];
    for (bytes, expected) in cases {
        let lab = Lab::with(bytes);
        let login = lab.login("h");
        let warning = login.warning.clone().unwrap();
        assert!(warning.starts_with(&format!("{}: {expected}", lab.file().display())), "{warning}");
        assert!(!format!("{login:?} {}", login.explain("h")).contains("MARKER"), "{login:?}");
        assert_eq!((login.auth.as_ref(), warning.lines().count()), (None, 1));
    }
    let mut whole = json!({"auths": {"h": auth("u")}}).to_string();
    whole.push_str(&" ".repeat(MAX_FILE - whole.len()));
    assert_eq!(sent(&Lab::with(whole.as_bytes()).login("h")), pair("u", "h"), "the largest file");
}

#[test]
fn only_a_regular_file_is_read_and_a_missing_one_is_not_an_error() {
    let lab = Lab::new(&json!({}));
    fs::remove_file(lab.file()).unwrap();
    let login = lab.login("h");
    assert_eq!((login.auth.as_ref(), login.warning.as_ref()), (None, None));
    let expected =
        format!("no credentials for h were found in {}, which does not exist", lab.file().display());
    assert_eq!(login.explain("h"), expected);
    assert!(Command::new("mkfifo").arg(lab.file()).status().unwrap().success());
    assert!(
        lab.login("h").warning.unwrap().ends_with("config.json: it cannot be read: it is not a regular file")
    );
    fs::remove_file(lab.file()).unwrap();
    std::os::unix::fs::symlink("config.json", lab.file()).unwrap();
    assert!(lab.login("h").warning.unwrap().contains("config.json: it cannot be read: "));
}

#[test]
fn the_folder_is_docker_config_or_below_home() {
    let folder = |config: Option<&str>, home: Option<&str>| {
        RegistryEnv::new(config.map(OsStr::new), home.map(OsStr::new), []).folder
    };
    assert_eq!(folder(Some("/c"), Some("/h")), Some("/c".into()));
    assert_eq!(folder(Some(""), Some("/h")), Some("/h/.docker".into()));
    assert_eq!(folder(None, Some("/h")), Some("/h/.docker".into()));
    assert_eq!((folder(None, None), folder(None, Some(""))), (None, None));
    let login = RegistryEnv::default().login(&CancelToken::new(), "h").unwrap();
    assert!(login.explain("h").ends_with("neither DOCKER_CONFIG nor HOME is set"), "{login:?}");
}

#[test]
fn the_file_is_read_for_each_look_up() {
    let lab = Lab::new(&json!({"auths": {"h": auth("first")}}));
    let env = lab.env();
    let user = || sent(&env.login(&CancelToken::new(), "h").unwrap());
    assert_eq!(user(), pair("first", "h"));
    fs::write(lab.file(), json!({"auths": {"h": auth("second")}}).to_string()).unwrap();
    assert_eq!(user(), pair("second", "h"));
}

#[test]
fn a_cancelled_look_up_is_an_error_and_debug_hides_secrets() {
    let lab = Lab::new(&json!({"credsStore": "x"})).helper("x");
    let cancel = CancelToken::new();
    cancel.cancel(CancelReason::Requested);
    assert!(lab.env().login(&cancel, "h").unwrap_err().is_cancelled());
    let shown = format!("{:?} {:?}", lab.env(), lab.login("h"));
    assert!(!shown.contains("MARKER") && !shown.contains(&BASE64URL.encode(b"MARKER")), "{shown}");
}
