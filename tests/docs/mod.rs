//! What the binary prints about itself: `--help` and each `--print`, compared with each other and given to the programs
//! that are to read them. No engine, no network.

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

/// What any of these programs is given: far more than it takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the binary prints with these arguments and nothing set at all.
fn printed(args: &[&str]) -> String {
    let output = Command::new(binary()).args(args).env_clear().output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn page(word: &str) -> String {
    printed(&["--print", word])
}

/// A folder with a page in a file; its path.
fn page_file(word: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page");
    std::fs::write(&path, page(word)).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

/// Runs a program to its good end; what it wrote to stdout. It may not complain about anything.
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
        // Other settings do not matter, not even wrong ones; case does not either.
        assert_eq!(printed(&["--print", &word.to_uppercase(), "--pull", "nonsense"]), page);
        assert_eq!(printed(&[&format!("--print={word}")]), page);
    }
}

#[test]
fn an_unknown_page_is_a_usage_error_that_names_those_that_there_are() {
    for (args, expected) in [
        (
            ["--print", "html"].as_slice(),
            "--print is \"html\": must be one of man, bash, zsh, fish, environment",
        ),
        (&["--print"], "--print needs a value; see --help"),
        (&["--print", "man", "--print", "bash"], "--print is given more than once; see --help"),
    ] {
        let output = Command::new(binary()).args(args).env_clear().output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{args:?}");
        assert_eq!(told, format!("oz-agent-worker: {expected}\n"));
    }
}

/// A package must not be made with half a page; a reader who has seen enough is another thing.
#[test]
fn a_page_that_cannot_be_written_is_a_failure_unless_the_reader_has_gone() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Command::new(binary()).args(["--print", "man"]).env_clear().stdout(full).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.starts_with("oz-agent-worker: ") && told.contains("No space left"), "{told}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(binary()).args(["--print", "man"]).env_clear().stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
