//! Finds the run of an assignment that cannot be read as JSON, so that the run can be failed.

use super::{ExecutionKey, json};

/// How many bytes of a message are searched.
const SEARCHED: usize = 64 << 10;

/// Where a token is: the depth of its object or array, and the key of the top-level member that it belongs to.
#[derive(Default)]
struct Place {
    depth: usize,
    /// The last key of the top-level object.
    member: String,
    /// The last key of `data`.
    field: String,
}

impl Place {
    /// Whether it is in the member `data.FIELD`, or deeper.
    fn is(&self, field: &str) -> bool {
        self.member == "data" && self.field == field
    }
}

/// Returns `data.task_id` and `data.execution_id` if the message looks like an assignment: top-level `type` is
/// `task_assignment`. Looks at the first 64 KiB only, so `message` may be the beginning of a message, and its execution may be
/// missing. Text inside strings and in deeper values is not mistaken for any of them.
pub(super) fn key(message: &[u8]) -> Option<ExecutionKey> {
    let (searched, _) = message.split_at(message.len().min(SEARCHED));
    let text = searched.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let (mut kind, mut task_id, mut execution_id) = (None, None, None);
    let mut place = Place::default();
    let mut last = String::new();
    let mut is_value = false;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let mut len = first.len_utf8();
        match first {
            '"' => {
                let Some(end) = string_end(rest) else { break };
                len = end;
                let string = rest.get(..end).and_then(json::unchecked_string).unwrap_or_default();
                match (place.depth, is_value) {
                    (1, true) if place.member == "type" => kind = Some(string),
                    (2, true) if place.is("task_id") => task_id = Some(string),
                    (2, true) if place.is("execution_id") => execution_id = Some(string),
                    _ => last = string,
                }
                is_value = false;
            }
            ':' => {
                is_value = true;
                // The last of several fields with one name counts.
                match place.depth {
                    1 => {
                        place.member = std::mem::take(&mut last);
                        match place.member.as_str() {
                            "type" => kind = None,
                            "data" => (task_id, execution_id) = (None, None),
                            _ => {}
                        }
                    }
                    2 => {
                        place.field = std::mem::take(&mut last);
                        task_id = task_id.filter(|_| !place.is("task_id"));
                        execution_id = execution_id.filter(|_| !place.is("execution_id"));
                    }
                    _ => {}
                }
            }
            '{' | '[' => {
                place.depth += 1;
                place.field.clear();
                is_value = false;
            }
            '}' | ']' => {
                place.depth = place.depth.saturating_sub(1);
                is_value = false;
            }
            ',' => is_value = false,
            _ => {}
        }
        (_, rest) = rest.split_at_checked(len)?;
    }
    (kind? == "task_assignment").then_some(())?;
    let task_id = task_id.filter(|id| !id.trim().is_empty())?;
    Some(ExecutionKey::new(task_id, execution_id.as_deref().map(str::trim)))
}

/// Returns the length of the string at the start, with its quotes; `None` if it does not end.
fn string_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some(end + 2)
}
