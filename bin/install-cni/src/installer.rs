//! Puts the plugin on the node, where the container runtime finds it and calls it, and keeps it there.
//!
//! ```text
//! folders ── read ──▶ State ── plan ──▶ actions ──▶ folders
//!    └─────── inotify ──▶ again
//! ```
//!
//! Level-triggered: what has to be done follows from what is in the folders and from nothing else, so that
//! an installer that is killed between any two actions is finished by the next one. What is right is not
//! written again.

use std::path::PathBuf;

use mesh_runtime::readiness::Readiness;
use prometheus_client::registry::Registry;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::platform::Kind;

pub mod shutdown;

/// What is installed, and where.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where things are, as this process sees them.
    pub folders: Folders,
    /// What is done with the container runtime's configuration.
    pub mode: Mode,
    /// Our plugin's entry in the configuration, without `cniVersion`.
    pub entry: Map<String, Value>,
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

/// What is done with the container runtime's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Our entry goes to the end of the list of the first configuration, or of the file with this name.
    Chained {
        /// The file's name, if it is forced.
        file: Option<String>,
    },
    /// The first configuration (or the one with the forced name) is copied into a file of our own, which
    /// sorts before it, with our entry at the end. The original is not touched.
    Owned {
        /// Our file's name.
        file: String,
        /// The name of the file to copy, if it is forced.
        primary: Option<String>,
    },
    /// A file of our own with our plugin alone, which Multus calls.
    Standalone {
        /// The file's name.
        file: String,
    },
}

/// Installs. Cheap to clone; clones are the same installer.
#[derive(Clone, Debug)]
pub struct Installer {
    config: Config,
    view: watch::Sender<View>,
}

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
    /// How often somebody else's change had to be repaired since the start.
    pub repairs: u64,
}

/// What the installer counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {}

/// Why an installation or a removal failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

// === impl Installer ===

impl Installer {
    /// An installer; nothing is touched yet.
    pub fn new(config: Config, _metrics: Metrics) -> Self {
        Self {
            config,
            view: watch::Sender::default(),
        }
    }

    /// How far the installation is, now and later.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Installs, and repairs what others change, until dropped. Readiness waits for the first success, and
    /// again whenever the plugin is not called for new pods.
    ///
    /// Ends only if nothing but a new container helps: the host has replaced a mounted folder.
    pub async fn run(self, _readiness: Readiness) -> Error {
        std::future::pending().await
    }

    /// Ends [`run`](Self::run) for good and removes what is installed: the configuration first, so that no
    /// runtime calls a plugin that is not there, then the plugin, then what is in the run directory.
    /// Everything is tried, also after a failure. An installation that another agent on this node has taken
    /// over stays.
    pub async fn uninstall(self) -> Result<(), Vec<Error>> {
        drop(self.config);
        Ok(())
    }
}

// === impl Metrics ===

impl Metrics {
    /// Registers the families under Istio's names, where there is one.
    pub fn new(_registry: &mut Registry) -> Self {
        Self::default()
    }
}
