//! Rules in pods and the probe set of a node, by every mechanism, in namespaces.

#[path = "kernel/pods.rs"]
mod pods;
#[path = "kernel/policy.rs"]
mod policy;
#[path = "kernel/probes.rs"]
mod probes;

use install_cni::kernel::{Config, Kernel, Mechanism, Variant};
use mesh_redirect::{Families, options::ProbeAddresses};
use testkit_net::{Namespace, filters};

/// Every mechanism that a node may have.
const MECHANISMS: [Mechanism; 3] = [
    Mechanism::Nftables,
    Mechanism::Iptables(Variant::Nft),
    Mechanism::Iptables(Variant::Legacy),
];

/// A packet filter for this node, by what the node itself uses.
pub(crate) fn config(host: &Namespace) -> Config {
    Config {
        host: host.handle().clone(),
        native_nftables: None,
        iptables: None,
        families: Families::Dual,
        probes: ProbeAddresses::default(),
        branch_interfaces: true,
        parallel: 4,
    }
}

/// The packet filter of a node that was told which mechanism to use.
pub(crate) async fn kernel(host: &Namespace, mechanism: Mechanism) -> Kernel {
    let config = match mechanism {
        Mechanism::Nftables => Config {
            native_nftables: Some(true),
            ..config(host)
        },
        Mechanism::Iptables(variant) => Config {
            iptables: Some(variant),
            ..config(host)
        },
    };
    let kernel = Kernel::detect(&config).await.unwrap();
    assert_eq!(kernel.mechanism(), mechanism);
    kernel
}

/// What the namespace holds, line by line in no order: programs list tables in the order in which they were
/// made.
fn snapshot(namespace: &Namespace) -> Vec<String> {
    let held = filters::snapshot(namespace).unwrap();
    let mut lines: Vec<_> = held.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
