//! What the program runs with: values only. `args` fills them from the environment.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use serde::{Serialize, Serializer};

/// Everything that can be set from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches of the contract"
)]
pub struct Config {
    /// Who this proxy is, to the control plane and to itself.
    pub node: Node,
    /// Where workloads, services and policies come from; `None` where `XDS_ADDRESS` is empty.
    pub discovery: Option<ControlPlane>,
    /// Where certificates come from.
    pub ca: ControlPlane,
    /// The service-account token shown to both.
    pub token: TextSource,
    /// Validity asked of the certificate authority.
    pub certificate_ttl: Duration,
    /// The CNI agent's socket.
    pub zds_socket: PathBuf,
    /// Sockets in pods.
    pub sockets: Sockets,
    /// Tunnels.
    pub http2: Http2,
    /// How long connections may go on after the signal to stop.
    pub termination_deadline: Duration,
    /// Data-plane worker threads.
    pub worker_threads: usize,
    /// Answer CONNECT with the destination's attributes, and read those of requests.
    pub baggage: bool,
    /// Deliver application tunnels to the loopback address.
    pub localhost_app_tunnel: bool,
    /// Say at `info` how policies decided, not at `debug`.
    pub policy_info_logging: bool,
    /// Allow TLS 1.2 with ECDHE and AES-GCM besides TLS 1.3.
    pub tls12: bool,
    /// Namespace that wins when several services share an address or host name.
    pub preferred_service_namespace: Option<Arc<str>>,
    /// Where the program itself listens.
    pub listen: Listen,
    /// Logging.
    pub log: Log,
}

/// Who this proxy is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// The Kubernetes node; empty where unknown.
    pub name: Arc<str>,
    /// The cluster.
    pub cluster_id: Arc<str>,
    /// The DNS domain of the cluster.
    pub cluster_domain: Arc<str>,
    /// The network; may be empty.
    pub network: Arc<str>,
    /// The proxy's own address, as the node id carries it.
    pub instance_ip: Arc<str>,
    /// The proxy's pod.
    pub pod_name: Arc<str>,
    /// The proxy's namespace.
    pub pod_namespace: Arc<str>,
    /// The trust domain.
    pub trust_domain: Arc<str>,
    /// `ISTIO_META_*` and `ISTIO_METAJSON_*`, and what is derived.
    pub metadata: BTreeMap<String, serde_json::Value>,
}

/// One endpoint of the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlane {
    /// `https://host:port`.
    pub address: String,
    /// What its certificate must chain to.
    pub roots: TextSource,
    /// A further name its certificate may carry.
    pub alternative_name: Option<String>,
    /// Extra request headers; they may hold secrets and are not shown.
    #[serde(skip)]
    pub headers: BTreeMap<String, String>,
}

/// A text that stands in a file, or in the variable itself, or with the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextSource {
    /// Re-read from this file at every use.
    File(PathBuf),
    /// The text itself.
    Literal(String),
    /// The system's root certificates.
    System,
}

/// Sockets in pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sockets {
    /// `SO_MARK` of every socket, by which the pod's rules know them.
    pub packet_mark: u32,
    /// `SO_REUSEPORT` on listeners, so that two proxies may overlap in an upgrade.
    pub reuse_port: bool,
    /// Keep the client's address towards the application: `None` tries, `Some(true)` insists.
    pub original_source: Option<bool>,
    /// Listen on and connect to IPv6.
    pub ipv6: bool,
    /// TCP keepalive; `None` is off.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT` after the keepalive's own limit.
    pub user_timeout: bool,
}

/// TCP keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub time: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Probes before the connection counts as dead.
    pub retries: u32,
}

/// HTTP/2 and the pool of tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Http2 {
    /// Flow-control window of a stream, in bytes.
    pub stream_window: u32,
    /// Flow-control window of a connection, in bytes.
    pub connection_window: u32,
    /// Largest frame, in bytes.
    pub frame_size: u32,
    /// Streams on one connection before another is opened.
    pub streams_per_connection: u32,
    /// Time after which an unused connection is closed.
    pub unused_release: Duration,
}

/// Where the program itself listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listen {
    /// Admin, on loopback, IPv4 and IPv6.
    pub admin_port: u16,
    /// Metrics.
    pub stats: SocketAddr,
    /// Readiness.
    pub readiness: SocketAddr,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// Directives: `info`, `debug,access=off`.
    pub filter: String,
    /// JSON instead of plain text.
    pub json: bool,
}

// === impl TextSource ===

impl Serialize for TextSource {
    /// Where the text stands; never the text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File(path) => serializer.collect_str(&path.display()),
            Self::Literal(_) => serializer.serialize_str("<inline>"),
            Self::System => serializer.serialize_str("SYSTEM"),
        }
    }
}
