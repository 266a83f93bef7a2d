//! Rules in pods and the probe set of a node, by every mechanism, in namespaces.

#[path = "kernel/pods.rs"]
mod pods;
#[path = "kernel/policy.rs"]
mod policy;
#[path = "kernel/probes.rs"]
mod probes;

use install_cni::kernel::{Config, Kernel, Mechanism, Variant};
use mesh_redirect::{Families, options::ProbeAddresses};
use testkit_net::Namespace;

/// Every mechanism that a node may have.
const MECHANISMS: [Mechanism; 3] = [
    Mechanism::Nftables,
    Mechanism::Iptables(Variant::Nft),
    Mechanism::Iptables(Variant::Legacy),
];

fn config(host: &Namespace) -> Config {
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
async fn kernel(host: &Namespace, mechanism: Mechanism) -> Kernel {
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

/// All that the kernel holds about packet filters, sets and routes, without counters and comments, line by
/// line in no order: programs list tables in the order in which they were made.
fn snapshot(namespace: &Namespace) -> Vec<String> {
    let listings: [(&str, &[&str]); 10] = [
        ("nft", &["--stateless", "list", "ruleset"]),
        ("iptables-nft-save", &[]),
        ("ip6tables-nft-save", &[]),
        ("iptables-legacy-save", &[]),
        ("ip6tables-legacy-save", &[]),
        ("ipset", &["save"]),
        ("ip", &["rule"]),
        ("ip", &["-6", "rule"]),
        ("ip", &["route", "show", "table", "all"]),
        ("ip", &["-6", "route", "show", "table", "all"]),
    ];
    let mut lines = Vec::new();
    for (program, arguments) in listings {
        let output = namespace.exec(program, arguments, "").unwrap();
        let told = output.lines().filter(|line| !line.starts_with('#'));
        lines.extend(told.map(|line| match line.split_once(" [") {
            Some((chain, _counters)) if line.starts_with(':') => chain.to_owned(),
            _ => line.to_owned(),
        }));
    }
    lines.sort();
    lines
}
