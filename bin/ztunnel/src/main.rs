//! Runs the node proxy: `ztunnel [proxy]`, `ztunnel version`.

use std::{error::Error, process::ExitCode};

use mesh_runtime::{environment::Environment, process};
use ztunnel::{config::Config, program, version::Version};

#[expect(clippy::print_stdout, reason = "the command line's answer")]
fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        // Charts of Istio pass further words, which upstream tolerates too.
        None | Some("proxy") => run(),
        Some("version") => {
            println!("{}", Version::of_this_build());
            Ok(())
        }
        Some("help" | "--help" | "-h") => {
            println!("{}", ztunnel::args::HELP);
            Ok(())
        }
        Some(other) => Err(format!("unknown command `{other}`; try `ztunnel help`").into()),
    };
    process::exit_code("ztunnel", outcome)
}

fn run() -> Result<(), Box<dyn Error>> {
    let config = Config::from_environment(&Environment::of_process())?;
    Ok(program::run(config)?)
}
