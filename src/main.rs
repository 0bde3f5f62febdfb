//! The command: arguments, environment, logger, signals, run, exit code.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use oz_agent_worker::config::{Config, Environment, KEY_FILE_LIMIT};
use oz_agent_worker::exit::Exit;
use oz_agent_worker::{cli, error_chain, logging, pages, start};

fn main() -> ExitCode {
    let environment: Environment = std::env::vars_os().collect();
    let exit = match cli::parse(std::env::args_os().skip(1)) {
        Ok(cli) => match pages::asked_for(&cli) {
            Ok(Some(page)) => print(&page),
            Ok(None) => configured(&cli, &environment),
            Err(error) => wrong(&error, Exit::Usage),
        },
        Err(error) => wrong(&error, Exit::Usage),
    };
    ExitCode::from(exit.code())
}

fn configured(cli: &cli::Cli, environment: &Environment) -> Exit {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let config = match Config::new(cli, environment, cores, &read_file) {
        Ok(config) => config,
        Err(error) => return wrong(&error, Exit::Usage),
    };
    if let Err(error) = logging::init(config.log_level) {
        return wrong(&error, Exit::Usage);
    }
    let exit = start(&config, environment);
    log::logger().flush();
    exit
}

/// One byte more than is allowed is enough to find that a file is too long.
fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(KEY_FILE_LIMIT as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// Before there is a logger, what is wrong is told in plain words. A closed stderr is nobody's problem.
fn wrong(error: &dyn std::error::Error, exit: Exit) -> Exit {
    let _ = writeln!(io::stderr(), "oz-agent-worker: {}", error_chain(error));
    exit
}

/// A reader that has gone is no failure; a page that is not whole is one.
fn print(page: &str) -> Exit {
    match io::stdout().write_all(page.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => wrong(&error, Exit::Failure),
        _ => Exit::Success,
    }
}
