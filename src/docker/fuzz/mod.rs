//! What an engine, and Docker's own files, may have written: the targets that see into this room.
//!
//! Owns what holds for any bytes of theirs; `crate::fuzz` says what that is for. It must not be used by the product.

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

/// What an error of the engine's client may be made of: our own words and one message of the engine.
fn assert_error(error: &Error) {
    assert_one_line(&crate::logging::error_chain(error), MAX_MESSAGE + 512);
}
