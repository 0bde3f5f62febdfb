//! The configuration of the agent: `task.agent_config_snapshot`.

use super::dialect::Dialect;
use super::fields::{FieldError, Fields};
use super::json;
use crate::secret::Secret;

/// How deep `mcp_servers` may nest.
const MAX_DEPTH: usize = 1000;

pub(super) const AGENT: &[&str] = &[
    "environment_id",
    "model_id",
    "profile_id",
    "skill_spec",
    "mcp_servers",
    "computer_use_enabled",
    "computer_use_model_id",
    "idle_timeout_minutes",
    "harness",
    "inference_providers",
    "session_sharing",
    "snapshot_disabled",
    "snapshot_upload_timeout_secs",
    "snapshot_script_timeout_secs",
];

/// The agent's configuration, as the dialect of its assignment has it. Strings are trimmed; blank ones are unset.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AgentConfig {
    /// `--environment`.
    pub environment_id: Option<String>,
    /// `--model`; unset if it is not for the agent's harness.
    pub model_id: Option<String>,
    /// `--profile`.
    pub profile_id: Option<String>,
    /// `--skill`.
    pub skill_spec: Option<String>,
    /// `--mcp`, compact JSON. It may hold credentials.
    pub mcp_servers: Option<Secret>,
    /// `--computer-use` or `--no-computer-use`; neither if unset.
    pub computer_use: Option<bool>,
    /// `--computer-use-model`.
    pub computer_use_model: Option<String>,
    /// `--bedrock-inference-role`.
    pub bedrock_role: Option<String>,
    /// `--bedrock-role-region`; only with a role.
    pub bedrock_region: Option<String>,
    /// `--harness`.
    pub harness: Option<String>,
    /// `--share`: who may join the session besides the owner.
    pub public_share: Option<&'static str>,
    /// `--no-snapshot`.
    pub no_snapshot: bool,
    /// `--snapshot-upload-timeout`, in seconds.
    pub snapshot_upload_timeout: Option<u64>,
    /// `--snapshot-script-timeout`, in seconds.
    pub snapshot_script_timeout: Option<u64>,
    /// How long the agent stays after its conversation has ended.
    pub idle_minutes: Option<u64>,
}

impl AgentConfig {
    /// Reads the configuration, which may be absent.
    pub(super) fn read(fields: Option<Fields<'_>>, dialect: Dialect) -> Result<Self, FieldError> {
        let Some(fields) = fields else { return Ok(Self::default()) };
        let harness = if dialect.has_harness() { harness(&fields)? } else { None };
        let harness = harness.as_deref();
        let explicit = fields.boolean("computer_use_enabled")?;
        let computer_use = dialect.computer_use(explicit, harness);
        let config = Self {
            environment_id: fields.text("environment_id")?,
            model_id: dialect.model(fields.text("model_id")?, harness),
            profile_id: fields.text("profile_id")?,
            skill_spec: fields.text("skill_spec")?,
            mcp_servers: mcp_servers(&fields, dialect)?,
            computer_use,
            ..Self::default()
        };
        if dialect.has_harness() { config.with_harness(&fields, dialect, harness) } else { Ok(config) }
    }

    /// Adds what came with the choice of harnesses.
    fn with_harness(
        self,
        fields: &Fields<'_>,
        dialect: Dialect,
        harness: Option<&str>,
    ) -> Result<Self, FieldError> {
        let positive = |name| Ok::<_, FieldError>(fields.integer(name)?.and_then(positive));
        let (bedrock_role, bedrock_region) = bedrock(fields)?.unzip();
        let model = fields.text("computer_use_model_id")?;
        Ok(Self {
            computer_use_model: dialect.computer_use_model(model, self.computer_use, harness),
            bedrock_role,
            bedrock_region: bedrock_region.flatten(),
            harness: harness.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned),
            public_share: public_share(fields)?,
            no_snapshot: fields.boolean("snapshot_disabled")?.unwrap_or(false),
            snapshot_upload_timeout: positive("snapshot_upload_timeout_secs")?,
            snapshot_script_timeout: positive("snapshot_script_timeout_secs")?,
            idle_minutes: positive("idle_timeout_minutes")?,
            ..self
        })
    }

    /// Returns about how many bytes of memory its texts take.
    pub(super) fn size(&self) -> usize {
        let texts = [
            &self.environment_id,
            &self.model_id,
            &self.profile_id,
            &self.skill_spec,
            &self.computer_use_model,
            &self.bedrock_role,
            &self.bedrock_region,
            &self.harness,
        ];
        let servers = self.mcp_servers.as_ref().map_or(0, |servers| servers.expose().len());
        servers + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

fn positive(number: i64) -> Option<u64> {
    u64::try_from(number).ok().filter(|number| *number > 0)
}

/// Returns the harness as sent.
fn harness(fields: &Fields<'_>) -> Result<Option<String>, FieldError> {
    let Some(harness) = fields.object("harness", &["type"])? else { return Ok(None) };
    Ok(harness.string("type")?.map(String::from))
}

/// Returns the role for models on Bedrock, and its region.
fn bedrock(fields: &Fields<'_>) -> Result<Option<(String, Option<String>)>, FieldError> {
    let Some(providers) = fields.object("inference_providers", &["aws"])? else { return Ok(None) };
    let Some(aws) = providers.object("aws", &["disabled", "role_arn", "region"])? else { return Ok(None) };
    let is_disabled = aws.boolean("disabled")?.unwrap_or(false);
    let region = aws.text("region")?;
    Ok(aws.text("role_arn")?.filter(|_| !is_disabled).map(|role| (role, region)))
}

fn public_share(fields: &Fields<'_>) -> Result<Option<&'static str>, FieldError> {
    let Some(sharing) = fields.object("session_sharing", &["public_access"])? else { return Ok(None) };
    Ok(match sharing.string("public_access")?.as_deref() {
        Some("VIEWER") => Some("public:view"),
        Some("EDITOR") => Some("public:edit"),
        _ => None,
    })
}

/// An empty object counts as unset, like a blank string.
fn mcp_servers(fields: &Fields<'_>, dialect: Dialect) -> Result<Option<Secret>, FieldError> {
    const NAME: &str = "mcp_servers";
    let Some(value) = fields.value(NAME) else { return Ok(None) };
    if json::kind(value) != "an object" {
        return Err(FieldError::wrong_type(&fields.at(NAME), "an object", value));
    }
    let compact = if dialect.sorts_servers() {
        json::compact_sorted(value, MAX_DEPTH)
    } else {
        json::compact(value, MAX_DEPTH)
    };
    let compact = compact.ok_or_else(|| {
        FieldError::new(&fields.at(NAME), &format!("must not nest deeper than {MAX_DEPTH} levels"))
    })?;
    Ok((compact != "{}").then(|| Secret::new(compact)))
}
