//! The agent's arguments and the environment of its container.

use std::collections::BTreeMap;

use super::plan::TaskSettings;
use crate::policy::MAX_STRING;
use crate::protocol::{AgentConfig, Assignment, shown_name};
use crate::secret::Secret;

/// The most bytes of all arguments and variables together: a quarter of the usual limit of the stack, which is 8 MiB. The image's
/// own variables count too, and are not known here.
const MAX_STRINGS: usize = 2 << 20;

/// What Linux stores for each of them besides: a final NUL and a pointer.
const PER_STRING: usize = 1 + 8;

/// The field of the assignment's variables.
const ENV_VARS: &str = "data.env_vars";

/// Arguments, each with the field that it is from.
#[derive(Default)]
struct Arguments(Vec<(&'static str, Secret)>);

impl Arguments {
    /// Adds a flag.
    fn flag(&mut self, flag: &str) {
        self.flag_if(flag, true);
    }

    fn flag_if(&mut self, flag: &str, is_set: bool) {
        self.0.extend(is_set.then(|| ("", Secret::new(flag))));
    }

    /// Adds a flag with its value, if it has one.
    fn value(&mut self, flag: &str, field: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.flag(flag);
            self.0.push((field, Secret::new(value)));
        }
    }

    fn checked(self) -> Result<Vec<Secret>, String> {
        let checked = |(field, arg): (&str, Secret)| check_string(field, arg.expose(), 0).map(|()| arg);
        self.0.into_iter().map(checked).collect()
    }
}

/// Returns the agent's arguments in the order that the protocol defines. All are treated as secrets, because the configuration
/// of the MCP servers is one.
///
/// # Errors
/// Linux does not pass on an argument.
pub(super) fn arguments(assignment: &Assignment, settings: &TaskSettings) -> Result<Vec<Secret>, String> {
    let mut args = Arguments::default();
    args.flag("agent");
    args.flag("run");
    args.value("--share", "", assignment.shared_with_team.then_some("team:edit"));
    args.value("--task-id", id_field(assignment), Some(&assignment.agent_task_id));
    args.flag("--sandboxed");
    args.value("--server-root-url", "--server-root-url", Some(&settings.server_root_url));
    add_config(&mut args, &assignment.agent);
    let mut args = args.checked()?;
    for (index, arg) in assignment.additional_oz_args.iter().enumerate() {
        check_string(&format!("data.additional_oz_args[{index}]"), arg, 0)?;
        args.push(Secret::new(arg.as_str()));
    }
    let mut last = Arguments::default();
    let setting = settings.idle_on_complete.as_deref();
    last.flag("--idle-on-complete");
    if let Some(time) = assignment.dialect.idle_time(assignment.agent.idle_minutes, setting) {
        last.flag(&time);
    }
    let url = settings.session_sharing_server_url.as_deref();
    last.value("--session-sharing-server-url", "--session-sharing-server-url", url);
    args.extend(last.checked()?);
    Ok(args)
}

/// Returns the field that the agent's task id is from.
fn id_field(assignment: &Assignment) -> &'static str {
    if assignment.agent_task_id == assignment.key.task_id { "data.task_id" } else { "data.task.id" }
}

/// The path of a field of the agent's configuration.
macro_rules! config {
    ($name:literal) => {
        concat!("data.task.agent_config_snapshot.", $name)
    };
}

