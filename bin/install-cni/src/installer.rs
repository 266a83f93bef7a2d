//! Puts the plugin on the node, where the container runtime finds it and calls it, and keeps it there.
//!
//! ```text
//! folders ── read ──▶ State ── plan ──▶ actions ──▶ folders
//!    └─────── inotify ──▶ again
//! ```
//!
//! Level-triggered: what has to be done follows from what is in the folders and from nothing else, so that
//! an installer that is killed between any two actions is finished by the next one. What is right is not
//! written again. No credentials are written: the plugin asks the agent, and needs none.

use std::{path::PathBuf, sync::Arc};

use mesh_cni::{
    config::{PLUGIN, PluginConfig},
    protocol,
};
use mesh_runtime::readiness::Readiness;
use serde::Serialize;
use tokio::sync::{Mutex, watch};

use self::{
    claim::Claim,
    plan::{Action, Place},
};
use crate::platform::Kind;

mod act;
mod claim;
mod durable;
mod keeper;
mod listing;
mod metrics;
mod mode;
mod pace;
mod plan;
mod removal;
mod rival;
pub mod shutdown;
mod state;

pub use self::{
    act::Error,
    metrics::Metrics,
    mode::{InvalidName, Mode},
};

/// What is installed, and where.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where things are, as this process sees them.
    pub folders: Folders,
    /// What is done with the container runtime's configuration.
    pub mode: Mode,
    /// Our plugin's entry in the configuration, without `cniVersion`.
    pub entry: PluginConfig,
    /// Whether the group may read files that are ours alone (`CNI_CONF_GROUP_READ`): 0640 instead of 0600.
    pub group_read: bool,
    /// What this agent calls itself to another one on the same node: its pod's name.
    pub identity: String,
    /// The platform, for remedies.
    pub platform: Kind,
}

/// Where things are, as this process sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// The plugin in the image, such as `/opt/cni/bin/istio-cni`.
    pub plugin: PathBuf,
    /// Where the container runtime looks for plugins, such as `/host/opt/cni/bin`.
    pub bin: PathBuf,
    /// Where it looks for its configuration, such as `/host/etc/cni/net.d`.
    pub conf: PathBuf,
    /// The agent's run directory, such as `/var/run/istio-cni`.
    pub run: PathBuf,
}

/// Installs. Cheap to clone; clones are the same installer.
#[derive(Clone, Debug)]
pub struct Installer(Arc<Shared>);

/// How far the installation is, for the debug page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Whether the container runtime calls the plugin for every new pod.
    pub installed: bool,
    /// Why not, or what there is to be aware of; empty if there is nothing.
    pub reason: String,
    /// The configuration file that holds our entry.
    pub file: Option<String>,
    /// How often somebody else's change has been repaired.
    pub repairs: u64,
    /// Whether somebody changes it again and again, so that repairs are held back.
    pub contended: bool,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    metrics: Metrics,
    view: watch::Sender<View>,
    /// Held for as long as the folders are changed.
    stage: Mutex<Stage>,
}

/// Where the installer's life is.
#[derive(Debug, Default)]
struct Stage {
    /// A removal has begun: nothing is installed any more.
    closed: bool,
    claim: Option<Claim>,
}

/// The credentials of Istio's plugin, in the run directory.
const STALE_CREDENTIALS: &str = "istio-cni-kubeconfig";

/// The same in the folder of configurations, as Istio had it before 1.24.
const OLDER_CREDENTIALS: &str = "ZZZ-istio-cni-kubeconfig";

/// What the names of files begin with that an agent has in the run directory, ours or Istio's; behind it may
/// stand what a killed process has given to a file in the making. The claim goes last: until then another
/// agent can be told.
const RUN_FILES: [&str; 8] = [
    // What is being made, by its name in the library for temporary files.
    ".tmp",
    protocol::SOCKET,
    protocol::LOG_SOCKET,
    protocol::ENROLMENT_FILE,
    "sandboxes",
    STALE_CREDENTIALS,
    "istio-cni.log",
    claim::FILE,
];

// === impl Installer ===

impl Installer {
    /// An installer; nothing is touched yet.
    pub fn new(config: Config, metrics: Metrics) -> Self {
        Self(Arc::new(Shared {
            config,
            metrics,
            view: watch::Sender::default(),
            stage: Mutex::default(),
        }))
    }

    /// How far the installation is, now and later.
    pub fn view(&self) -> watch::Receiver<View> {
        self.0.view.subscribe()
    }

    /// Installs, and repairs what others change, until dropped. Readiness waits for the first success, and
    /// again whenever the plugin is not called for new pods.
    ///
    /// Ends only if nothing but a new container helps: the host has replaced a mounted folder.
    pub async fn run(self, readiness: Readiness) -> Error {
        keeper::run(&self.0, readiness).await
    }

    /// Ends [`run`](Self::run) for good and removes what is installed: the configuration first, so that no
    /// runtime calls a plugin that is not there, then the plugin, then what is in the run directory.
    ///
    /// While the configuration cannot be removed the rest stays too; of the rest everything is tried. What
    /// another agent on this node has taken over stays: [`Error::Taken`].
    pub async fn uninstall(self) -> Result<(), Vec<Error>> {
        removal::run(&self.0).await
    }
}

#[cfg(test)]
mod tests;
