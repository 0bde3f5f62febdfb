//! The command: arguments, environment, logger, signals, run, exit code.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use oz_agent_worker::config::{Config, Environment, KEY_FILE_LIMIT, help};
use oz_agent_worker::docker::{EndpointEnv, RegistryEnv};
use oz_agent_worker::exit::Exit;
use oz_agent_worker::trust::TrustEnv;
use oz_agent_worker::{cli, error_chain, logging, start};

fn main() -> ExitCode {
    let environment: Environment = std::env::vars_os().collect();
    let exit = match cli::parse(std::env::args_os().skip(1)) {
        Ok(cli) if cli.help => print(&help()),
        Ok(cli) if cli.version => print(&format!("oz-agent-worker {}\n", env!("CARGO_PKG_VERSION"))),
        Ok(cli) => configured(&cli, &environment),
        Err(error) => wrong(&error),
    };
    ExitCode::from(exit.code())
}

fn configured(cli: &cli::Cli, environment: &Environment) -> Exit {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let config = match Config::new(cli, environment, cores, &read_file) {
        Ok(config) => config,
        Err(error) => return wrong(&error),
    };
    if let Err(error) = logging::init(config.log_level) {
        return wrong(&error);
    }
    let (engine, registries) = (EndpointEnv::from(environment), RegistryEnv::from(environment));
    let exit = start(&config, &engine, registries, &TrustEnv::from(environment));
    log::logger().flush();
    exit
}

/// One byte more than is allowed is enough to find that a file is too long.
fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(KEY_FILE_LIMIT as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// Before there is a logger, a wrong setting is told in plain words. A closed stderr or stdout is nobody's problem.
fn wrong(error: &dyn std::error::Error) -> Exit {
    let _ = writeln!(io::stderr(), "oz-agent-worker: {}", error_chain(error));
    Exit::Usage
}

fn print(text: &str) -> Exit {
    let _ = io::stdout().write_all(text.as_bytes());
    Exit::Success
}
