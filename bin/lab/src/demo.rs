//! The demo: what the mesh does, with real programs, step by step.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    agent::Cni,
    mesh::{Mesh, NODES, Proxies},
    program::Program,
    report::Report,
};

mod steps;
mod traffic;

/// How the demo is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program to run as control plane.
    pub istiod: Program,
    /// The programs to run as proxies.
    pub proxies: Proxies,
    /// What puts pods in the mesh.
    pub cni: Cni,
    /// Whether to stay when all but the end was shown.
    pub keep: bool,
}

/// How the demo ended before its time.
enum Ended {
    /// Somebody pressed Ctrl-C, or asked it to end.
    Interrupted,
    /// Something does not work.
    Failed(anyhow::Error),
}

/// Shows the mesh on standard output. Success means that everything shown was verified, and that
/// nothing of it remains.
#[expect(clippy::print_stderr, reason = "the demo is for reading")]
pub fn run(options: &Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lab: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut report = Report::default();
    let ended = runtime.block_on(until_interrupted(show(options, &mut report)));
    match ended {
        Ok(()) => all_holds(&mut report),
        // That is how a demo ends that was to be kept.
        Err(Ended::Interrupted) if report.is_kept() => all_holds(&mut report),
        Err(Ended::Interrupted) => {
            eprintln!("\nlab: interrupted; everything was removed");
            ExitCode::FAILURE
        }
        Err(Ended::Failed(error)) => {
            if !report.is_empty() {
                report.say(&format!("\n{report}"));
            }
            eprintln!("\nlab: the demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What was shown was verified, and all is removed.
fn all_holds(report: &mut Report) -> ExitCode {
    let all = report.len();
    report.say(&format!("\n{report}\n{all} of {all} checks hold."));
    ExitCode::SUCCESS
}

/// Runs the demo; a signal drops it half-way, and dropping it removes everything.
async fn until_interrupted(demo: impl Future<Output = anyhow::Result<()>>) -> Result<(), Ended> {
    let failed = |error: std::io::Error| Ended::Failed(error.into());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        outcome = demo => outcome.map_err(Ended::Failed),
        _ = interrupt.recv() => Err(Ended::Interrupted),
        _ = terminate.recv() => Err(Ended::Interrupted),
    }
}

#[expect(clippy::print_stderr, reason = "the demo is for reading")]
async fn show(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let mut mesh = Mesh::start(&options.istiod, &options.proxies, &options.cni).await?;
    match steps::all(&mut mesh, report, options).await {
        Ok(()) => steps::end(mesh, report).await,
        Err(error) => {
            // The logs say most about a failure, and they end with the mesh.
            eprintln!(
                "\nthe log of istiod:\n{}",
                mesh.control_plane().istiod().log()
            );
            for node in NODES {
                eprintln!("\nthe log of {node}:\n{}", mesh.proxy(node)?.log());
                eprintln!(
                    "\nthe log of {node}'s CNI agent:\n{}",
                    mesh.agent(node)?.log()
                );
            }
            Err(error)
        }
    }
}
