//! The settings: the command line and the environment, read into a checked [`Config`].

mod arguments;
mod config;
#[cfg(test)]
mod config_tests;
pub(crate) mod docs;
mod error;
mod external;
mod invocation;
mod read;
mod settings;
#[cfg(test)]
mod switch_tests;
mod table;
mod texts;
mod units;
mod url;
mod volumes;
mod words;

pub(crate) use arguments::Arguments;
pub(crate) use config::Config;
use error::ConfigError;
pub use external::{EXTERNAL, External};
pub use settings::Setting;
use settings::{Occurs, ValueHint};
pub(crate) use table::KEY_FILE_LIMIT;
pub use table::SETTINGS;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use table::{MAX_OUTPUT, MAX_TASKS, MIN_OUTPUT, WORKER_ID_LIMIT};
