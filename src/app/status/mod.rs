//! `oz-agent-worker status`: the tasks on the engine, and what the workers of this host report about themselves.

mod daemon;
mod follow;
mod render;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::render::{EngineView, Report, Row, WorkerView};
use super::deadline::within;
use super::engine::{self, EngineError};
use super::{SettingsFileError, instance, print, report, report_warning, settings_file};
use crate::cli::{Arguments, StatusOptions, served_at};
use crate::control_plane::{Network, Proxies};
use crate::docker::{Docker, EndpointEnv, Error};
use crate::exit::Exit;
use crate::logging::error_chain;
use crate::sys::cancel::CancelToken;
use crate::sys::environment::Environment;
use crate::sys::pool::beside;
use crate::task::listing::{Listed, ListedTask, list};

/// How long to wait for the engine's first answers.
const CONNECT: Duration = Duration::from_secs(15);
/// How long to wait for the list of containers.
const LIST: Duration = Duration::from_secs(30);
/// How long to wait for the names of images, and for what the containers use.
const DETAILS: Duration = Duration::from_secs(15);
/// The time between the two looks at what a container has used.
const BETWEEN: Duration = Duration::from_millis(500);
/// How many containers are asked for at once.
const THREADS: usize = 8;

/// Prints the status. Returns the exit code.
pub(super) fn run(arguments: &Arguments, environment: &Environment) -> Exit {
    let options = match StatusOptions::of(arguments) {
        Ok(options) => options,
        Err(error) => return report(&error, Exit::Usage),
    };
    let environment = match settings_file(arguments, environment) {
        Ok(None) => environment.clone(),
        Ok(Some(file)) => file.below(environment),
        Err(error @ SettingsFileError::Setting(_)) => return report(&error, Exit::Usage),
        Err(error) => {
            report_warning(&error_chain(&error));
            environment.clone()
        }
    };
    let docker = connect(&environment);
    if let Some(task) = &options.follow {
        return match docker {
            Ok(docker) => follow::run(&docker, task, options.worker_id.as_deref()),
            Err(error) => report(&error, error.exit()),
        };
    }
    let served = served_at(arguments, &environment).unwrap_or_else(|error| {
        report_warning(&error.to_string());
        None
    });
    let daemons = daemon::views(&environment, served, options.worker_id.as_deref());
    let listed = if options.kept { Listed::Kept } else { Listed::Tasks };
    let (engine, tasks, error) =
        match docker.and_then(|docker| look(&docker, options.worker_id.as_deref(), listed)) {
            Ok((engine, tasks)) => (Some(engine), tasks, None),
            Err(error) => (None, Vec::new(), Some(error)),
        };
    let workers = workers(&tasks, options.worker_id.as_deref());
    let text = error.as_ref().map(|error| error_chain(error));
    let seen = Report { engine, error: text, listed, tasks, workers, daemons };
    let exit = print(&if options.json { seen.json() } else { seen.text() });
    match error {
        Some(error) if exit == Exit::Success && options.json => error.exit(),
        Some(error) if exit == Exit::Success => report(&error, error.exit()),
        _ => exit,
    }
}

fn connect(environment: &Environment) -> Result<Docker, EngineError> {
    let (proxies, _) = Proxies::new(environment);
    let network = Network { proxies, ..Network::default() };
    let environment = EndpointEnv::from(environment);
    let connected = within(CONNECT, move |cancel| {
        let mut warnings = Vec::new();
        let docker = engine::connect(&environment, &network, cancel, &mut |text| warnings.push(text), || ());
        (docker, warnings)
    });
    let (docker, warnings) = connected.ok_or(EngineError::Silent { within: CONNECT })?;
    warnings.iter().for_each(|text| report_warning(text));
    docker
}

/// Returns what is on the engine.
fn look(
    docker: &Docker,
    worker_id: Option<&str>,
    listed: Listed,
) -> Result<(EngineView, Vec<Row>), EngineError> {
    let tasks = find(docker, worker_id, listed)?;
    let engine = docker.engine();
    let view = EngineView {
        address: docker.address(),
        version: engine.version.clone(),
        api: docker.api_version().to_string(),
    };
    Ok((view, rows(docker, tasks)))
}

/// Returns the tasks on the engine.
fn find(docker: &Docker, worker_id: Option<&str>, listed: Listed) -> Result<Vec<ListedTask>, EngineError> {
    let (docker, worker_id) = (docker.clone(), worker_id.map(str::to_owned));
    let found = within(LIST, move |cancel| list(&docker, cancel, worker_id.as_deref(), listed));
    found.ok_or(EngineError::Silent { within: LIST })?.map_err(EngineError::from_search)
}

/// Adds the names of the images and what the containers use, as far as the engine tells in time.
fn rows(docker: &Docker, tasks: Vec<ListedTask>) -> Vec<Row> {
    let images: BTreeSet<_> = tasks.iter().map(|task| task.image.clone()).collect();
    let running: Vec<_> = tasks.iter().filter(|task| task.runs()).map(|task| task.id.clone()).collect();
    let docker = docker.clone();
    let details = within(DETAILS, move |cancel| {
        let (usages, names) = beside(
            THREADS,
            || usages(&docker, cancel, &running),
            images.into_iter().collect(),
            |image| {
                let name = docker.image_name(cancel, &image).ok().flatten();
                (image, name)
            },
        );
        (usages, names.into_iter().flatten().collect::<BTreeMap<_, _>>())
    });
    let (usages, names) = details.unwrap_or_default();
    let row = |task: ListedTask| {
        let (cpu_percent, memory) = usages.get(&task.id).copied().unwrap_or_default();
        let image = names.get(&task.image).cloned().flatten();
        let image = image.filter(|_| task.image.starts_with("sha256:")).unwrap_or_else(|| task.image.clone());
        Row { task: ListedTask { image, ..task }, cpu_percent, memory }
    };
    tasks.into_iter().map(row).collect()
}

/// Returns the processors and the memory that each of these containers uses, by its id.
fn usages(
    docker: &Docker,
    cancel: &CancelToken,
    ids: &[String],
) -> BTreeMap<String, (Option<f64>, Option<u64>)> {
    let look = || {
        let usage = |id: &String| -> Result<_, Error> { docker.container_usage(cancel, id) };
        beside(THREADS, || (), ids.iter().collect(), usage).1
    };
    let before = look();
    if ids.is_empty() || !cancel.sleep(BETWEEN) {
        return BTreeMap::new();
    }
    let pairs = ids.iter().zip(before).zip(look());
    let used = pairs.filter_map(|((id, before), now)| {
        let (before, now) = (before?.ok()?, now?.ok()?);
        // A container that has ended in between uses nothing.
        now.read_at?;
        Some((id.clone(), (now.cpu_percent(&before), Some(now.memory))))
    });
    used.collect()
}

/// Returns each worker that has a task, and the processes of this host that have its id.
fn workers(tasks: &[Row], wanted: Option<&str>) -> Vec<WorkerView> {
    let ids = tasks.iter().map(|row| row.task.worker_id.as_str()).chain(wanted);
    let ids: BTreeSet<_> = ids.collect();
    let view = |id: &str| WorkerView { worker_id: id.to_owned(), processes: instance::pids_of(id) };
    ids.into_iter().map(view).collect()
}
