//! The texts that the binary prints, compared with each other and read by the programs that use them.

mod environment;
mod man;
mod parse;
mod readme;
mod sets;
mod shells;

use std::process::Command;
use std::time::Duration;

use crate::support::process::Process;
use crate::support::worker::binary;

/// The time limit of a program; far more than it needs on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The output of the binary with these arguments and an empty environment.
fn printed(args: &[&str]) -> String {
    let output = Command::new(binary()).args(args).env_clear().output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn page(word: &str) -> String {
    printed(&["--print", word])
}

/// A folder with a page in a file, and the path of the file.
fn page_file(word: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page");
    std::fs::write(&path, page(word)).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

/// Runs a program that must succeed and write nothing to stderr. Returns its stdout.
fn quietly(command: &mut Command) -> String {
    let mut process = Process::spawn(command.env("LC_ALL", "C.UTF-8"), None);
    let status = process.wait_exit(DEADLINE);
    let complaints = process.stderr().all().join("\n");
    assert!(status.success() && complaints.is_empty(), "{command:?}: {status}: {complaints}");
    process.stdout().all().join("\n")
}

#[test]
fn a_page_needs_no_other_setting_and_goes_to_stdout() {
    for word in ["man", "bash", "zsh", "fish", "environment"] {
        let page = page(word);
        assert!(page.lines().count() > 20, "{word}: {page}");
        // Other settings, even invalid ones, and the case of the word are ignored.
        assert_eq!(printed(&["--print", &word.to_uppercase(), "--pull", "nonsense"]), page);
        assert_eq!(printed(&[&format!("--print={word}")]), page);
    }
}

#[test]
fn an_unknown_page_is_a_usage_error_that_lists_the_pages() {
    for (args, expected) in [
        (
            ["--print", "html"].as_slice(),
            "invalid --print \"html\": must be one of man, bash, zsh, fish, environment, settings",
        ),
        (&["--print"], "--print needs a value; see --help"),
        (&["--print", "man", "--print", "bash"], "--print is given more than once; see --help"),
    ] {
        let output = Command::new(binary()).args(args).env_clear().output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{args:?}");
        assert_eq!(stderr, format!("oz-agent-worker: {expected}\n"));
    }
}

/// A package must not be built with a truncated page. A pipe closed by its reader is not an error.
#[test]
fn an_incomplete_page_is_a_failure_unless_the_reader_closed_the_pipe() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Command::new(binary()).args(["--print", "man"]).env_clear().stdout(full).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("oz-agent-worker: ") && stderr.contains("No space left"), "{stderr}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(binary()).args(["--print", "man"]).env_clear().stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
