//! What the program is told at its start. Values only; [`args`](crate::args) reads them.

use std::{net::SocketAddr, path::PathBuf};

use mesh_kube::queue::Pace;
use mesh_runtime::log;

use crate::{engine::Patience, world::Defaults};

/// All of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The pod's name: identifies this replica in elections and events.
    pub pod: String,
    /// What reconcilers are told, with the namespace of the lock.
    pub defaults: Defaults,
    /// How the API server is reached; without one from inside the cluster.
    pub kubeconfig: Option<PathBuf>,
    /// The program's ports.
    pub listen: Listen,
    /// Whether replicas elect one of them, which alone writes.
    pub elect: bool,
    /// Resources that are reconciled at the same time.
    pub workers: usize,
    /// How fast one resource may go.
    pub pace: Pace,
    /// How long it waits for others.
    pub patience: Patience,
    /// Logs.
    pub log: log::Config,
}

/// The program's ports.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Metrics over HTTPS, for clients that may read them; `None` for no metrics.
    pub metrics: Option<SocketAddr>,
    /// A directory with `tls.crt` and `tls.key` for the metrics; without one the certificate is
    /// self-signed.
    pub certificate: Option<PathBuf>,
    /// Liveness and readiness, plain HTTP.
    pub probes: SocketAddr,
}
