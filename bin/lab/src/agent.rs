//! The CNI agent of one node, and the plugin that it has installed there.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use anyhow::{Context as _, anyhow, bail};
use mesh_net::command;
use mesh_redirect::Backend;
use nix::sys::signal::Signal;
use testkit_net::{Namespace, Process};
use tokio::time::{sleep, timeout};

use crate::{
    control_plane::api::{Api, CNI},
    node::{INTERVAL, PATIENCE},
    program::Program,
};

/// What puts pods in the mesh.
#[derive(Clone, Debug)]
pub struct Cni {
    /// The agent to run on each node.
    pub agent: Program,
    /// The plugin that the agents install.
    pub plugin: PathBuf,
    /// What redirects the pods' traffic.
    pub backend: Backend,
}

/// The agent's account.
const ACCOUNT: &str = "istio-cni";

/// The agent of one node. It is killed when dropped.
#[derive(Debug)]
pub struct NodeAgent {
    node: String,
    program: Program,
    environment: Vec<(String, String)>,
    process: Process,
    folders: Folders,
}

/// The files of a node, as far as the agent and the container runtime have to do with them.
#[derive(Clone, Debug)]
pub(crate) struct Folders(PathBuf);

// === impl Folders ===

impl Folders {
    /// Those of a new node, in a folder of its own.
    pub(crate) fn new(node: &Namespace, dir: &Path) -> io::Result<Self> {
        let folders = Self(dir.to_owned());
        for made in ["bin", "net", "run", "image", "host/var", "host/proc/1/ns"] {
            fs::create_dir_all(dir.join(made))?;
        }
        let random = "proc/sys/kernel/random";
        fs::create_dir_all(dir.join("host").join(random))?;
        // The node's own processes are the machine's; its network is a namespace.
        for (from, to) in [
            ("host/proc/1/ns/net", node.path()),
            ("host/run", PathBuf::from("/run")),
            ("host/var/run", PathBuf::from("/run")),
        ] {
            symlink(to, dir.join(from))?;
        }
        let boot = Path::new("/").join(random).join("boot_id");
        fs::copy(boot, dir.join("host").join(random).join("boot_id"))?;
        Ok(folders)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Where the runtime finds plugins.
    pub(crate) fn bin(&self) -> PathBuf {
        self.at("bin")
    }

    /// Where the runtime finds its configuration.
    pub(crate) fn net(&self) -> PathBuf {
        self.at("net")
    }

    /// The agent's sockets and files.
    pub(crate) fn run(&self) -> PathBuf {
        self.at("run")
    }

    /// Where the node's proxy finds the agent.
    pub(crate) fn ztunnel(&self) -> PathBuf {
        self.at("ztunnel.sock")
    }
}

// === impl NodeAgent ===

impl NodeAgent {
    /// Starts the agent of a node, with the configuration that the operator gives it and the rights of its
    /// account.
    pub(crate) async fn start(
        (name, network): (&str, &Namespace),
        cni: &Cni,
        api: &Api,
        folders: &Folders,
    ) -> anyhow::Result<Self> {
        let image = folders.at("image");
        fs::copy(&cni.plugin, image.join("istio-cni"))
            .with_context(|| format!("copy the plugin {}", cni.plugin.display()))?;
        let kubeconfig = folders.at("kubeconfig");
        fs::write(&kubeconfig, api.kubeconfig_of(CNI, ACCOUNT).await?)?;
        let text = |path: PathBuf| path.display().to_string();
        let native = cni.backend == Backend::Nftables;
        let own = [
            ("NODE_NAME", name.to_owned()),
            ("POD_NAME", format!("istio-cni-node-{name}")),
            ("POD_NAMESPACE", CNI.to_owned()),
            ("KUBECONFIG", text(kubeconfig)),
            ("HOST_ROOT_DIR", text(folders.at("host"))),
            ("IMAGE_CNI_BIN_DIR", text(image)),
            ("MOUNTED_CNI_BIN_DIR", text(folders.bin())),
            ("MOUNTED_CNI_NET_DIR", text(folders.net())),
            ("CNI_AGENT_RUN_DIR", text(folders.run())),
            ("ZTUNNEL_UDS_ADDRESS", text(folders.ztunnel())),
            ("NATIVE_NFTABLES", native.to_string()),
            ("RUST_LOG", "info".to_owned()),
            ("RUST_BACKTRACE", "1".to_owned()),
            // For the programs of iptables.
            ("PATH", std::env::var("PATH").unwrap_or_default()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        let mut environment = api.agent_config().await?;
        environment.extend(own);
        let process = spawn(&cni.agent, &environment, network)?;
        Ok(Self {
            node: name.to_owned(),
            program: cni.agent.clone(),
            environment,
            process,
            folders: folders.clone(),
        })
    }

    /// Waits until new pods are taken care of.
    pub(crate) async fn ready(&mut self, network: &Namespace) -> anyhow::Result<()> {
        let ready = async {
            loop {
                if let Some(status) = self.process.status()? {
                    bail!("it ended with {status}");
                }
                let said = self.ask(network, "http://127.0.0.1:8000/readyz").await;
                if said.is_ok() {
                    return Ok(());
                }
                sleep(INTERVAL).await;
            }
        };
        let waited = timeout(PATIENCE, ready).await;
        let waited = waited.unwrap_or_else(|_| Err(anyhow!("it is not ready after {PATIENCE:?}")));
        waited.map_err(|why| {
            let (node, log) = (&self.node, self.log());
            anyhow!("the CNI agent of {node} did not come up: {why}; its log:\n{log}")
        })
    }

    /// What the agent shows on one of its ports.
    pub async fn ask(&self, network: &Namespace, url: &str) -> anyhow::Result<String> {
        let arguments = ["--silent", "--show-error", "--fail", "--max-time", "5", url];
        let curl = command::Command::new("curl").args(arguments);
        Ok(curl.netns(network.handle()).run().await?.stdout)
    }

    /// Starts it again after its end.
    pub(crate) async fn restart(&mut self, network: &Namespace) -> anyhow::Result<()> {
        self.process = spawn(&self.program, &self.environment, network)?;
        self.ready(network).await
    }

    /// Ends it as a crash would.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(PATIENCE).await?;
        Ok(())
    }

    /// Asks it to end, as the kubelet does. Files and rules stay, unless its DaemonSet has gone.
    pub async fn terminate(&mut self) -> anyhow::Result<()> {
        let status: ExitStatus = self.process.terminate(2 * PATIENCE).await?;
        anyhow::ensure!(status.success(), "the CNI agent ended with {status}");
        Ok(())
    }

    /// Asks it to end, unless it has ended before.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        match self.process.status()? {
            None => self.terminate().await,
            Some(_ended) => Ok(()),
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// All it wrote since it was last started.
    pub fn log(&self) -> String {
        format!("{}{}", self.process.stdout(), self.process.stderr())
    }

    /// What of its own is on the node: its files, and its entry in the CNI configuration.
    pub fn left(&self) -> anyhow::Result<Vec<String>> {
        let mut left = Vec::new();
        for folder in [self.folders.run(), self.folders.bin(), self.folders.net()] {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if !name.contains("lab") || fs::read_to_string(&path)?.contains("istio-cni") {
                    left.push(path.display().to_string());
                }
            }
        }
        Ok(left)
    }
}

fn spawn(
    program: &Program,
    environment: &[(String, String)],
    network: &Namespace,
) -> anyhow::Result<Process> {
    let mut command = program.command()?;
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    program.complete(&mut command);
    network.spawn(command).context("start the CNI agent")
}
