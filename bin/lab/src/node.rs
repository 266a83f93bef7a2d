//! The proxy process of one node, and what it says.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use testkit_net::{Namespace, Process, eventually};

use crate::control_plane::{self, ControlPlane};

/// Longest wait for anything a proxy should do by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The proxy of one node. It is killed when dropped.
#[derive(Debug)]
pub struct NodeProxy {
    name: String,
    process: Process,
}

/// A place in a proxy's log, to read what comes after it.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

/// How a proxy is started.
pub(crate) struct Start<'a> {
    pub(crate) node: &'a str,
    /// The program; without one, the proxy built into this program.
    pub(crate) program: Option<PathBuf>,
    pub(crate) control_plane: &'a ControlPlane,
    pub(crate) agent_socket: &'a Path,
    /// A folder of its own.
    pub(crate) dir: &'a Path,
}

// === impl NodeProxy ===

impl NodeProxy {
    /// Starts a proxy in its node's namespace, with the environment of a DaemonSet's pod.
    pub(crate) fn start(start: &Start<'_>, namespace: &Namespace) -> anyhow::Result<Self> {
        let (token, roots) = (start.dir.join("token"), start.dir.join("root-cert.pem"));
        std::fs::write(&token, start.control_plane.admit_node(start.node))?;
        std::fs::write(&roots, start.control_plane.roots())?;
        let mut command = if let Some(program) = &start.program {
            Command::new(std::path::absolute(program)?)
        } else {
            let mut itself = Command::new(std::env::current_exe()?);
            itself.arg("node-proxy");
            itself
        };
        let url = start.control_plane.url();
        command
            .current_dir(start.dir)
            .env_clear()
            .env("NODE_NAME", start.node)
            .env("POD_NAME", format!("ztunnel-{}", start.node))
            .env("POD_NAMESPACE", "istio-system")
            .env("SERVICE_ACCOUNT", "ztunnel")
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
                .env(format!("{service}_ADDRESS"), &url)
                .env(format!("{service}_ROOT_CA"), &roots)
                .env(format!("ALT_{service}_HOSTNAME"), control_plane::NAME);
        }
        let process = namespace.spawn(command).context("start ztunnel")?;
        Ok(Self {
            name: start.node.to_owned(),
            process,
        })
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
            self.name
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

    /// Asks the proxy to end, as the kubelet does.
    pub(crate) async fn terminate(&mut self) -> anyhow::Result<()> {
        let status = self.process.terminate(PATIENCE).await;
        let status = status.with_context(|| format!("end the ztunnel of {}", self.name))?;
        anyhow::ensure!(
            status.success(),
            "the ztunnel of {} ended with {status}",
            self.name
        );
        Ok(())
    }

    /// Everything it wrote, for a failure's report.
    pub fn log(&self) -> String {
        format!("{}{}", self.process.stdout(), self.process.stderr())
    }
}
