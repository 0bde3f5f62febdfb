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

/// What was found of an assignment.
pub(super) struct Salvaged {
    pub(super) key: ExecutionKey,
    /// Whether it has a `trace_id` that is not blank.
    pub(super) trace_id: bool,
}

/// Returns `data.task_id`, `data.execution_id` and whether there is a `data.trace_id` if the message looks like an assignment: top-level `type` is
/// `task_assignment`. Looks at the first 64 KiB only, so `message` may be the beginning of a message, and its execution may be
/// missing. Text inside strings and in deeper values is not mistaken for any of them.
pub(super) fn read(message: &[u8]) -> Option<Salvaged> {
    let (mut kind, mut task_id, mut execution_id, mut trace_id) = (None, None, None, None);
    let mut place = Place::default();
    let mut last = String::new();
    let mut is_value = false;
    let mut rest = beginning(message);
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
                    (2, true) if place.is("trace_id") => trace_id = Some(string),
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
                            "data" => (task_id, execution_id, trace_id) = (None, None, None),
                            _ => {}
                        }
                    }
                    2 => {
                        place.field = std::mem::take(&mut last);
                        task_id = task_id.filter(|_| !place.is("task_id"));
                        execution_id = execution_id.filter(|_| !place.is("execution_id"));
                        trace_id = trace_id.filter(|_| !place.is("trace_id"));
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
    let key = ExecutionKey::new(task_id, execution_id.as_deref().map(str::trim));
    Some(Salvaged { key, trace_id: trace_id.is_some_and(|id| !id.trim().is_empty()) })
}

/// Returns the part that is searched, up to the first byte that is not UTF-8.
fn beginning(message: &[u8]) -> &str {
    let (searched, _) = message.split_at(message.len().min(SEARCHED));
    searched.utf8_chunks().next().map_or("", |chunk| chunk.valid())
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
