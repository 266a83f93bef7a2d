//! What the program is told at its start. Values only; [`args`](crate::args) reads them.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use mesh_runtime::log;

/// All of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which pod this is.
    pub pod: Pod,
    /// The revision it belongs to; empty for the default one.
    pub revision: String,
    /// The cluster's id in uids and certificates' requests.
    pub cluster_id: Arc<str>,
    /// The DNS domain of the cluster's services, such as `cluster.local`.
    pub domain: Arc<str>,
    /// How the API server is reached; without one from inside the cluster.
    pub kubeconfig: Option<PathBuf>,
    /// The mesh configuration to use where there is no ConfigMap.
    pub mesh_file: PathBuf,
    /// The program's ports.
    pub listen: Listen,
    /// Who may call.
    pub callers: Callers,
    /// The certificate authority.
    pub authority: Authority,
    /// Discovery streams.
    pub streams: Streams,
    /// What can be switched.
    pub features: Features,
    /// Logs.
    pub log: log::Config,
}

/// Which pod this is.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name; identifies this replica in elections.
    pub name: String,
    /// Its namespace: that of the control plane's secrets, locks and ConfigMaps.
    pub namespace: Arc<str>,
}

/// The program's ports. There is none without TLS for discovery or certificates.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Discovery and certificates over TLS.
    pub secure: SocketAddr,
    /// Readiness and debug endpoints, plain HTTP.
    pub http: SocketAddr,
    /// Metrics, plain HTTP.
    pub monitoring: SocketAddr,
}

/// Who may call.
#[derive(Clone, Debug)]
pub struct Callers {
    /// Audiences of which a token must have one.
    pub token_audiences: Vec<String>,
    /// Service accounts, as `namespace/name`, that act for the pods of their node.
    pub trusted_node_accounts: Vec<String>,
}

/// The certificate authority.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Where a plugged-in authority's files are mounted, if there are any.
    pub directory: PathBuf,
    /// Bits of a self-signed RSA root; without them it is EC P-256.
    pub rsa_bits: Option<u32>,
    /// Life of a self-signed root.
    pub root_ttl: Duration,
    /// How often the root's age is looked at.
    pub check_interval: Duration,
    /// Part of a root's life, in percent, that is left when it is replaced.
    pub grace_percent: u8,
    /// Whether replicas look at different times.
    pub jitter: bool,
    /// Life of a workload's certificate if none is asked for.
    pub workload_ttl: Duration,
    /// The longest life that is granted.
    pub max_workload_ttl: Duration,
    /// Further DNS names of the serving certificate.
    pub further_names: Vec<String>,
}

/// Discovery streams.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    /// How old a stream may get; its client then returns, perhaps to another replica.
    pub max_age: Duration,
}

/// What can be switched, under the names of Istio's flags.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, named as their variables"
)]
pub struct Features {
    /// Conditions are written to objects (`AMBIENT_ENABLE_STATUS`).
    pub status: bool,
    /// Policies annotated as dry run are sent to proxies (`AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY`).
    pub dry_run_policies: bool,
    /// ServiceEntries without addresses get some (`PILOT_ENABLE_IP_AUTOALLOCATE`).
    pub allocate_addresses: bool,
    /// A bound waypoint that is not ready is bypassed (`WAYPOINT_UNREADY=bypass`).
    pub bypass_unready_waypoints: bool,
}
