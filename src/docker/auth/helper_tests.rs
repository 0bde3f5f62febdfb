//! Helpers as shell scripts, working and failing ones.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::secret::Secret;
use crate::sys::cancel::CancelReason;

/// Longer than a script takes on a busy machine; also the longest time that a test waits.
const LONG: Duration = Duration::from_secs(60);
/// Deadlines for helpers that never exit. The next one is used if the script has not come far enough.
const SHORT: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(5), LONG];

/// A folder with one helper, `docker-credential-test`.
struct Lab {
    folder: TempDir,
    variables: Vec<(OsString, OsString)>,
}

impl Lab {
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lab = Self { variables: variables(folder.path()), folder };
        lab.install("docker-credential-test", script);
        lab
    }

    /// Writes a script from another process. If this process wrote it, a child of another test could inherit the open file,
    /// and running the script would fail with "text file busy".
    fn install(&self, name: &str, script: &str) {
        let path = self.folder.path().join(name);
        let shell = ["-c", "cat >\"$0\" && chmod 755 \"$0\""];
        let mut child = Command::new("/bin/sh").args(shell).arg(path).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn get(&self) -> Result<Option<Credential>, HelperError> {
        self.within(LONG, &CancelToken::new())
    }

    fn within(&self, deadline: Duration, cancel: &CancelToken) -> Result<Option<Credential>, HelperError> {
        let helper = CredentialHelper { deadline, ..CredentialHelper::new("test", &self.variables) };
        helper.get("registry.example:5000", cancel)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap()
    }

    /// Returns whether the process whose id is in `file` exists, even as a zombie.
    fn runs(&self, file: &str) -> bool {
        Path::new("/proc").join(self.read(file).trim()).exists()
    }

    /// Waits until init has reaped a killed grandchild.
    fn wait_gone(&self, file: &str) {
        let end = Instant::now() + LONG;
        let status = || fs::read_to_string(Path::new("/proc").join(self.read(file).trim()).join("stat"));
        // Where nothing reaps orphans, they stay as zombies.
        while status().is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < end, "still there: {:?}", status());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn variables(folder: &Path) -> Vec<(OsString, OsString)> {
    let path = format!("relative::{}:/usr/bin:/bin", folder.display());
    vec![("PATH".into(), path.into()), ("DIR".into(), folder.into()), ("AWS_PROFILE".into(), "me".into())]
}

fn message(result: Result<Option<Credential>, HelperError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_helper_gets_the_registry_and_its_environment_and_returns_credentials() {
    let lab = Lab::new(
        "cat >\"$DIR/asked\"; echo \"$# $1\" >\"$DIR/args\"; env >\"$DIR/env\"; echo noise >&2
         printf '{\"ServerURL\":\"x\",\"Username\":\"u\",\"Secret\":\"p\"}\\n'",
    );
    let found = lab.get().unwrap().unwrap();
    assert_eq!((found.username.as_str(), found.password.expose()), ("u", "p"));
    assert_eq!((lab.read("asked").as_str(), lab.read("args").as_str()), ("registry.example:5000", "1 get\n"));
    let environment = lab.read("env");
    assert!(environment.lines().any(|line| line == "AWS_PROFILE=me"), "{environment}");
    assert!(!environment.contains("CARGO"), "a variable of the worker: {environment}");
}

#[test]
fn a_token_is_an_identity_token() {
    let lab = Lab::new("echo '{\"Username\":\"<token>\",\"Secret\":\"t\"}'");
    let expected = Credential { identity_token: Secret::new("t"), ..Credential::default() };
    assert_eq!(lab.get().unwrap(), Some(expected));
}

#[test]
fn a_helper_without_credentials_is_not_an_error() {
    for script in [
        "echo credentials not found in native keychain; exit 1",
        "echo 'credentials not found' ; exit 3",
        "echo '{\"Username\":\"\",\"Secret\":\"\"}'",
    ] {
        assert_eq!(Lab::new(script).get().unwrap(), None, "{script}");
    }
}

#[test]
fn a_failing_helper_is_not_quoted() {
    let cases = [
        ("echo MARKER; echo MARKER >&2; exit 7", "it failed (exit status: 7)"),
        ("echo '{\"Username\":\"u\",\"Secret\":\"MARKER\"}'; exit 1", "it failed (exit status: 1)"),
        ("kill -9 $$", "it failed (signal: 9 (SIGKILL))"),
        ("echo MARKER", "its output is not valid credentials"),
        ("echo '{\"Username\":[\"MARKER\"]}'", "its output is not valid credentials"),
        ("printf '\\377\\376\\000'", "its output is not valid credentials"),
        ("", "its output is not valid credentials"),
        ("exec <&- >&-; exit 0", "its output is not valid credentials"),
    ];
    for (script, expected) in cases {
        assert_eq!(message(Lab::new(script).get()), expected, "{script}");
    }
}

#[test]
fn output_is_bounded() {
    let most =
        "printf '{\"Username\":\"u\",\"Secret\":\"'; head -c 65508 /dev/zero | tr '\\0' x; printf '\"}'";
    let found = Lab::new(most).get().unwrap().unwrap();
    assert_eq!(found.password.expose().len(), 65508, "exactly 64 KiB");
    assert_eq!(
        message(Lab::new(&format!("{most}; echo")).get()),
        "it printed more than 65536 bytes and was killed"
    );
    let lab = Lab::new("echo $$ >\"$DIR/pid\"; head -c 1073741824 /dev/zero; echo >\"$DIR/finished\"");
    assert_eq!(message(lab.get()), "it printed more than 65536 bytes and was killed");
    assert!(!lab.runs("pid"), "neither a process nor a zombie");
    assert!(!lab.folder.path().join("finished").exists());
}

#[test]
fn a_hung_helper_is_killed_with_its_children() {
    let scripts = [
        // The child keeps stdout open.
        "sleep 1000 & echo $! >\"$DIR/child\"; echo $$ >\"$DIR/pid\"; wait",
        // No process has stdout open, but the helper does not exit.
        "sleep 1000 >&- & echo $! >\"$DIR/child\"; echo $$ >\"$DIR/pid\"; exec >&-; wait",
        "trap '' TERM INT HUP; sleep 1000 & echo $! >\"$DIR/child\"; echo $$ >\"$DIR/pid\"; while :; do wait; done",
    ];
    for script in scripts {
        let lab = Lab::new(script);
        for deadline in SHORT {
            let expected = format!("it did not exit within {deadline:?} and was killed");
            assert_eq!(message(lab.within(deadline, &CancelToken::new())), expected, "{script}");
            if fs::read_to_string(lab.folder.path().join("pid")).is_ok_and(|pid| pid.ends_with('\n')) {
                break;
            }
        }
        assert!(!lab.runs("pid"), "neither a process nor a zombie: {script}");
        lab.wait_gone("child");
    }
}

#[test]
fn a_cancel_kills_the_helper() {
    for script in [
        "echo $$ >\"$DIR/pid\"; mkfifo \"$DIR/up\"; : >\"$DIR/up\"; sleep 1000",
        "echo $$ >\"$DIR/pid\"; mkfifo \"$DIR/up\"; exec >&-; : >\"$DIR/up\"; sleep 1000",
    ] {
        let lab = Lab::new(script);
        let cancel = CancelToken::new();
        std::thread::scope(|scope| {
            let helper = scope.spawn(|| lab.within(LONG * 10, &cancel));
            let up = lab.folder.path().join("up");
            while !up.exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            // Blocks until the script opens the pipe.
            drop(fs::File::open(up).unwrap());
            cancel.cancel(CancelReason::Requested);
            assert!(matches!(helper.join().unwrap(), Err(HelperError::Cancelled)));
        });
        assert!(!lab.runs("pid"), "neither a process nor a zombie");
        assert!(matches!(lab.within(LONG, &cancel), Err(HelperError::Cancelled)), "cancelled before");
    }
}

#[test]
fn helpers_are_found_on_the_path_only() {
    let lab = Lab::new("echo '{\"Username\":\"u\",\"Secret\":\"p\"}'");
    fs::create_dir(lab.folder.path().join("docker-credential-folder")).unwrap();
    fs::write(lab.folder.path().join("docker-credential-data"), "x").unwrap();
    let cancel = CancelToken::new();
    let get = |name: &str| CredentialHelper::new(name, &lab.variables).get("h", &cancel);
    for name in ["absent", "folder", "data"] {
        assert!(matches!(get(name), Err(HelperError::Missing)), "{name}");
    }
    let long = "x".repeat(MAX_NAME + 1);
    for name in ["", "/bin/sh", "../test", "x/../test", "a\0b", "a\nb", &long] {
        assert!(matches!(get(name), Err(HelperError::Name)), "{name:?}");
    }
    assert!(get("test").unwrap().is_some());
    assert!(matches!(CredentialHelper::new("test", &[]).get("h", &cancel), Err(HelperError::Missing)));
    lab.install("docker-credential-bad", "");
    let path = lab.folder.path().join("docker-credential-bad");
    fs::write(&path, "#!/nonexistent/interpreter\n").unwrap();
    assert!(matches!(get("bad"), Err(HelperError::Run(_))));
}
