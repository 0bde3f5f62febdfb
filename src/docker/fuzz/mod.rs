//! Fuzz targets for the engine's answers and Docker's own files. See `crate::fuzz`.

mod files;
mod http;
mod response;
mod streams;

pub use self::files::{certificates, context_meta, docker_host, engine_json, image_reference};
pub use self::http::{http_body, http_head};
pub use self::response::http_response;
pub use self::streams::{log_frames, pull_stream};
pub use super::auth::fuzz::{config_json, helper_answer};

use super::{Error, MAX_MESSAGE};
use crate::fuzz::assert_one_line;

/// Checks that an error is one line, no longer than the client's own text and one message of the engine.
fn assert_error(error: &Error) {
    assert_one_line(&crate::logging::error_chain(error), MAX_MESSAGE + 512);
}
