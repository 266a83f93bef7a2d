//! The process of istiod, on the fabric.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow, bail};
use mesh_net::{command, netns::NetNs};
use nix::sys::signal::Signal;
use serde_json::Value;
use testkit_net::Process;
use tokio::time::{sleep, timeout};

use super::NAMESPACE;
use crate::{
    node::{INTERVAL, PATIENCE},
    program::Program,
};

/// Readiness and debug views, for those in the fabric's namespace.
const HTTP: &str = "127.0.0.1:8080";

/// Metrics, likewise.
const MONITORING: &str = "127.0.0.1:15014";

/// istiod, with its own pod's name through all restarts. It is killed when dropped.
#[derive(Debug)]
pub struct Istiod {
    program: Program,
    netns: Arc<NetNs>,
    address: SocketAddr,
    dir: PathBuf,
    process: Process,
}

// === impl Istiod ===

impl Istiod {
    /// Starts it; it serves when this returns. `dir` is a folder of its own.
    pub(super) async fn start(
        program: &Program,
        netns: &Arc<NetNs>,
        address: SocketAddr,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let mut istiod = Self {
            program: program.clone(),
            netns: netns.clone(),
            address,
            dir: dir.to_owned(),
            process: spawn(program, netns, address, dir)?,
        };
        istiod.ready().await?;
        Ok(istiod)
    }

    /// Where its kubeconfig is.
    pub(super) fn kubeconfig(dir: &Path) -> PathBuf {
        dir.join("kubeconfig")
    }

    /// Ends it as a crash would.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(PATIENCE).await?;
        Ok(())
    }

    /// Starts it again after its end; it serves when this returns.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process = spawn(&self.program, &self.netns, self.address, &self.dir)?;
        self.ready().await
    }

    /// Asks it to end, as the kubelet does.
    pub async fn terminate(&mut self) -> anyhow::Result<()> {
        let status = self.process.terminate(PATIENCE).await?;
        anyhow::ensure!(status.success(), "istiod ended with {status}");
        Ok(())
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// All it wrote since it was last started.
    pub fn log(&self) -> String {
        format!("{}{}", self.process.stdout(), self.process.stderr())
    }

    /// A page of its debug port, asked with curl from the fabric.
    pub async fn debug(&self, path: &str) -> anyhow::Result<Value> {
        let page = self.ask(path).await?;
        serde_json::from_str(&page).with_context(|| format!("read istiod's page {path}"))
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let ready = async {
            loop {
                if let Some(status) = self.process.status()? {
                    bail!("it ended with {status}");
                }
                if self.ask("/ready").await.is_ok() {
                    return Ok(());
                }
                sleep(INTERVAL).await;
            }
        };
        let waited = timeout(PATIENCE, ready).await;
        let waited = waited.unwrap_or_else(|_| Err(anyhow!("it is not ready after {PATIENCE:?}")));
        waited.map_err(|why| anyhow!("istiod did not come up: {why}; its log:\n{}", self.log()))
    }

    async fn ask(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("http://{HTTP}{path}");
        let arguments = ["--silent", "--show-error", "--fail", "--max-time", "5"];
        let curl = command::Command::new("curl").args(arguments).args([url]);
        Ok(curl.netns(&self.netns).run().await?.stdout)
    }
}

/// Starts the program with the flags and variables that a Deployment gives it.
fn spawn(
    program: &Program,
    netns: &NetNs,
    address: SocketAddr,
    dir: &Path,
) -> anyhow::Result<Process> {
    let mut command = program.command()?;
    command
        .current_dir(dir)
        .arg("--kubeconfig")
        .arg(Istiod::kubeconfig(dir))
        .args(["--secureGRPCAddr", &address.to_string()])
        .args(["--httpAddr", HTTP])
        .args(["--monitoringAddr", MONITORING])
        .env("POD_NAME", "istiod-1")
        .env("POD_NAMESPACE", NAMESPACE)
        .env("CLUSTER_ID", "Kubernetes")
        .env("RUST_LOG", "info")
        .env("RUST_BACKTRACE", "1");
    program.complete(&mut command);
    Process::spawn(command, Some(netns)).context("start istiod")
}
