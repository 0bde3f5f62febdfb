//! `--follow`: what the container of a task has written, and what it writes until it ends. Its own lines go to stderr.

use std::io::{self, Write};

use super::find;
use crate::app::engine::EngineError;
use crate::app::report;
use crate::docker::{Docker, Error, Log, LogStream};
use crate::exit::Exit;
use crate::logging::value;
use crate::sys::cancel::CancelToken;
use crate::task::listing::{Listed, ListedTask};

/// Why the output of a task cannot be followed.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(
        "no container of task {0:?} is on the engine; `oz-agent-worker status` lists the tasks, and a container is removed once its \
         report is stored"
    )]
    NoTask(String),
    #[error("cannot read the output of container {container:?}; a log driver that cannot be read has none")]
    Log { container: String, source: Error },
    #[error("cannot write the output: {0}")]
    Write(io::Error),
}

/// Prints the output of a task. Returns the exit code.
pub(super) fn run(docker: &Docker, wanted: &str, worker_id: Option<&str>) -> Exit {
    let tasks = match find(docker, worker_id, Listed::Tasks) {
        Ok(tasks) => tasks,
        Err(error) => return report(&error, error.exit()),
    };
    let Some(task) = choose(&tasks, wanted) else {
        return report(&FollowError::NoTask(wanted.to_owned()), Exit::Failure);
    };
    own_line(&format!("following {} container={} state={}", task.key, value(&task.container), task.state));
    match follow(docker, task) {
        Ok(()) => {}
        Err(FollowError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Exit::Success,
        Err(error) => return report(&error, Exit::Failure),
    }
    own_line(&format!("ended {} {}", task.key, ending(docker, task)));
    Exit::Success
}

/// Returns the task of this id or container: one that runs before one that does not, and the youngest of these.
fn choose<'a>(tasks: &'a [ListedTask], wanted: &str) -> Option<&'a ListedTask> {
    let is_it = |task: &&ListedTask| {
        let is_id = wanted.len() >= 12 && task.id.starts_with(wanted);
        task.key.task_id == wanted || task.container == wanted || is_id
    };
    tasks.iter().filter(is_it).min_by_key(|task| (!task.runs(), task.age))
}

fn follow(docker: &Docker, task: &ListedTask) -> Result<(), FollowError> {
    // Nothing cancels it: a signal ends the process.
    let cancel = CancelToken::new();
    let failed = |source| FollowError::Log { container: task.container.clone(), source };
    let mut log = docker.container_follow(&cancel, &task.id).map_err(failed)?;
    loop {
        match read(&mut log, &cancel)? {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Reads a part of the log and prints it, the container's stderr to stderr. Returns whether there is more.
fn read(log: &mut Log, cancel: &CancelToken) -> Result<Result<bool, Error>, FollowError> {
    let mut written = Ok(());
    let more = log.read_some(cancel, &mut |stream, bytes| {
        if written.is_ok() {
            written = match stream {
                LogStream::Stdout => io::stdout().write_all(bytes),
                LogStream::Stderr | LogStream::Engine => io::stderr().write_all(bytes),
            };
        }
    });
    written.and_then(|()| io::stdout().flush()).map_err(FollowError::Write)?;
    Ok(more)
}

/// Returns how the container ended.
fn ending(docker: &Docker, task: &ListedTask) -> String {
    match docker.container_inspect(&CancelToken::new(), &task.id) {
        Ok(container) if container.state.running => "state=running".to_owned(),
        Ok(container) => format!("state={} exit_code={}", container.state.status, container.state.exit_code),
        Err(error) if error.is_not_found() => "state=removed".to_owned(),
        Err(error) => format!("error={}", value(&EngineError::from_search(error).to_string())),
    }
}

/// A closed stderr is ignored.
fn own_line(text: &str) {
    let _ = writeln!(io::stderr(), "oz-agent-worker: {text}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::ExecutionKey;

    fn task(task_id: &str, container: &str, state: &str, age: u64) -> ListedTask {
        ListedTask {
            key: ExecutionKey::new(task_id, None),
            worker_id: "w".into(),
            state: state.into(),
            age: Duration::from_secs(age),
            image: String::new(),
            container: container.into(),
            id: format!("{container}{}", "0".repeat(60)),
        }
    }

    #[test]
    fn a_task_is_chosen_by_its_id_or_its_container() {
        let tasks = [
            task("t", "a", "exited", 1),
            task("t", "b", "running", 50),
            task("t", "c", "running", 20),
            task("u", "d", "created", 5),
        ];
        let chosen = |wanted: &str| choose(&tasks, wanted).map(|task| task.container.as_str());
        assert_eq!((chosen("t"), chosen("u"), chosen("a")), (Some("c"), Some("d"), Some("a")));
        assert_eq!((chosen("b00000000000"), chosen("b0000000000"), chosen("v")), (Some("b"), None, None));
    }
}
