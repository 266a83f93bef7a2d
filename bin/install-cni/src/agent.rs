//! What is in the mesh on this node, and that it stays so.
//!
//! The API server says which pods there are and which belong in the mesh; the kernel says what is.
//! Every pod has a machine that names the next step, and a driver takes it, for one pod one at a
//! time and for no pod while another waits. Nothing is remembered but what can be looked up again: an
//! agent that starts finds what the one before it did.
//!
//! The plugin's calls arrive at the [`Handle`], which implements [`Attach`](crate::parts::Attach).

use std::{path::PathBuf, time::Duration};

use mesh_cni::enrolment::Policy;
use mesh_redirect::Options;

mod attach;
mod driver;
mod feed;
mod handle;
mod machine;
mod metrics;
pub mod netns;
mod notes;
mod pods;
pub mod proxies;
mod registry;
mod sight;
mod status;
mod view;

pub use self::{
    driver::{Agent, Error, Parts},
    feed::Snapshots,
    handle::{Handle, Withdrawn},
    machine::{Phase, Step},
    pods::Reason,
    view::{FailureView, PodView, View},
};

/// What the agent is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node whose pods it looks after, as the API server names it.
    pub node: String,
    /// Which pods belong in the mesh.
    pub policy: Policy,
    /// The rules of a pod whose annotations ask for nothing else.
    pub options: Options,
    /// The namespace of the control plane: ztunnel's pods there are never put in the mesh.
    pub system_namespace: String,
    /// Where things are.
    pub paths: Paths,
    /// How long things take.
    pub patience: Patience,
}

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long the start of a pod waits for its enrolment before it is refused. The plugin waits 25 s.
    pub add: Duration,
    /// The same where Istio's plugin asks, which hangs up after 5 s and would know no reason.
    pub istio_add: Duration,
    /// How often every pod is compared with the kernel.
    pub verify: Duration,
    /// How long a pod that only the plugin told of stays without the watch's word before the API server is
    /// asked for it again. Looked at as often as pods are compared.
    pub confirm: Duration,
}

/// Where things are, as this process sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The agent's directory on the node, which outlives it but not the node's uptime.
    pub run_dir: PathBuf,
    /// The node's root directory: paths that the container runtime names are looked up below it.
    pub host: PathBuf,
    /// The node's `/proc`.
    pub proc: PathBuf,
}

impl Default for Patience {
    /// 20 s, once a minute, and two minutes.
    fn default() -> Self {
        Self {
            add: Duration::from_secs(20),
            istio_add: Duration::from_secs(4),
            verify: Duration::from_secs(60),
            confirm: Duration::from_secs(120),
        }
    }
}
