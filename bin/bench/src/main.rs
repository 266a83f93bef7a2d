//! Benchmarks of whole parts, one subcommand each. Run by `hack/bench`, built with optimisation.
//!
//! A figure alone says little on a machine that is shared; with `--baseline PROGRAM`, an earlier build
//! of this program, both are run in turn and the ratios are shown.

use clap::{Parser, Subcommand};

mod cni;
mod cni_rules;
mod figures;
mod istiod;
mod mesh;
mod operator;
mod process;
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
    /// The rules of pods, by every mechanism. Needs root.
    CniRules(cni_rules::Arguments),
    /// The operator: a mesh installed in a large cluster, and what it costs when nothing is to be done.
    Operator(operator::Arguments),
    /// The CNI agent and its plugin: what a pod's start costs more, and the agent's memory.
    Cni(cni::Arguments),
    /// The CNI agent of a benchmark, which starts it by itself.
    #[command(hide = true)]
    CniProcess(install_cni::args::Flags),
    /// The operator of a benchmark, which starts it by itself.
    #[command(hide = true)]
    OperatorProcess(Box<::operator::args::Flags>),
    /// The proxies of a benchmark, which starts them by itself.
    #[command(hide = true)]
    Proxies(proxies::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Istiod(arguments) => istiod::run(&arguments, &runtime()?),
        Command::CniRules(arguments) => cni_rules::run(&arguments, &runtime()?),
        Command::Operator(arguments) => operator::run(&arguments),
        Command::Cni(arguments) => cni::run(&arguments),
        Command::CniProcess(flags) => cni::agent::run(&flags),
        Command::OperatorProcess(flags) => operator::program::run(&flags),
        Command::Proxies(arguments) => runtime()?.block_on(proxies::run(arguments)),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new()
}
