//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use mesh_redirect::Backend;

use crate::{agent::Cni, demo, mesh::Proxies, program::Program};

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
        /// The CNI agent to run on both nodes; without one, the agent built into this program.
        #[arg(long)]
        install_cni: Option<PathBuf>,
        /// The CNI plugin that the agents install; without one, `istio-cni` beside this program.
        #[arg(long)]
        istio_cni: Option<PathBuf>,
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
    /// Run the CNI agent, as each node of the lab does.
    #[command(hide = true)]
    NodeAgent,
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
            install_cni,
            istio_cni,
            backend,
            keep,
        } => {
            let cni = cni(install_cni, istio_cni, backend);
            match programs(ztunnel, ztunnel_node2, istiod).and_then(|both| Ok((both, cni?))) {
                Ok(((istiod, proxies), cni)) => {
                    return demo::run(&demo::Options {
                        istiod,
                        proxies,
                        cni,
                        keep,
                    });
                }
                Err(error) => Err(error),
            }
        }
        Command::Clean => clean(),
        Command::NodeProxy => node_proxy(),
        Command::NodeAgent => node_agent(),
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

fn cni(agent: Option<PathBuf>, plugin: Option<PathBuf>, backend: Backend) -> anyhow::Result<Cni> {
    let beside = || Ok::<_, std::io::Error>(std::env::current_exe()?.with_file_name("istio-cni"));
    let plugin = plugin.map_or_else(beside, Ok)?;
    anyhow::ensure!(
        plugin.is_file(),
        "there is no CNI plugin {}: build it with `cargo build -p istio-cni`, or name one with --istio-cni",
        plugin.display()
    );
    let agent = agent.map_or_else(Program::built_in_agent, |path| Ok(Program::new(path)))?;
    Ok(Cni {
        agent,
        plugin,
        backend,
    })
}

fn node_agent() -> anyhow::Result<String> {
    let environment = mesh_runtime::environment::Environment::of_process();
    let flags = install_cni::args::Flags::default();
    let config = install_cni::config::Config::try_new(&flags, &environment)?;
    install_cni::program::run(config, &[])?;
    Ok(String::new())
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
