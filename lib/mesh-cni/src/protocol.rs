//! What the plugin says to the agent, over HTTP/1.1 on a Unix socket that only root may use.
//!
//! `/cmdadd` is Istio's plugin's, and all that Istio's agent knows; the others are ours.
//!
//! While a node is upgraded or goes back, either side may be newer than the other: a field that is not known is
//! ignored, and one may be added only if who does not know it still does what is right. What means something else
//! gets a path of its own, of which an older agent says that it does not know it.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

pub mod client;

/// The agent's socket in its run directory.
pub const SOCKET: &str = "pluginevent.sock";

/// Where the agent takes the plugin's log lines, in its run directory.
pub const LOG_SOCKET: &str = "log.sock";

/// What the plugin decides by when it cannot reach the agent, in the agent's run directory.
pub const ENROLMENT_FILE: &str = "enrolment.json";

/// Most bytes of a request or an answer.
pub const MAX_BODY: usize = 1 << 20;

/// A call, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `/cmdadd`: Istio's plugin found that a pod belongs in the mesh; [`IstioAdd`]. Answered by 200 and nothing.
    IstioAdd,
    /// `/v1/add`: a pod gets its network; [`Attachment`]. Answered by 200 and [`Added`].
    Add,
    /// `/v1/check`: is a pod's network as it should be; [`Attachment`]. Answered by 200 and nothing.
    Check,
    /// `/v1/del`: a pod's network goes; [`Attachment`]. Answered by 200 and nothing.
    Delete,
    /// `/v1/gc`: only these are left; [`Valid`]. Answered by 200 and nothing.
    Collect,
    /// `/v1/status`: can pods be added; no body. Answered by 200 and nothing.
    Status,
}

/// What Istio's plugin says of a pod: the field names are its contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct IstioAdd {
    /// The pod's network namespace on the host.
    pub netns: String,
    /// The pod's name.
    pub pod_name: String,
    /// Its namespace.
    pub pod_namespace: String,
    /// Its addresses.
    #[serde(default, rename = "IPs", deserialize_with = "null_is_none")]
    pub ips: Vec<IstioIp>,
}

/// An address of a pod, as Go writes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct IstioIp {
    /// The address and its mask.
    pub address: IstioNet,
}

/// An address with a mask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IstioNet {
    /// The address.
    #[serde(rename = "IP")]
    pub ip: IpAddr,
}

/// One network interface of one pod, as the container runtime names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The network's name in the configuration. A pod may be in several, each with our plugin.
    #[serde(default)]
    pub network: String,
    /// `CNI_CONTAINERID`: the sandbox.
    pub container_id: String,
    /// `CNI_IFNAME`: the interface in the pod.
    pub interface: String,
    /// `CNI_NETNS`, on the host; empty on a deletion after the namespace has gone.
    #[serde(default)]
    pub netns: String,
    /// `K8S_POD_NAME`.
    pub pod_name: String,
    /// `K8S_POD_NAMESPACE`.
    pub pod_namespace: String,
    /// `K8S_POD_UID`; empty from a runtime that does not tell.
    #[serde(default)]
    pub pod_uid: String,
    /// The addresses that the plugins before ours gave the pod.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// What became of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Added {
    /// Whether it is in the mesh now; otherwise it does not belong there.
    pub enrolled: bool,
}

/// The attachments that a node has to a network; whatever else is known of this network can go, and nothing of
/// another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Valid {
    /// The network's name in the configuration.
    #[serde(default)]
    pub network: String,
    /// Sandbox and interface.
    pub attachments: Vec<ValidAttachment>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValidAttachment {
    /// The sandbox.
    pub container_id: String,
    /// The interface in the pod.
    pub interface: String,
}

/// Why the agent did not do what it was asked: the body of every answer but 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// For the one who reads the pod's events: the object, the fault and the remedy.
    pub message: String,
    /// Whether the runtime should try again: CNI error code 11.
    pub again: bool,
}

/// Go writes a list without a value as `null`.
fn null_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IstioIp>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

// === impl IstioAdd ===

impl From<&Attachment> for IstioAdd {
    fn from(attachment: &Attachment) -> Self {
        let ip = |ip: &IpAddr| IstioIp {
            address: IstioNet { ip: *ip },
        };
        Self {
            netns: attachment.netns.clone(),
            pod_name: attachment.pod_name.clone(),
            pod_namespace: attachment.pod_namespace.clone(),
            ips: attachment.addresses.iter().map(ip).collect(),
        }
    }
}

// === impl Verb ===

impl Verb {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::IstioAdd,
        Self::Add,
        Self::Check,
        Self::Delete,
        Self::Collect,
        Self::Status,
    ];

    /// The path of its requests, all of them POST.
    pub fn path(self) -> &'static str {
        match self {
            Self::IstioAdd => "/cmdadd",
            Self::Add => "/v1/add",
            Self::Check => "/v1/check",
            Self::Delete => "/v1/del",
            Self::Collect => "/v1/gc",
            Self::Status => "/v1/status",
        }
    }
}
