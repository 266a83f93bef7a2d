//! The proxy process of one node, and what it says.

use std::{path::Path, process::ExitStatus, time::Duration};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use testkit_net::{Namespace, Process, eventually};

use crate::{
    control_plane::{self, Credentials},
    program::Program,
};

/// Longest wait for anything a proxy should do by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How often something is asked for, each time with a process.
pub(crate) const INTERVAL: Duration = Duration::from_millis(20);

/// The proxy of one node. It is killed when dropped.
#[derive(Debug)]
pub struct NodeProxy {
    pod: String,
    process: Process,
}

/// A place in a proxy's log, to read what comes after it.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

/// How a proxy is started.
pub(crate) struct Start<'a> {
    pub(crate) node: &'a str,
    /// The name of the pod it runs in.
    pub(crate) pod: &'a str,
    pub(crate) program: &'a Program,
    /// Where the control plane is.
    pub(crate) url: &'a str,
    pub(crate) credentials: &'a Credentials,
    pub(crate) agent_socket: &'a Path,
    /// A folder of its own.
    pub(crate) dir: &'a Path,
}

// === impl NodeProxy ===

impl NodeProxy {
    /// Starts a proxy in its pod, with the environment that a DaemonSet gives it.
    pub(crate) fn start(start: &Start<'_>, namespace: &Namespace) -> anyhow::Result<Self> {
        let (token, roots) = (start.dir.join("token"), start.dir.join("root-cert.pem"));
        std::fs::write(&token, &start.credentials.token)?;
        std::fs::write(&roots, &start.credentials.roots)?;
        let mut command = start.program.command()?;
        command
            .current_dir(start.dir)
            .env("NODE_NAME", start.node)
            .env("POD_NAME", start.pod)
            .env("POD_NAMESPACE", control_plane::NAMESPACE)
            .env("SERVICE_ACCOUNT", control_plane::ZTUNNEL)
            .env("CLUSTER_ID", "Kubernetes")
            .env("RUST_LOG", "info")
            .env("RUST_BACKTRACE", "1")
            .env("ZTUNNEL_WORKER_THREADS", "2")
            .env("INPOD_UDS", start.agent_socket)
            .env("AUTH_TOKEN", &token)
            // The proxy does not answer DNS in the lab, whichever it is.
            .env("ISTIO_META_DNS_CAPTURE", "false")
            .env("PROXY_CONFIG", "proxyMetadata: {DNS_CAPTURE: \"false\"}");
        for service in ["XDS", "CA"] {
            command
                .env(format!("{service}_ADDRESS"), start.url)
                .env(format!("{service}_ROOT_CA"), &roots)
                .env(format!("ALT_{service}_HOSTNAME"), control_plane::NAME);
        }
        start.program.complete(&mut command);
        let process = namespace.spawn(command).context("start ztunnel")?;
        Ok(Self {
            pod: start.pod.to_owned(),
            process,
        })
    }

    /// The name of its own pod.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The end of the log as it is now.
    pub fn mark(&self) -> Mark {
        Mark(self.process.stdout().len())
    }

    /// All that it has written since.
    pub fn log_since(&self, mark: Mark) -> String {
        self.process
            .stdout()
            .get(mark.0..)
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits for the first line since `mark` that holds all of `parts`.
    pub async fn line_since(&self, mark: Mark, parts: &[&str]) -> anyhow::Result<String> {
        let find = || {
            let log = self.log_since(mark);
            let complete = log
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            let mut lines = complete.filter(|line| parts.iter().all(|part| line.contains(part)));
            lines.next().map(|line| line.trim_end().to_owned())
        };
        let what = format!(
            "a line with {} in the log of {}",
            parts.join(" and "),
            self.pod
        );
        let mut found = None;
        let waited = eventually(what, PATIENCE, || {
            found = find();
            found.is_some()
        });
        let waited = waited.await;
        let log = || format!("its log since then:\n{}", self.log_since(mark));
        waited.with_context(log)?;
        found.context("a line that was found is gone")
    }

    /// How it ended, or `None` if it runs.
    pub fn status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.process.status()?)
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        Ok(self.process.signal(signal)?)
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let status = self.process.wait(PATIENCE).await;
        status.with_context(|| format!("the end of {}", self.pod))
    }

    /// Asks the proxy to end, as the kubelet does.
    pub async fn terminate(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.wait().await?;
        anyhow::ensure!(status.success(), "{} ended with {status}", self.pod);
        Ok(())
    }

    /// Everything it wrote, for a failure's report.
    pub fn log(&self) -> String {
        format!("{}{}", self.process.stdout(), self.process.stderr())
    }
}
