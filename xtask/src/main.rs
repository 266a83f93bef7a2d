//! `cargo xtask <command>`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{Violation, bans, generate, layers, lint, promises, workspace::Workspace};

/// Checks and generators of this workspace.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare the crates' dependencies with the arrows of the architecture and the banned crates.
    Layers,
    /// Hold the files to the rules of CONTRIBUTING.md, and the promises to their tests.
    Lint,
    /// Write the generated files.
    Gen {
        /// Write nothing; fail if a file is not up to date.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let workspace = Workspace::load()?;
    let violations = match Arguments::parse().command {
        Command::Layers => [layers::check(&workspace)?, bans::check(&workspace)?].concat(),
        Command::Lint => [lint::check(&workspace)?, promises::check(&workspace)?].concat(),
        Command::Gen { check: true } => generate::check(&workspace)?,
        Command::Gen { check: false } => generate::write(&workspace).map(|()| Vec::new())?,
    };
    Ok(report(&violations))
}

#[expect(clippy::print_stdout, reason = "the result of a command line program")]
fn report(violations: &[Violation]) -> ExitCode {
    for violation in violations {
        println!("{violation}");
    }
    if violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
