//! The agent as a process of its own, so that what it uses is not counted as the node's.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};
use install_cni::{args::Flags, config::Config};
use mesh_runtime::environment::Environment;

use crate::{
    figures::Figures,
    process::{memory, mib},
};

/// A running agent; it is killed when dropped.
#[derive(Debug)]
pub(crate) struct Agent(Child);

/// Is the agent: the entry of the child. Its ports are any, and only the one for probes is open.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let mut config = Config::try_new(flags, &Environment::of_process())?;
    config.listen.probes.set_port(0);
    config.listen.metrics = None;
    config.listen.debug = None;
    Ok(install_cni::program::run(config, &[])?)
}

// === impl Agent ===

impl Agent {
    /// Starts one whose node is in this folder.
    pub(crate) fn start(folder: &Path, node: &str) -> anyhow::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg("cni-process")
            .env("KUBECONFIG", folder.join("kubeconfig"))
            .env("NODE_NAME", node)
            .env("POD_NAMESPACE", "agent")
            .env("EXCLUDE_NAMESPACES", "kube-system")
            .env("CNI_AGENT_RUN_DIR", folder.join("run"))
            .env("ZTUNNEL_UDS_ADDRESS", folder.join("ztunnel.sock"))
            .env("HOST_ROOT_DIR", folder.join("root"))
            .env("ALLOW_SWITCH_TO_HOST_NS", "true")
            .env("IMAGE_CNI_BIN_DIR", folder.join("image"))
            .env("MOUNTED_CNI_BIN_DIR", folder.join("bin"))
            .env("MOUNTED_CNI_NET_DIR", folder.join("net.d"))
            .env("LOG_OUTPUT_LEVEL", "warn")
            .stdin(Stdio::null())
            // Standard output is for figures.
            .stdout(std::io::stderr())
            .spawn()
            .context("start the agent")?;
        Ok(Self(child))
    }

    /// Fails if it has ended.
    pub(crate) fn alive(&mut self) -> anyhow::Result<()> {
        match self.0.try_wait()? {
            Some(status) => bail!("the agent ended: {status}"),
            None => Ok(()),
        }
    }

    /// Its memory as it is.
    pub(crate) fn weigh(&self, when: &str, figures: &mut Figures) -> anyhow::Result<()> {
        for (what, field) in [("resident", "VmRSS:"), ("resident and its own", "RssAnon:")] {
            let bytes = memory(&self.0.id().to_string(), field)?;
            figures.set(&format!("{when}: {what}, MiB"), mib(bytes));
        }
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
