//! The settings: the command line and the environment, read into a checked [`Config`].

mod arguments;
mod config;
#[cfg(test)]
mod config_tests;
pub mod docs;
mod error;
mod external;
mod inputs;
mod read;
mod settings;
mod table;
mod units;
mod url;
mod volumes;
mod words;

pub use arguments::{Arguments, ArgumentsError};
pub use config::Config;
pub use error::ConfigError;
pub use external::{EXTERNAL, External};
pub use settings::{Occurs, Setting, ValueHint};
pub use table::{KEY_FILE_LIMIT, MAX_OUTPUT, MAX_TASKS, MIN_OUTPUT, SETTINGS, WORKER_ID_LIMIT};
