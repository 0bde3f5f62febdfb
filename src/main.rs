//! The entry point: hands the arguments and the environment to [`oz_agent_worker::app`].

use std::process::ExitCode;

use oz_agent_worker::app;
use oz_agent_worker::sys::environment::Environment;

fn main() -> ExitCode {
    let environment: Environment = std::env::vars_os().collect();
    ExitCode::from(app::run(std::env::args_os().skip(1), &environment).code())
}
