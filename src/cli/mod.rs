//! The settings: the command line and the environment, read into a checked [`Config`].

mod agent;
mod arguments;
#[cfg(test)]
mod bounds_tests;
mod commands;
mod config;
#[cfg(test)]
mod config_tests;
mod connection;
mod container_table;
mod containers;
mod docker_values;
pub(crate) mod docs;
mod error;
mod external;
mod host;
mod invocation;
mod listing;
#[cfg(test)]
mod listing_tests;
mod logging;
mod monitoring;
mod names;
mod policies;
mod read;
mod settings;
mod settings_file;
#[cfg(test)]
mod source_tests;
mod split;
#[cfg(test)]
mod switch_tests;
mod table;
mod texts;
mod timeouts;
mod units;
#[cfg(test)]
mod upstream_tests;
mod url;
#[cfg(test)]
mod url_tests;
#[cfg(test)]
mod vocabulary_tests;
mod volumes;
mod words;

pub(crate) use arguments::Arguments;
pub(crate) use commands::{CHECK, CheckOptions, HEALTH, STATUS, StatusOptions, served_at};
pub use commands::{COMMANDS, Command};
pub(crate) use config::{Config, KeyFile};
pub(crate) use error::{ConfigError, ConfigErrors};
pub use external::{EXTERNAL, External};
pub(crate) use listing::Listing;
pub(crate) use monitoring::Listen;
pub use settings::Setting;
use settings::{Occurs, ValueHint};
pub(crate) use settings_file::{BadLine, SettingsFile};
pub(crate) use table::KEY_FILE_LIMIT;
pub use table::SETTINGS;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use table::{MAX_OUTPUT, MAX_TASKS, MIN_OUTPUT, WORKER_ID_LIMIT};
