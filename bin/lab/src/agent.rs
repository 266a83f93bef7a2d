//! What the CNI agent is to a node: puts rules into pods and tells the node's proxy of them.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use mesh_core::workload::PodInfo;
use mesh_net::{command, routing};
use mesh_redirect::{
    Backend, Command, Options, RuleSet,
    backend::{Listed, Program},
    in_pod, iptables,
};
use mesh_zds::agent::{Agent, Pod, Server};
use testkit_net::Namespace;
use tokio::task::JoinHandle;

/// The agent of one node; its socket goes when it is dropped.
#[derive(Debug)]
pub(crate) struct NodeAgent {
    agent: Agent,
    backend: Backend,
    rules: RuleSet,
    serving: JoinHandle<()>,
}

// === impl NodeAgent ===

impl NodeAgent {
    /// Listens for the node's proxy at `socket`.
    pub(crate) fn start(socket: &Path, backend: Backend) -> anyhow::Result<Self> {
        let agent = Agent::new();
        let server = Server::bind(socket, agent.clone()).context("listen for ztunnel")?;
        let serving = tokio::spawn(async move { match server.run().await {} });
        // Names are resolved by the pods' own resolver: the proxy does not answer DNS yet.
        let rules = in_pod(&Options {
            dns_capture: false,
            ..Options::default()
        });
        Ok(Self {
            agent,
            backend,
            rules,
            serving,
        })
    }

    /// Brings a running pod into the mesh. The proxy listens before the rules send it traffic, so that
    /// no connection is refused in between.
    pub(crate) async fn enrol(
        &self,
        uid: &Arc<str>,
        info: &PodInfo,
        pod: &Namespace,
    ) -> anyhow::Result<()> {
        let named = Pod {
            uid: uid.clone(),
            info: info.clone(),
        };
        self.agent
            .add(named, pod.handle().clone())
            .await
            .context("tell ztunnel of the pod")?;
        for family in routing::Family::ALL {
            pod.enter(|| routing::PolicyRoute::IN_POD.ensure(family))??;
        }
        let listed = self.list(pod).await?;
        self.execute(pod, self.backend.apply(&self.rules, &listed)?)
            .await
    }

    /// Takes a pod out of the mesh; its application keeps running.
    pub(crate) async fn remove(&self, uid: &Arc<str>, pod: &Namespace) -> anyhow::Result<()> {
        let listed = self.list(pod).await?;
        self.execute(pod, self.backend.remove(&listed)?).await?;
        self.sweep(pod).await?;
        for family in routing::Family::ALL {
            pod.enter(|| routing::PolicyRoute::IN_POD.remove(family))??;
        }
        match self.agent.delete(uid).await.into_iter().next() {
            Some(error) => Err(error).context("tell ztunnel that the pod leaves"),
            None => Ok(()),
        }
    }

    /// Waits until the node's proxy knows all pods.
    pub(crate) async fn proxy_connected(&self) -> anyhow::Result<()> {
        let mut synced = self.agent.synced();
        let Ok(_count) = synced.wait_for(|count| *count > 0).await else {
            bail!("the agent has ended");
        };
        Ok(())
    }

    async fn list(&self, pod: &Namespace) -> anyhow::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for program in self.backend.listing() {
            let output = run(pod, *program, String::new()).await?;
            listed.push(Listed {
                program: *program,
                output,
            });
        }
        Ok(listed)
    }

    async fn execute(&self, pod: &Namespace, commands: Vec<Command>) -> anyhow::Result<()> {
        for Command { program, input } in commands {
            run(pod, program, input).await?;
        }
        Ok(())
    }

    /// Removes the empty tables that iptables leaves in nftables.
    async fn sweep(&self, pod: &Namespace) -> anyhow::Result<()> {
        if self.backend == Backend::Iptables {
            let listing = run(pod, Program::NftList, String::new()).await?;
            let script = iptables::remove_empty_tables(&listing)?;
            run(pod, Program::Nft, script).await?;
        }
        Ok(())
    }
}

/// Runs a program in a pod, and returns its output.
async fn run(pod: &Namespace, program: Program, input: String) -> anyhow::Result<String> {
    let command = command::Command::new(program.name())
        .args(program.arguments().iter().copied())
        .input(input)
        .netns(pod.handle());
    Ok(command.run().await?.stdout)
}

impl Drop for NodeAgent {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
