//! One pod's rules: what each mechanism takes to put them in place, to verify, to replace and to remove
//! them, for one pod at a time and for many at once.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use install_cni::{
    kernel::{Config, Kernel, Mechanism, Variant},
    parts::Rules as _,
};
use mesh_net::{command::Command, netns::NetNs};
use mesh_redirect::{
    Backend, Families, Options, Verdict, backend::Program, in_pod, options::ProbeAddresses,
};
use testkit_net::{Namespace, namespace::Run};

use crate::figures::{Figures, Repeat, median};

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Pods.
    #[arg(long, default_value_t = 30)]
    pods: u32,
    #[command(flatten)]
    repeat: Repeat,
}

/// Namespaces worked on at once, as the agent does by default.
const PARALLEL: usize = 8;

/// Measures, or has it measured in processes of their own, and prints.
#[expect(clippy::print_stdout, reason = "the answer")]
pub(crate) fn run(arguments: &Arguments, runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
    let Arguments { pods, repeat } = arguments;
    ensure!(*pods > 0, "there is nothing to measure without a pod");
    if repeat.json {
        println!("{}", runtime.block_on(measure(*pods))?.json()?);
    } else {
        print!("{}", repeat.table(&format!("cni-rules --pods {pods}"))?);
    }
    Ok(())
}

/// All figures; they need root, and the programs of all mechanisms.
pub(crate) async fn measure(count: u32) -> anyhow::Result<Figures> {
    let run = Run::new();
    let host = run.namespace("host")?;
    let pods: Vec<_> = (0..count)
        .map(|number| run.namespace(&format!("pod{number}")))
        .collect::<Result<_, _>>()?;
    let mut figures = Figures::default();
    for mechanism in [
        Mechanism::Nftables,
        Mechanism::Iptables(Variant::Nft),
        Mechanism::Iptables(Variant::Legacy),
    ] {
        let kernel = Kernel::detect(&config(&host, mechanism)).await?;
        of_mechanism(&mut figures, &kernel, &pods).await?;
    }
    of_nft(&mut figures, &pods).await?;
    Ok(figures)
}

async fn of_mechanism(
    figures: &mut Figures,
    kernel: &Kernel,
    pods: &[Namespace],
) -> anyhow::Result<()> {
    let name = kernel.mechanism();
    let (options, no_dns) = (Options::default(), without_dns());
    let (options, no_dns) = (&options, &no_dns);
    // The first use loads modules and makes tables.
    for pod in pods {
        kernel.apply(pod.handle(), options).await?;
        kernel.remove(pod.handle()).await?;
    }
    let apply = each(pods, |pod| kernel.apply(pod, options)).await?;
    let verify = each(pods, |pod| async move {
        let verdict = kernel.verify(pod, options).await?;
        ensure!(verdict == Verdict::Same, "{verdict:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    let replace = each(pods, |pod| kernel.apply(pod, no_dns)).await?;
    let remove = each(pods, |pod| kernel.remove(pod)).await?;
    for (verb, time) in [
        ("apply", apply),
        ("verify", verify),
        ("replace", replace),
        ("remove", remove),
    ] {
        figures.time(&format!("{name}: {verb}, one pod"), time);
    }
    let started = Instant::now();
    try_join_all(pods.iter().map(|pod| kernel.apply(pod.handle(), options))).await?;
    let all = started.elapsed() / u32::try_from(pods.len())?;
    figures.time(&format!("{name}: apply, per pod of many at once"), all);
    try_join_all(pods.iter().map(|pod| kernel.remove(pod.handle()))).await?;
    Ok(())
}

/// The program, with the same rules.
async fn of_nft(figures: &mut Figures, pods: &[Namespace]) -> anyhow::Result<()> {
    let rules = in_pod(&Options::default());
    let nft = |program: Program, input: String, pod: Arc<NetNs>| async move {
        let command = Command::new(program.name())
            .args(program.arguments().iter().copied())
            .input(input);
        command.netns(&pod).run().await
    };
    for (verb, commands) in [
        ("apply", Backend::Nftables.apply(&rules, &[])?),
        ("remove", Backend::Nftables.remove(&[])?),
    ] {
        let [command] = commands.as_slice() else {
            anyhow::bail!("nft is not run once");
        };
        let time = each(pods, |pod| {
            nft(command.program, command.input.clone(), pod.clone())
        });
        figures.time(&format!("program nft: {verb}, one pod"), time.await?);
    }
    let time = each(pods, |pod| {
        nft(Program::NftList, String::new(), pod.clone())
    });
    figures.time("program nft: list, one pod", time.await?);
    Ok(())
}

/// Does it to each pod in turn; the middle of the times.
async fn each<'p, F, T, E>(
    pods: &'p [Namespace],
    work: impl Fn(&'p Arc<NetNs>) -> F,
) -> anyhow::Result<Duration>
where
    F: Future<Output = Result<T, E>>,
    E: Into<anyhow::Error>,
{
    let mut times = Vec::new();
    for pod in pods {
        let started = Instant::now();
        work(pod.handle()).await.map_err(Into::into)?;
        times.push(started.elapsed().as_secs_f64());
    }
    median(times)
        .map(Duration::from_secs_f64)
        .context("no pods")
}

fn config(host: &Namespace, mechanism: Mechanism) -> Config {
    let iptables = match mechanism {
        Mechanism::Nftables => None,
        Mechanism::Iptables(variant) => Some(variant),
    };
    Config {
        host: host.handle().clone(),
        native_nftables: Some(iptables.is_none()),
        iptables,
        families: Families::Dual,
        probes: ProbeAddresses::default(),
        branch_interfaces: true,
        parallel: PARALLEL,
    }
}

fn without_dns() -> Options {
    Options {
        dns_capture: false,
        ..Options::default()
    }
}
