//! What the worker prints about itself: the help text, the man page, the completions of three shells and a sample of
//! an environment file.
//!
//! Owns their form; every name, default and description in them is from the tables of settings and exit codes, so
//! that no page can say something else than another. It must not know how a setting is read or what it is used for.

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

use crate::cli::arguments::Cli;
use crate::cli::{ConfigError, Page, Setting, page};

/// What the program is called.
const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is to be printed instead of running, with a final line break. That needs no setting, and no other one matters.
pub fn asked_for(cli: &Cli) -> Result<Option<String>, ConfigError> {
    match &cli.print {
        _ if cli.help => Ok(Some(help::help())),
        _ if cli.version => Ok(Some(format!("{NAME} {VERSION}\n"))),
        Some(word) => page(word).map(|page| Some(text(page))),
        None => Ok(None),
    }
}

fn text(page: Page) -> String {
    match page {
        Page::Man => man::page(),
        Page::Bash => bash::completion(),
        Page::Zsh => zsh::completion(),
        Page::Fish => fish::completion(),
        Page::Environment => environment::sample(),
    }
}

/// The flags of a setting, the short one first.
fn flags(setting: &Setting) -> Vec<&'static str> {
    [setting.short, setting.flag].into_iter().flatten().collect()
}

/// What a setting does, in as few words as fit beside it: the first part of its description.
fn summary(setting: &Setting) -> &'static str {
    let help = setting.help;
    let end = [". ", "; "].into_iter().filter_map(|mark| help.find(mark)).min();
    end.and_then(|end| help.get(..end)).unwrap_or(help).trim_end_matches('.')
}
