//! Runs the control plane: `istiod discovery`, `istiod version`.

use std::{error::Error, process::ExitCode};

use clap::Parser as _;
use istiod::{
    args::{Cli, Command},
    config::Config,
    program, version,
};
use mesh_runtime::{environment::Environment, error};

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the command line's answer"
)]
fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Version => {
            println!("{}", version::line());
            return ExitCode::SUCCESS;
        }
        Command::Discovery(flags) => run(&flags),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("istiod: {}", error::chain(&*failure));
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &istiod::args::Flags) -> Result<(), Box<dyn Error>> {
    let config = Config::try_new(flags, &Environment::of_process())?;
    Ok(program::run(config)?)
}
