//! The kernel: what rules need of it.

use super::{Finding, Host, KernelFeatures, Presence, Reason};

/// What rules in nftables need, for pods and for the host. Kernels build much of nftables into `nf_tables`
/// itself; what is listed here is a module of its own in every one.
const NFTABLES: [&str; 6] = [
    "nf_tables",
    "nf_conntrack",
    "nft_chain_nat",
    "nft_ct",
    "nft_nat",
    "nft_redir",
];

/// What rules in iptables need, of either variant. `xt_nat` and `xt_REDIRECT` are the targets, the others
/// matches and the set.
const IPTABLES: [&str; 8] = [
    "nf_conntrack",
    "xt_nat",
    "xt_REDIRECT",
    "xt_CT",
    "xt_connmark",
    "xt_mark",
    "xt_owner",
    "ip_set_hash_ip",
];

/// Where iptables keeps its rules: in the old tables, or in nftables.
const TABLES: [&str; 2] = ["ip_tables", "nft_compat"];

/// All modules that are asked for.
pub(super) fn modules() -> impl Iterator<Item = &'static str> {
    NFTABLES.into_iter().chain(IPTABLES).chain(TABLES)
}

/// What is to be said about the kernel.
pub(super) fn findings(host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(packet_filter(&host.kernel));
    findings.extend(ipv6(host));
    findings
}

fn packet_filter(kernel: &KernelFeatures) -> Option<Finding> {
    let absent = |modules: &[&'static str]| {
        let modules = modules.iter().copied();
        modules
            .filter(|module| kernel.is_absent(module))
            .collect::<Vec<_>>()
    };
    let nftables = absent(&NFTABLES);
    if nftables.is_empty() {
        return None;
    }
    let mut iptables = absent(&IPTABLES);
    if absent(&TABLES).len() == TABLES.len() {
        iptables.extend(TABLES);
    }
    let release = &kernel.release;
    if iptables.is_empty() {
        let message = format!(
            "The kernel {release} has nothing of {}, which rules in nftables need: iptables is used",
            nftables.join(", ")
        );
        let remedy =
            "Nothing has to be done; install the kernel's modules for networking to have nftables";
        return Some(Finding::new(Reason::NftablesIncomplete, message, remedy));
    }
    let message = format!(
        "The kernel {release} has nothing of {} for nftables, nor of {} for iptables: no pod can be brought \
         into the mesh",
        nftables.join(", "),
        iptables.join(", ")
    );
    let remedy = "Whoever builds the node's image adds these modules; on RHEL they are in the package \
                  kernel-modules-core, on Amazon Linux and Ubuntu in kernel-modules-extra or \
                  linux-modules-extra";
    Some(Finding::new(Reason::NoPacketFilter, message, remedy))
}

fn ipv6(host: &Host) -> Option<Finding> {
    // A kernel without IPv6 has no such sysctl, though it has others.
    let is_off = host
        .sysctl("net.ipv6.conf.all.disable_ipv6")
        .map_or(!host.sysctls.is_empty(), |off| off == "1");
    if !host.ipv6_wanted || !is_off {
        return None;
    }
    let message =
        "IPv6 is switched off on the node: pods have IPv4 alone, and that is what is redirected";
    let remedy = "Nothing has to be done; `cni.ambient.ipv6=false` says that it is meant";
    Some(Finding::new(Reason::Ipv6Disabled, message, remedy))
}

// === impl KernelFeatures ===

impl KernelFeatures {
    fn is_absent(&self, module: &str) -> bool {
        self.modules.get(module) == Some(&Presence::Absent)
    }
}
