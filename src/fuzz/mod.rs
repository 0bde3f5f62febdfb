//! The door for fuzzing: one function for each kind of bytes that somebody else has written.
//!
//! It is there only with the feature `fuzzing`, and for the test below, which runs each function over the seeds in
//! `tests/fuzz/corpus`. Owns the list of targets and what is right for any input: not only that nothing panics, but that
//! pieces give what the whole gives, that bounds hold, that what we write is read back, and that a secret is not shown. Each
//! room has the functions for what only it can see. It must not be used by the product.
//!
//! A function panics when one of these does not hold. It does no I/O but over pairs of sockets that it makes itself.

mod input;
mod messages;
mod settings;
#[cfg(test)]
mod tests;

pub use self::messages::control_plane;
pub use self::settings::settings;
pub use crate::control_plane::ws::fuzz::{link_answer, link_frames};
pub use crate::docker::fuzz::{
    certificates, config_json, context_meta, docker_host, engine_json, helper_answer, http_body, http_head,
    http_response, image_reference, log_frames, pull_stream,
};
pub use crate::task::fuzz::{output_archive, task_output};

pub(crate) use self::input::{Input, MARKER, assert_hidden, assert_one_line, marked};

/// What takes the bytes of one input.
pub type Target = fn(&[u8]);

/// All of them by name, those first where a defect would cost most.
pub const TARGETS: [(&str, Target); 18] = [
    ("http_body", http_body),
    ("http_head", http_head),
    ("log_frames", log_frames),
    ("pull_stream", pull_stream),
    ("control_plane", control_plane),
    ("http_response", http_response),
    ("link_frames", link_frames),
    ("link_answer", link_answer),
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
];
