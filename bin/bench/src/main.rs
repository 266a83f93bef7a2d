//! Benchmarks of whole parts: `bench istiod`. Run by `hack/bench`, built with optimisation.
//!
//! A figure alone says little on a machine that is shared; with `--baseline PROGRAM`, an earlier build
//! of this program, both are run in turn and the ratios are shown.

use clap::{Parser, Subcommand};

mod figures;
mod istiod;
mod mesh;
mod proxies;

/// Benchmarks of whole parts.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The control plane: a large mesh in memory, and one change on its way to many proxies.
    Istiod(istiod::Arguments),
    /// The proxies of a benchmark, which starts them by itself.
    #[command(hide = true)]
    Proxies(proxies::Arguments),
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match Cli::parse().command {
        Command::Istiod(arguments) => istiod::run(&arguments, &runtime),
        Command::Proxies(arguments) => runtime.block_on(proxies::run(arguments)),
    }
}
