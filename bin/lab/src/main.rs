//! `lab demo` shows the mesh; see `lab help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    lab::cli::run()
}
