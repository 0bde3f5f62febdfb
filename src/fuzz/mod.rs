//! Entry points for fuzzing: one function for each kind of input from outside.
//!
//! Compiled only with the feature `fuzzing` and for its own test, which runs every function over the seeds in `tests/fuzz/corpus`.
//! The worker never calls it. A function panics if the input causes a panic or breaks an invariant:
//!
//! - input in pieces gives the same result as in one piece;
//! - results are within their limits;
//! - what the worker writes can be read back;
//! - no error and no `Debug` output contains a secret.
//!
//! Functions that need private items of a module are in that module. The only I/O is over socket pairs that a function makes.

mod globs;
mod input;
mod messages;
mod settings;
#[cfg(test)]
mod tests;

pub use self::globs::glob;
pub use self::messages::control_plane;
pub use self::settings::settings;
pub use crate::control_plane::rest::fuzz::run_body;
pub use crate::control_plane::ws::fuzz::{link_answer, link_frames};
pub use crate::docker::fuzz::{
    certificates, config_json, context_meta, docker_host, engine_json, helper_answer, http_body, http_head,
    http_response, image_reference, log_frames, pull_stream,
};
pub use crate::task::fuzz::{collect_output, output_archive, task_output};

pub(crate) use self::input::{Input, MARKER, assert_hidden, assert_one_line, marked};

/// A function that checks one input.
pub type Target = fn(&[u8]);

/// All targets by name, the most critical first. `tests/fuzz/run.sh` reads the names from here, one on each line.
pub const TARGETS: [(&str, Target); 20] = [
    ("http_body", http_body),
    ("http_head", http_head),
    ("log_frames", log_frames),
    ("pull_stream", pull_stream),
    ("control_plane", control_plane),
    ("http_response", http_response),
    ("link_frames", link_frames),
    ("link_answer", link_answer),
    ("run_body", run_body),
    ("task_output", task_output),
    ("output_archive", output_archive),
    ("engine_json", engine_json),
    ("config_json", config_json),
    ("helper_answer", helper_answer),
    ("image_reference", image_reference),
    ("context_meta", context_meta),
    ("docker_host", docker_host),
    ("certificates", certificates),
    ("settings", settings),
    ("glob", glob),
];
