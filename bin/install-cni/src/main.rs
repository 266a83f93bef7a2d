//! Runs the CNI node agent: `install-cni`, or `install-cni uninstall`, `version`.

use std::{error::Error, process::ExitCode};

use clap::Parser as _;
use install_cni::{
    args::{self, Cli, Flags, Task},
    config::Config,
    program, uninstall, version,
};
use mesh_runtime::{environment::Environment, process};

#[expect(clippy::print_stdout, reason = "the command line's answer")]
fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Some(Task::Version) => {
            println!("{}", version::line());
            Ok(())
        }
        Some(Task::Uninstall(flags)) => remove(&flags),
        None => run(&cli.flags),
    };
    process::exit_code("install-cni", outcome)
}

fn run(flags: &Flags) -> Result<(), Box<dyn Error>> {
    let env = Environment::of_process();
    let config = Config::try_new(flags, &env)?;
    Ok(program::run(config, &args::without_effect(flags, &env))?)
}

fn remove(flags: &Flags) -> Result<(), Box<dyn Error>> {
    let config = Config::of_node(flags, &Environment::of_process())?;
    Ok(uninstall::run(&config)?)
}
