//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use mesh_redirect::Backend;

use crate::{demo, mesh::Proxies, node::Program};

/// A small ambient mesh on one Linux host.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show, step by step, what the mesh does with real traffic between two nodes.
    Demo {
        /// The ztunnel to run on both nodes; without one, the proxy built into this program.
        #[arg(long)]
        ztunnel: Option<PathBuf>,
        /// Another ztunnel for node 2, such as Istio's own.
        #[arg(long)]
        ztunnel_node2: Option<PathBuf>,
        /// What redirects the pods' traffic: nftables or iptables.
        #[arg(long, default_value = "nftables")]
        backend: Backend,
    },
    /// Remove network namespaces that earlier runs left because they were killed.
    Clean,
    /// Run the node proxy, as each node of the lab does.
    #[command(hide = true)]
    NodeProxy,
}

/// Does what the command line asks for.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the command line's answer"
)]
pub fn run() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo {
            ztunnel,
            ztunnel_node2,
            backend,
        } => match proxies(ztunnel, ztunnel_node2) {
            Ok(proxies) => return demo::run(&demo::Options { proxies, backend }),
            Err(error) => Err(error),
        },
        Command::Clean => clean(),
        Command::NodeProxy => node_proxy(),
    };
    match outcome {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn proxies(both: Option<PathBuf>, node2: Option<PathBuf>) -> anyhow::Result<Proxies> {
    let node1 = match both {
        Some(path) => Program::new(path),
        None => Program::built_in()?,
    };
    let node2 = node2.map_or_else(|| node1.clone(), Program::new);
    Ok(Proxies { node1, node2 })
}

fn node_proxy() -> anyhow::Result<String> {
    let environment = mesh_runtime::environment::Environment::of_process();
    ztunnel::program::run(ztunnel::config::Config::from_environment(&environment)?)?;
    Ok(String::new())
}

fn clean() -> anyhow::Result<String> {
    let removal = testkit_net::leftover::remove_orphans()?;
    if let Some((leftover, error)) = removal.kept.into_iter().next() {
        return Err(anyhow::Error::from(error).context(format!("remove {}", leftover.name)));
    }
    let names = removal.removed.iter().map(|leftover| &*leftover.name);
    Ok(names.fold(String::new(), |said, name| said + "removed " + name + "\n"))
}
