//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use mesh_redirect::Backend;

use crate::{demo, mesh::Proxies, program::Program};

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
        /// The istiod to run; without one, the control plane built into this program.
        #[arg(long)]
        istiod: Option<PathBuf>,
        /// What redirects the pods' traffic: nftables or iptables.
        #[arg(long, default_value = "nftables")]
        backend: Backend,
        /// Stop before the pods leave the mesh, and say how to look around; Ctrl-C ends it.
        #[arg(long)]
        keep: bool,
    },
    /// Remove network namespaces that earlier runs left because they were killed.
    Clean,
    /// Run the node proxy, as each node of the lab does.
    #[command(hide = true)]
    NodeProxy,
    /// Run the control plane, as the lab does.
    #[command(hide = true)]
    ControlPlane(Box<istiod::args::Flags>),
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
            istiod,
            backend,
            keep,
        } => match programs(ztunnel, ztunnel_node2, istiod) {
            Ok((istiod, proxies)) => {
                return demo::run(&demo::Options {
                    istiod,
                    proxies,
                    backend,
                    keep,
                });
            }
            Err(error) => Err(error),
        },
        Command::Clean => clean(),
        Command::NodeProxy => node_proxy(),
        Command::ControlPlane(flags) => control_plane(&flags),
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

fn programs(
    both: Option<PathBuf>,
    node2: Option<PathBuf>,
    istiod: Option<PathBuf>,
) -> anyhow::Result<(Program, Proxies)> {
    let node1 = match both {
        Some(path) => Program::new(path),
        None => Program::built_in_proxy()?,
    };
    let node2 = node2.map_or_else(|| node1.clone(), Program::new);
    let istiod = match istiod {
        Some(path) => Program::istiod(path),
        None => Program::built_in_istiod()?,
    };
    Ok((istiod, Proxies { node1, node2 }))
}

fn node_proxy() -> anyhow::Result<String> {
    let environment = mesh_runtime::environment::Environment::of_process();
    ztunnel::program::run(ztunnel::config::Config::from_environment(&environment)?)?;
    Ok(String::new())
}

fn control_plane(flags: &istiod::args::Flags) -> anyhow::Result<String> {
    let environment = mesh_runtime::environment::Environment::of_process();
    istiod::program::run(istiod::config::Config::try_new(flags, &environment)?)?;
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
