//! Runs the control plane: `istiod discovery`, `istiod version`.

use std::{error::Error, process::ExitCode};

use clap::Parser as _;
use istiod::{
    args::{Cli, Command},
    config::Config,
    program, version,
};
use mesh_runtime::{environment::Environment, process};

#[expect(clippy::print_stdout, reason = "the command line's answer")]
fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Version => {
            println!("{}", version::line());
            Ok(())
        }
        Command::Discovery(flags) => run(&flags),
    };
    process::exit_code("istiod", outcome)
}

fn run(flags: &istiod::args::Flags) -> Result<(), Box<dyn Error>> {
    let config = Config::try_new(flags, &Environment::of_process())?;
    Ok(program::run(config)?)
}
