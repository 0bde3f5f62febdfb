//! The step about the address of the monitoring pages.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};

use serde_json::Value;

use super::report::Step;
use crate::app::monitor::{reached_at, status_at};
use crate::cli::Config;
use crate::logging::value;

/// Returns whether the address can be used, and who uses it. Returns nothing if the pages are off.
pub(super) fn port(config: &Config) -> Option<Step> {
    let (host, port) = config.metrics_listen?;
    let address = SocketAddr::new(host, port);
    // Dropped at once.
    let bound = TcpListener::bind(address).map(drop);
    let is_taken = matches!(&bound, Err(error) if error.kind() == ErrorKind::AddrInUse);
    let page = if is_taken { status_at(reached_at(address)) } else { None };
    let remedy = format!("set another {}", config.names.of("--metrics-listen"));
    Some(judge(address, bound, page.as_ref(), &config.worker_id, &remedy))
}

/// `page` is what a worker serves there.
fn judge(
    address: SocketAddr,
    bound: io::Result<()>,
    page: Option<&Value>,
    worker_id: &str,
    remedy: &str,
) -> Step {
    let error = match bound {
        Ok(()) => return Step::ok("metrics", format!("{address} is free")),
        Err(error) => error,
    };
    if error.kind() != ErrorKind::AddrInUse {
        return Step::failed("metrics", format!("{address} cannot be used: {error}; {remedy}"));
    }
    let Some(page) = page else {
        return Step::warning("metrics", format!("{address} is in use by another program: {remedy}"));
    };
    let pid =
        page.get("pid").and_then(Value::as_u64).map(|pid| format!(", process {pid}")).unwrap_or_default();
    match page.get("worker_id").and_then(Value::as_str) {
        Some(id) if id == worker_id => Step::ok("metrics", format!("{address} is used by this worker{pid}")),
        Some(id) => {
            let id = value(id);
            Step::warning("metrics", format!("{address} is in use by worker {id}{pid}: {remedy}"))
        }
        None => Step::warning("metrics", format!("{address} is in use by a worker{pid}: {remedy}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::report::State;
    use super::*;

    #[test]
    fn an_address_is_free_used_by_this_worker_or_not_usable() {
        let address: SocketAddr = "127.0.0.1:9464".parse().unwrap();
        let judge = |error: Option<ErrorKind>, page: Option<Value>| {
            let bound = error.map_or(Ok(()), |kind| Err(kind.into()));
            let step = judge(address, bound, page.as_ref(), "w", "set another OZ_METRICS_LISTEN");
            (step.state, step.text)
        };
        let taken = Some(ErrorKind::AddrInUse);
        assert_eq!(judge(None, None), (State::Ok, "127.0.0.1:9464 is free".into()));
        let own = json!({ "worker_id": "w", "pid": 7 });
        let expected = "127.0.0.1:9464 is used by this worker, process 7";
        assert_eq!(judge(taken, Some(own)), (State::Ok, expected.into()));
        let (state, text) = judge(taken, Some(json!({ "worker_id": "x\n", "pid": 7 })));
        assert!(
            state == State::Warning && text.contains("worker \"x\\n\", process 7: set another"),
            "{text}"
        );
        for page in [None, Some(json!({}))] {
            let (state, text) = judge(taken, page);
            assert!(state == State::Warning && text.contains("in use by a"), "{text}");
        }
        let (state, text) = judge(Some(ErrorKind::AddrNotAvailable), None);
        assert!(state == State::Failed && text.contains("cannot be used"), "{text}");
    }
}
