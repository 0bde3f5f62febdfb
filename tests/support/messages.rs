//! Messages whose cost is counted.

use serde_json::json;

/// Returns the text of an assignment of usual size.
pub(crate) fn assignment() -> String {
    let env: serde_json::Map<String, serde_json::Value> =
        (0..8).map(|number| (format!("VARIABLE_{number}"), json!("a value of usual length"))).collect();
    let config = json!({"environment_id": "environment", "model_id": "model", "computer_use_enabled": false});
    json!({"type": "task_assignment", "data": {
        "task_id": "0f5e9c1a-run", "trace_id": "trace", "execution_id": "execution", "docker_image": "task:1",
        "sidecar_image": "agent:1", "env_vars": env, "instance_shape": {"vcpus": 1.5, "memory_gb": 2},
        "task": {"id": "0f5e9c1a-run", "title": "Do it", "task_definition": {"prompt": "Do it, then report."},
            "agent_config_snapshot": config},
    }})
    .to_string()
}
