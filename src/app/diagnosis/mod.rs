//! `oz-agent-worker check`: tries everything that the worker needs, and says what to do.

mod engine;
mod images;
mod metrics;
mod plane;
mod report;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use self::report::{Report, Step};
use super::settings::network;
use super::{
    api_key, cores, instance, link, mounts, open_key_file, read_key_file, report as report_error, report_all,
    settings_file,
};
use crate::cli::{Arguments, CheckOptions, Config, ConfigErrors, Listing};
use crate::control_plane::rest::ControlPlane;
use crate::docker::{Docker, EndpointEnv, RegistryEnv};
use crate::exit::Exit;
use crate::logging::value;
use crate::policy::Admission;
use crate::sys::environment::Environment;
use crate::sys::limits;

/// The most bytes of the worker's id that a check shows to the control plane.
const ID: usize = 100;

/// Prints the results of all steps. Returns the exit code.
pub(super) fn run(arguments: &Arguments, environment: &Environment) -> Exit {
    // Before the key is read. Without it, the check works as well.
    let _ = limits::forbid_core_dumps();
    let options = match CheckOptions::of(arguments) {
        Ok(options) => options,
        Err(error) => return report_error(&error, Exit::Usage),
    };
    let file = match settings_file(arguments, environment) {
        Ok(file) => file,
        Err(error) => return report_error(&error, Exit::Usage),
    };
    let merged = file.as_ref().map_or_else(|| environment.clone(), |file| file.below(environment));
    let config = match Config::new(arguments, &merged, cores(), &read_key_file) {
        Ok(config) => config,
        Err(ConfigErrors(errors)) => return report_all(&errors, arguments, &merged),
    };
    if let Err(error) = network(&config).trust.check() {
        return report_error(&error, Exit::Usage);
    }
    if let Err(error) = mounts::check(&config) {
        return report_error(&error, Exit::Usage);
    }
    let listing = Listing { arguments, environment: &merged, cores: cores() };
    let mut report = Report::new(options.json);
    report.add(settings(&config, &listing.given(&read_key_file)));
    report.add(worker_id(&config.worker_id, &instance::pids_of(&config.worker_id)));
    report.add(metrics::port(&config));
    report.add(control_plane(&config));
    let (docker, steps) = engine::connect(EndpointEnv::from(&merged), network(&config));
    report.add(steps);
    report.add(admission(&config.admission));
    if let Some(docker) = docker {
        report.add(mount_paths(&config, &docker));
        report.add(engine::details(&docker, config.min_free_disk, &config.worker_id));
        let CheckOptions { image, sidecar, .. } = options;
        report.add(images::try_out(&config, docker, RegistryEnv::from(&merged), image, sidecar));
    }
    report.finish()
}

/// The settings that are given with their origins, and what is not right with them.
fn settings(config: &Config, given: &[(String, String)]) -> Vec<Step> {
    // A derived value says so itself.
    let origin = |origin: &'_ str| origin.strip_prefix("from ").unwrap_or(origin).to_owned();
    let shown = given.iter().map(|(name, from)| format!("{name} from {}", origin(from)));
    let shown: Vec<_> = shown.collect();
    let mut steps = vec![Step::ok("settings", shown.join(", "))];
    let open = open_key_file(config);
    let file = config.api_key_file.as_ref().filter(|_| open.is_none());
    steps.extend(open.map(|warning| Step::warning("key file", warning)));
    steps.extend(file.map(|file| {
        let path = file.path().display().to_string();
        Step::ok("key file", format!("{} is closed to other users", value(&path)))
    }));
    steps.extend(config.warnings.iter().map(|warning| Step::warning("settings", warning)));
    steps.extend(config.unreachable_root().map(|warning| Step::warning("root url", warning)));
    steps
}

/// Whether another process of this host has the worker's id.
fn worker_id(id: &str, pids: &[String]) -> Option<Step> {
    let id = value(id);
    Some(match pids {
        [] => Step::ok("worker id", format!("{id}, no process of this host has it")),
        pids => Step::warning(
            "worker id",
            format!(
                "{id}, process {} of this host has it: stop that before you start another",
                pids.join(", ")
            ),
        ),
    })
}

/// What the operator admits, if that is restricted.
fn admission(admission: &Admission) -> Option<Step> {
    let Admission { images, variables, denied_variables, default_image, .. } = admission;
    let lists = [("--allow-image", images), ("--allow-env", variables), ("--deny-env", denied_variables)];
    let shown = lists.into_iter().filter(|(_, globs)| !globs.is_empty()).map(|(flag, globs)| {
        let globs: Vec<_> = globs.iter().map(|glob| value(&glob.to_string()).to_string()).collect();
        format!("{flag} {}", globs.join(" "))
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    if !admission.admits(default_image) {
        let name = default_image.pulled();
        let text = format!(
            "{shown}; {name} is not allowed, so tasks that name no image are refused: set --default-image"
        );
        return Some(Step::warning("admission", text));
    }
    (!shown.is_empty()).then(|| Step::ok("admission", shown))
}

/// Whether the paths that tasks mount can be checked, if they are restricted.
fn mount_paths(config: &Config, docker: &Docker) -> Option<Step> {
    mounts::are_restricted(config).then(|| match mounts::check_engine(config, docker) {
        Ok(()) => Step::ok("mounts", "every path of --volumes is allowed"),
        Err(error) => Step::failed("mounts", error.to_string()),
    })
}

fn control_plane(config: &Config) -> Vec<Step> {
    let key = match api_key(config) {
        Ok(key) => key,
        Err(error) => return vec![Step::failed("key", error.to_string())],
    };
    let random = format!("{:08x}", RandomState::new().build_hasher().finish() & 0xffff_ffff);
    let id = config.worker_id.get(..config.worker_id.floor_char_boundary(ID)).unwrap_or_default();
    // Not the worker's own id: with two connections of one id, some control planes fail its tasks.
    let probe = Config { worker_id: format!("{id}-check-{random}"), ..config.clone() };
    let mut steps = match link::link_config(&probe, &key) {
        Ok(link) => plane::connect(link, config.plain_text_warning()),
        Err(error) => vec![Step::failed("key", error.to_string())],
    };
    match ControlPlane::new(&config.rest_url, &key) {
        Ok(plane) => {
            let plane = plane.with_network(network(config));
            steps.extend(plane::rest(&plane, &config.rest_url, format!("check-{random}")));
        }
        Err(error) => steps.push(Step::failed("rest", error.to_string())),
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::report::State;
    use super::*;
    use crate::docker::Reference;
    use crate::policy::Glob;

    #[test]
    fn what_is_admitted_is_shown_if_it_is_restricted() {
        let open = Admission {
            images: vec![],
            variables: vec![],
            denied_variables: vec![],
            default_image: Reference::parse("ubuntu:22.04").unwrap(),
            replaces_sidecar: false,
        };
        assert_eq!(admission(&open), None);
        let variable = |text| Glob::variable(text).unwrap();
        let variables = Admission {
            variables: vec![variable("A*"), variable("B")],
            denied_variables: vec![variable("AB")],
            ..open.clone()
        };
        assert_eq!(admission(&variables), Some(Step::ok("admission", "--allow-env A* B, --deny-env AB")));
        let images = Admission { images: vec![Glob::image("ghcr.io/**").unwrap()], ..open };
        let step = admission(&images).unwrap();
        assert_eq!(step.state, State::Warning);
        let expected = "--allow-image ghcr.io/**; docker.io/library/ubuntu:22.04 is not allowed, so tasks that name no image are refused: set \
                        --default-image";
        assert_eq!(step.text, expected);
    }
}
