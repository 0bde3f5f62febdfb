//! The texts that the worker prints about itself, made from the tables of settings and exit codes: the help, the man
//! page, the completions of three shells and a sample environment file.

mod bash;
mod environment;
mod fish;
mod help;
mod man;
mod manual;
mod roff;
mod shell;
#[cfg(test)]
mod tests;
mod wrap;
mod zsh;

use super::invocation::Invocation;
use super::{Arguments, ConfigError, Setting, texts};
use crate::sys::environment::Environment;

/// The name of the program.
const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A text that `--print` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// The man page, as roff.
    Man,
    /// The completions for bash.
    Bash,
    /// The completions for zsh.
    Zsh,
    /// The completions for fish.
    Fish,
    /// A sample environment file.
    Environment,
    /// The settings of this invocation.
    Settings,
}

/// What the command line asks for, instead of a worker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A text, with a final line break. It depends on no other setting.
    Text(String),
    /// The settings, see [`crate::cli::Listing`].
    Settings,
}

/// Returns what the command line asks for; `None` for a worker.
///
/// # Errors
/// When `--print` names no page.
pub(crate) fn requested(arguments: &Arguments) -> Result<Option<Request>, ConfigError> {
    if arguments.has(&texts::HELP) {
        let text = arguments.command().map_or_else(help::help, help::of_command);
        return Ok(Some(Request::Text(text)));
    }
    if arguments.has(&texts::VERSION) {
        return Ok(Some(Request::Text(format!("{NAME} {VERSION}\n"))));
    }
    let invocation = Invocation { arguments, environment: &Environment::default() };
    Ok(invocation.read_if_given(&texts::PRINT)?.map(|page| {
        Request::Text(match page {
            Page::Man => man::page(),
            Page::Bash => bash::completion(),
            Page::Zsh => zsh::completion(),
            Page::Fish => fish::completion(),
            Page::Environment => environment::sample(),
            Page::Settings => return Request::Settings,
        })
    }))
}

/// The flags of a setting, the short one first.
fn flags(setting: &Setting) -> Vec<&'static str> {
    [setting.short, setting.flag].into_iter().flatten().collect()
}

/// The first part of a setting's help: up to the end of the sentence, or to a semicolon.
fn summary(setting: &Setting) -> &'static str {
    let end = [". ", "; "].into_iter().filter_map(|mark| setting.help.find(mark)).min();
    let first = end.and_then(|end| setting.help.split_at_checked(end)).map(|(first, _)| first);
    first.unwrap_or(setting.help).trim_end_matches('.')
}
