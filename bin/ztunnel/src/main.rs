//! Runs the node proxy: `ztunnel [proxy]`, `ztunnel version`.

use std::{error::Error, process::ExitCode};

use mesh_runtime::environment::Environment;
use ztunnel::{config::Config, program, version::Version};

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the command line's answer"
)]
fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        // Charts of Istio pass further words, which upstream tolerates too.
        None | Some("proxy") => match run() {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => eprintln!("ztunnel: {}", chain(&*error)),
        },
        Some("version") => {
            println!("{}", Version::of_this_build());
            return ExitCode::SUCCESS;
        }
        Some("help" | "--help" | "-h") => {
            println!("{}", ztunnel::args::HELP);
            return ExitCode::SUCCESS;
        }
        Some(other) => eprintln!("ztunnel: unknown command `{other}`; try `ztunnel help`"),
    }
    ExitCode::FAILURE
}

fn run() -> Result<(), Box<dyn Error>> {
    Ok(program::run(Config::from_environment(
        &Environment::of_process(),
    )?)?)
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
