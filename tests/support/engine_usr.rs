//! Engines that are not installed: their processes have a folder of theirs in place of `/usr`, with their programs and libraries.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::images::tool;

/// Mounts the folder over `/usr` and runs the rest of its arguments.
const SCRIPT: &str = "\"$0\" mount --bind \"$1\" /usr && shift && exec \"$@\"";

/// Returns the folder of the engines under test, or `None` if that is what is installed. `make test-engines` sets it.
pub fn of_tests() -> Option<PathBuf> {
    std::env::var_os("OZ_TEST_ENGINE_USR").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// Returns the command that runs a program with this folder in place of `/usr`. It needs root. All that runs before the mount is
/// linked statically.
pub fn command(program: &str, usr: Option<&Path>) -> Vec<OsString> {
    let Some(usr) = usr else { return vec![program.into()] };
    let busybox = tool("busybox").into_os_string();
    let words = [busybox.clone(), "unshare".into(), "-m".into(), busybox.clone(), "sh".into(), "-c".into()];
    let arguments = [SCRIPT.into(), busybox, usr.into(), program.into()];
    words.into_iter().chain(arguments).collect()
}