/// Adds what the configuration sets, except the idle time.
fn add_config(args: &mut Arguments, agent: &AgentConfig) {
    args.value("--model", config!("model_id"), agent.model_id.as_deref());
    args.value("--profile", config!("profile_id"), agent.profile_id.as_deref());
    args.value("--skill", config!("skill_spec"), agent.skill_spec.as_deref());
    args.value("--mcp", config!("mcp_servers"), agent.mcp_servers.as_ref().map(Secret::expose));
    args.flag_if("--computer-use", agent.computer_use == Some(true));
    args.flag_if("--no-computer-use", agent.computer_use == Some(false));
    args.value("--computer-use-model", config!("computer_use_model_id"), agent.computer_use_model.as_deref());
    args.value(
        "--bedrock-inference-role",
        config!("inference_providers.aws.role_arn"),
        agent.bedrock_role.as_deref(),
    );
    args.value(
        "--bedrock-role-region",
        config!("inference_providers.aws.region"),
        agent.bedrock_region.as_deref(),
    );
    args.value("--harness", config!("harness.type"), agent.harness.as_deref());
    args.value("--share", "", agent.public_share);
    args.flag_if("--no-snapshot", agent.no_snapshot);
    let seconds = |seconds: Option<u64>| seconds.map(|seconds| format!("{seconds}s"));
    args.value("--snapshot-upload-timeout", "", seconds(agent.snapshot_upload_timeout).as_deref());
    args.value("--snapshot-script-timeout", "", seconds(agent.snapshot_script_timeout).as_deref());
    args.value("--environment", config!("environment_id"), agent.environment_id.as_deref());
}

/// Checks an argument, or the value of a variable, before which Linux stores `extra` bytes. The engine would fail only at the start
/// of the container.
fn check_string(name: &str, text: &str, extra: usize) -> Result<(), String> {
    if text.contains('\0') {
        return Err(format!("{name}: must not contain a NUL character"));
    }
    let length = text.len() + extra;
    if length > MAX_STRING {
        return Err(format!("{name}: {length} bytes are too many, the limit of Linux is {MAX_STRING}"));
    }
    Ok(())
}

/// Checks what Linux stores for a new process. Only the start of the container would fail, with exit code 1.
///
/// # Errors
/// Linux does not pass on so much.
pub(super) fn check_total(args: &[Secret], env: &[Secret]) -> Result<(), String> {
    let total: usize = args.iter().chain(env).map(|text| text.expose().len() + PER_STRING).sum();
    if total > MAX_STRINGS {
        return Err(format!(
            "data: together {total} bytes of arguments and variables are too many, the usual limit of Linux is {MAX_STRINGS}"
        ));
    }
    Ok(())
}

/// Returns the environment. A later variable of the same name replaces an earlier one, at its position.
pub(super) fn environment(assignment: &Assignment, settings: &TaskSettings) -> Result<Vec<Secret>, String> {
    let mut names: Vec<&str> = Vec::new();
    let mut values: BTreeMap<&str, &str> = BTreeMap::new();
    let fixed = [
        (id_field(assignment), "TASK_ID", assignment.agent_task_id.as_str()),
        ("", "GIT_TERMINAL_PROMPT", "0"),
        ("", "GH_PROMPT_DISABLED", "1"),
    ];
    let root = settings.server_root_url.as_str();
    let root = assignment.dialect.root_variable().map(|name| ("--server-root-url", name, root));
    let root = root.filter(|(_, _, url)| !url.is_empty());
    let assigned = assignment.env_vars.iter().map(|(name, value)| (ENV_VARS, name.as_str(), value.expose()));
    let operator = settings.env.iter().map(|(name, value)| ("--env", name.as_str(), value.expose()));
    for (field, name, value) in fixed.into_iter().chain(root).chain(assigned).chain(operator) {
        if name.is_empty() || name.contains(['=', '\0']) {
            let name = shown_name(name);
            return Err(format!("{field}: \"{name}\" is not a valid variable name"));
        }
        let field = match field {
            ENV_VARS => format!("{field}.{}", shown_name(name)),
            "--env" => format!("{field} {}", shown_name(name)),
            field => field.to_owned(),
        };
        check_string(&field, value, name.len() + 1)?;
        if values.insert(name, value).is_none() {
            names.push(name);
        }
    }
    let pair = |name: &&str| values.get(name).map(|value| Secret::new(format!("{name}={value}")));
    Ok(names.iter().filter_map(pair).collect())
}
