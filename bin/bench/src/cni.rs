//! The CNI agent and its plugin: what a pod's start costs more with them, the rules alone, and the agent's
//! memory. All is real but Kubernetes and ztunnel, which answer at once: the times are ours and the kernel's.
//!
//! ADD is measured on a node with many pods, in turn with the chain alone, with our plugin and a pod that
//! does not belong in the mesh, and with a pod that does; the machine's moods are the same for all three.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use install_cni::{
    kernel::{self, Kernel},
    parts::Rules as _,
};
use mesh_redirect::{Families, Options, options::ProbeAddresses};
use testkit_net::{Namespace, namespace::Run};

use self::node::{Node, Pod};
use crate::figures::{Figures, Repeat};

pub(crate) mod agent;
mod node;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Pods in the mesh that the node has all the time.
    #[arg(long, default_value_t = 110)]
    pods: u32,
    /// Pods of each of the three sorts that are added and deleted.
    #[arg(long, default_value_t = 200)]
    samples: u32,
    /// Pods in the mesh when the agent's memory is weighed.
    #[arg(long, default_value_t = 250)]
    many: u32,
    /// The plugin as it is shipped.
    #[arg(long)]
    plugin: PathBuf,
    #[command(flatten)]
    repeat: Repeat,
}

/// Times of one sort of pod.
#[derive(Debug, Default)]
struct Times(Vec<Duration>);

/// Measures, or has it measured in processes of their own, and prints.
#[expect(clippy::print_stdout, reason = "the answer")]
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments {
        pods,
        samples,
        many,
        plugin,
        repeat,
    } = arguments;
    ensure!(*samples > 0, "there must be pods to measure");
    ensure!(pods <= many, "memory is weighed with at least as many pods");
    if repeat.json {
        let measured = crate::runtime()?.block_on(Box::pin(measure(arguments)))?;
        println!("{}", measured.json()?);
        return Ok(());
    }
    let plugin = plugin.display();
    let command = format!("cni --pods {pods} --samples {samples} --many {many} --plugin {plugin}");
    let table = repeat.table(&command)?;
    println!("{pods} pods on the node, {samples} pods of each sort");
    print!("{table}");
    Ok(())
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    let mut node = Node::start(&arguments.plugin).await?;
    node.agent()
        .weigh("agent's memory without pods", &mut figures)?;
    let mut running = Vec::new();
    while running.len() < usize::try_from(arguments.pods)? {
        running.push(node.start_pod("mesh", running.len()).await?);
    }
    measure_adds(&mut node, arguments.samples, &mut figures).await?;
    measure_rules(node.host(), arguments.samples, &mut figures).await?;
    while running.len() < usize::try_from(arguments.many)? {
        running.push(node.start_pod("mesh", running.len()).await?);
    }
    ensure!(
        node.served() == running.len(),
        "not all pods are in the mesh"
    );
    let when = format!("agent's memory with {} pods", running.len());
    node.agent().weigh(&when, &mut figures)?;
    Ok(figures)
}

/// ADD of the three sorts of pods, in turn.
async fn measure_adds(node: &mut Node, samples: u32, figures: &mut Figures) -> anyhow::Result<()> {
    let (mut alone, mut outside, mut inside) =
        (Times::default(), Times::default(), Times::default());
    let mut plugin = Times::default();
    for sample in 0..samples {
        let pod = node.pod("plain", &format!("alone-{sample}")).await?;
        alone.0.push(add(node, &pod, false)?);
        node.remove_pod(pod, false).await?;
        let pod = node.pod("plain", &format!("outside-{sample}")).await?;
        outside.0.push(add(node, &pod, true)?);
        node.remove_pod(pod, true).await?;
        let pod = node.pod("mesh", &format!("inside-{sample}")).await?;
        inside.0.push(add(node, &pod, true)?);
        plugin.0.extend(node.spent().last());
        ensure!(
            node.serves(&pod),
            "ADD returned before the pod was in the mesh"
        );
        node.remove_pod(pod, true).await?;
    }
    for (what, times) in [
        ("ADD, chain without our plugin", &mut alone),
        ("ADD, pod outside the mesh", &mut outside),
        ("ADD, pod in the mesh", &mut inside),
        ("our plugin's part of it, pod in the mesh", &mut plugin),
    ] {
        times.report(what, figures);
    }
    for (name, quantile) in QUANTILES {
        let (without, with) = (alone.quantile(quantile), inside.quantile(quantile));
        let more = with.as_secs_f64() - without.as_secs_f64();
        figures.set(&format!("ADD, more in the mesh: {name}, ms"), more * 1e3);
        let ratio = with.as_secs_f64() / without.as_secs_f64();
        figures.set(&format!("ADD, more in the mesh: {name}, ratio"), ratio);
    }
    Ok(())
}

fn add(node: &mut Node, pod: &Pod, ours: bool) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    node.add(pod, ours)?;
    Ok(begun.elapsed())
}

/// The rules of a pod in one transaction, in a namespace that has none, and a look whether they are right.
async fn measure_rules(
    host: &Namespace,
    samples: u32,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let config = kernel::Config {
        host: Arc::clone(host.handle()),
        native_nftables: None,
        iptables: None,
        families: Families::Dual,
        probes: ProbeAddresses::default(),
        branch_interfaces: true,
        parallel: 1,
    };
    let kernel = Kernel::detect(&config).await?;
    let options = Options::default();
    let run = Run::new();
    let (mut apply, mut verify) = (Times::default(), Times::default());
    for sample in 0..samples {
        let pod = run.namespace(&format!("rules-{sample}"))?;
        let begun = Instant::now();
        kernel.apply(pod.handle(), &options).await?;
        apply.0.push(begun.elapsed());
        let begun = Instant::now();
        kernel.verify(pod.handle(), &options).await?;
        verify.0.push(begun.elapsed());
    }
    let mechanism = kernel.mechanism();
    apply.report(&format!("rules of a pod by {mechanism}: put in"), figures);
    verify.report(&format!("rules of a pod by {mechanism}: compare"), figures);
    Ok(())
}

/// What is told of many times.
const QUANTILES: [(&str, f64); 2] = [("p50", 0.5), ("p99", 0.99)];

// === impl Times ===

impl Times {
    fn report(&mut self, what: &str, figures: &mut Figures) {
        for (name, quantile) in QUANTILES {
            figures.time(&format!("{what}: {name}"), self.quantile(quantile));
        }
    }

    /// The time that this part of all do not exceed.
    fn quantile(&mut self, part: f64) -> Duration {
        self.0.sort();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "there are some hundred of them"
        )]
        let index = (self.0.len() as f64 * part).ceil() as usize;
        let last = self.0.len().saturating_sub(1);
        let found = self.0.get(index.saturating_sub(1).min(last));
        found.copied().unwrap_or_default()
    }
}

/// The plugin in a folder of its own, as the agent's image has it.
fn image(plugin: &Path, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir(folder)?;
    let copied = std::fs::copy(plugin, folder.join(mesh_cni::config::PLUGIN));
    copied.with_context(|| format!("copy the plugin {}", plugin.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let millis =
            |numbers: &[u64]| Times(numbers.iter().map(|n| Duration::from_millis(*n)).collect());
        let of = |numbers: &[u64], part| millis(numbers).quantile(part).as_millis();
        assert_eq!(of(&[3, 1, 2], 0.5), 2);
        assert_eq!(of(&[3, 1, 2], 0.99), 3);
        assert_eq!(of(&(1..=200).collect::<Vec<_>>(), 0.99), 198);
        assert_eq!(of(&[], 0.5), 0);
    }
}
