//! The messages that the public control plane expects, as its own worker was recorded to send them.

use serde_json::json;

use super::Fields;

/// The closed list of failure reasons, without those of other back ends than Docker.
const REASONS: [&str; 12] = [
    "unknown",
    "task_timeout",
    "task_cancelled",
    "graceful_shutdown",
    "image_pull",
    "sidecar_prep",
    "container_create",
    "container_start",
    "container_wait",
    "container_exit",
    "container_oom",
    "cleanup",
];

impl Fields<'_> {
    /// Checks a message to the public control plane. Returns `false` if it does not know the type. Its own
    /// worker sends no other fields.
    pub(super) fn upstream(&mut self, kind: &str, worker_id: &str) -> bool {
        match kind {
            "task_claimed" => self.worker(worker_id),
            "task_completed" => {
                self.required_text("message");
                if let Some(state) = self.take("task_state") {
                    self.expect(state == "CANCELLED", format!("task_state is {state}"));
                }
            }
            "task_failed" => {
                self.required_text("message");
                self.reason();
            }
            "task_rejected" => self.required_text("reason"),
            "execution_closed" => {
                self.required_text("execution_id");
                return true;
            }
            _ => return false,
        }
        self.optional_text("execution_id");
        true
    }

    /// Checks the reason, and the exit code, which belongs to an ended container.
    fn reason(&mut self) {
        let reason = self.take("failure_reason").unwrap_or_default();
        let known = reason.as_str().is_some_and(|reason| REASONS.contains(&reason));
        self.expect(known, format!("failure_reason {reason} is missing or unknown"));
        if reason == "container_exit" || reason == "container_oom" {
            self.exit_code(true);
            let code = self.data.get("exit_code").cloned().unwrap_or_default();
            self.expect(code != json!(0), "a failure has the exit code 0");
            self.expect(
                reason == "container_exit" || code == json!(137),
                format!("exit code {code} of an OOM"),
            );
        }
    }
}
