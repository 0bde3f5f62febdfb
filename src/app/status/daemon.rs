//! What the workers of this host report about themselves: to systemd, and at their monitoring pages.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::render::DaemonView;
use crate::app::monitor::{reached_at, status_at};
use crate::cli::Listen;
use crate::sys::cancel::CancelToken;
use crate::sys::environment::Environment;
use crate::sys::files::is_program;
use crate::sys::program::Program;

/// How long systemd may take to answer.
const SYSTEMD: Duration = Duration::from_secs(3);
/// The most bytes of its answer.
const MAX_OUTPUT: usize = 256 << 10;
/// The services of the packages.
const ASK: [&str; 5] = [
    "show",
    "--no-pager",
    "--property=Id,ActiveState,StatusText,MainPID",
    "oz-agent-worker.service",
    "oz-agent-worker@*.service",
];

/// Returns what the workers report, as far as it can be found out. `served` is where one has its pages; `worker_id` is the only one
/// that is wanted there.
pub(super) fn views(
    environment: &Environment,
    served: Option<Listen>,
    worker_id: Option<&str>,
) -> Vec<DaemonView> {
    let mut views = services(environment).unwrap_or_default();
    views.extend(served.and_then(|served| page(served, worker_id)));
    views
}

fn page((host, port): Listen, worker_id: Option<&str>) -> Option<DaemonView> {
    let address = reached_at(SocketAddr::new(host, port));
    let says = status_at(address)?;
    let id = says.get("worker_id").and_then(Value::as_str);
    let is_wanted = worker_id.is_none_or(|wanted| id.is_none_or(|id| id == wanted));
    is_wanted.then(|| DaemonView { source: format!("http://{address}"), says })
}

/// Asks systemd. Returns `None` without one.
fn services(environment: &Environment) -> Option<Vec<DaemonView>> {
    let folders = std::env::split_paths(environment.get("PATH")?).filter(|folder| folder.is_absolute());
    let path: PathBuf = folders.map(|folder| folder.join("systemctl")).find(|path| is_program(path))?;
    let variables: Vec<(OsString, OsString)> = environment.variables().collect();
    let program = Program {
        path: &path,
        arguments: &ASK,
        variables: &variables,
        input: "",
        within: SYSTEMD,
        max_output: MAX_OUTPUT,
    };
    let (status, output) = program.run(&CancelToken::new()).ok()?;
    status.success().then(|| parse(&String::from_utf8_lossy(&output)))
}

/// Returns the services that run, or that have a status.
fn parse(output: &str) -> Vec<DaemonView> {
    output.split("\n\n").filter_map(service).collect()
}

fn service(block: &str) -> Option<DaemonView> {
    let get = |name: &str| {
        let mut values = block.lines().filter_map(|line| line.split_once('='));
        values.find(|(key, _)| *key == name).map(|(_, value)| value).filter(|value| !value.is_empty())
    };
    let source = get("Id")?.to_owned();
    let (state, pid) = (get("ActiveState")?, get("MainPID").and_then(|pid| pid.parse::<u32>().ok()));
    let status = get("StatusText");
    if state == "inactive" && status.is_none() {
        return None;
    }
    Some(DaemonView { source, says: json!({ "state": state, "pid": pid, "status": status }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_that_runs_has_its_status() {
        let output = "MainPID=812\nId=oz-agent-worker.service\nActiveState=active\nStatusText=connected, tasks: 2\n\n\
                      MainPID=0\nId=oz-agent-worker@b.service\nActiveState=failed\nStatusText=refused: 401 a=b\n\n\
                      MainPID=0\nId=oz-agent-worker@c.service\nActiveState=inactive\nStatusText=\n";
        let expected = [
            (
                "oz-agent-worker.service",
                json!({ "state": "active", "pid": 812, "status": "connected, tasks: 2" }),
            ),
            (
                "oz-agent-worker@b.service",
                json!({ "state": "failed", "pid": 0, "status": "refused: 401 a=b" }),
            ),
        ];
        let expected = expected.map(|(source, says)| DaemonView { source: source.into(), says });
        assert_eq!(parse(output), expected);
        assert_eq!(parse(""), []);
    }
}
