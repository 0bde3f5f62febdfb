//! The limits of this process: open files, core dumps, and its rank when memory runs out.

use std::fs;
use std::io;

use rustix::fd::OwnedFd;
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// How many file descriptors a task uses at most while it is prepared. It uses fewer while it runs.
const OF_A_TASK: usize = 16;

/// How many the rest of the process uses at most: the link, the look-ups, the removals, and the clients of the metrics.
const OF_THE_REST: usize = 128;

/// Prevents core dumps, which would hold the API key and the variables of tasks. A limit of zero would not: the kernel still
/// runs a dump handler. Programs that this process runs may dump.
///
/// # Errors
/// The system forbids it.
pub(crate) fn forbid_core_dumps() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Raises the soft limit on open files to the hard one. A shell's soft limit of 1024 is too low for a thousand tasks.
///
/// # Errors
/// The system forbids it.
pub(crate) fn raise_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

/// Whether a call failed because this process or the system has no file descriptor left.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].into_iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Whether no program could be started because there is no file descriptor, process or thread left. Of other calls, such as a
/// connect, `EAGAIN` has another meaning.
pub(crate) fn is_spawn_exhausted(error: &io::Error) -> bool {
    is_exhausted(error) || error.raw_os_error() == Some(Errno::AGAIN.raw_os_error())
}

/// Checks that one more task beside `tasks` tasks has file descriptors. They are counted only if the limit is so low that they may
/// be lacking, because that takes two system calls for each.
///
/// # Errors
/// There are too few at the moment.
pub(crate) fn check_descriptors_for_task(tasks: usize) -> io::Result<()> {
    let most = tasks.saturating_add(1).saturating_mul(OF_A_TASK).saturating_add(OF_THE_REST) as u64;
    if getrlimit(Resource::Nofile).current.is_none_or(|limit| limit >= most) {
        return Ok(());
    }
    check_free_descriptors(OF_A_TASK)
}

/// Checks that this number of file descriptors are free at the moment.
///
/// # Errors
/// They are not.
pub(crate) fn check_free_descriptors(count: usize) -> io::Result<()> {
    let copies: Result<Vec<OwnedFd>, Errno> =
        (0..count).map(|_| fcntl_dupfd_cloexec(io::stderr(), 0)).collect();
    match copies {
        // A closed stderr cannot be copied.
        Ok(_) | Err(Errno::BADF) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives a child the usual rank among the victims of a lack of memory: a service manager may have protected this process, and a
/// child inherits that. Does nothing if that fails.
pub(crate) fn unprotect(child: u32) {
    raise_oom_score(child, 0);
}

/// Raises the value by which the kernel adjusts a process's rank among the victims to at least `least`.
fn raise_oom_score(process: u32, least: i32) {
    let path = format!("/proc/{process}/oom_score_adj");
    let score = fs::read_to_string(&path).ok().and_then(|score| score.trim().parse().ok());
    if score.is_some_and(|score: i32| score < least) {
        // Fails once the process has ended.
        let _ = fs::write(&path, least.to_string());
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_lack_of_descriptors_is_told_from_other_errors() {
        let error = |errno: Errno| io::Error::from(errno);
        assert!(is_exhausted(&error(Errno::MFILE)) && is_exhausted(&error(Errno::NFILE)));
        assert!(!is_exhausted(&error(Errno::AGAIN)) && is_spawn_exhausted(&error(Errno::AGAIN)));
        assert!(!is_exhausted(&io::Error::other("x")) && !is_spawn_exhausted(&error(Errno::NOENT)));
        assert!(check_free_descriptors(16).is_ok());
        assert!(check_descriptors_for_task(0).is_ok() && check_descriptors_for_task(usize::MAX).is_ok());
    }

    /// Without a capability the value cannot be negative, so others stand for it and for zero.
    #[test]
    fn a_child_of_a_protected_process_is_not_protected() {
        let mut child = Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap();
        let path = format!("/proc/{}/oom_score_adj", child.id());
        let scores = [("200", 300), ("400", 300), ("300", 300)].map(|(before, least)| {
            fs::write(&path, before).and_then(|()| {
                raise_oom_score(child.id(), least);
                fs::read_to_string(&path)
            })
        });
        child.kill().unwrap();
        child.wait().unwrap();
        let scores = scores.map(|score| score.unwrap().trim().to_owned());
        assert_eq!(scores, ["300", "400", "300"]);
    }
}
