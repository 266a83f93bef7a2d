//! Runs the operator: `operator`, or `operator run`, `render`, `rights`, `version`.

use std::{error::Error, process::ExitCode};

use clap::Parser as _;
use mesh_runtime::{environment::Environment, process};
use operator::{
    args::{Cli, Command, Flags},
    config::Config,
    program,
    render::{self, Output},
    rights, version,
};

#[expect(clippy::print_stdout, reason = "the command line's answer")]
fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = match cli.command {
        None if cli.flags.version => Some(Command::Version),
        command => command,
    };
    let outcome = match command {
        Some(Command::Version) => {
            println!("{}", version::line());
            Ok(())
        }
        Some(Command::Run(flags)) => run(&flags),
        Some(Command::Render(flags)) => print(render::from_file(&flags)),
        Some(Command::Rights(flags)) => print(rights::printed(&flags)),
        None => run(&cli.flags),
    };
    process::exit_code("operator", outcome)
}

fn run(flags: &Flags) -> Result<(), Box<dyn Error>> {
    let config = Config::try_new(flags, &Environment::of_process())?;
    Ok(program::run(config, &flags.without_effect())?)
}

/// Objects on standard output, what has no effect on standard error.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the answer")]
fn print<E: Error + 'static>(output: Result<Output, E>) -> Result<(), Box<dyn Error>> {
    let output = output?;
    for note in &output.notes {
        eprintln!("operator: {note}");
    }
    print!("{}", output.yaml);
    Ok(())
}
