//! What of the mesh is in a kernel: rules of either packet filter, sets, routes and policy rules.

use testkit_net::{Namespace, filters, namespace::Error};

/// What the mesh has is named so, or has to do with its marks or its routing table.
const MARKS: [&str; 5] = ["istio", "0x111", "0x539", "table 100", "lookup 100"];

/// The lines about the mesh in all that a namespace holds; empty where the mesh has never been or has
/// left nothing.
pub fn of_mesh(network: &Namespace) -> Result<Vec<String>, Error> {
    Ok(about_mesh(&filters::snapshot(network)?))
}

fn about_mesh(held: &str) -> Vec<String> {
    let held = held.to_lowercase();
    let about = |line: &&str| MARKS.iter().any(|mark| line.contains(mark));
    held.lines().filter(about).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_sets_routes_and_chains_of_iptables_are_seen() {
        let held = "table inet other {\n:ISTIO_PRERT - [0:0]\nadd istio-inpod-probes-v4 10.0.0.1\n\
                    32764: from all fwmark 0x111/0xfff lookup 100\nlocal default dev lo table 100\n\
                    default via 10.0.0.1 dev eth0\n";
        assert_eq!(about_mesh(held).len(), 4, "{:?}", about_mesh(held));
    }
}
