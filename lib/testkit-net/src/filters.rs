//! What the kernel of a namespace holds of packet filters, sets and routes, told by the tools that
//! administrators use.

use crate::namespace::{Error, Namespace};

/// Each with its arguments. Both iptables are asked: their rules do not show in each other's lists.
const LISTINGS: [(&str, &[&str]); 10] = [
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

/// What is said of routes that the kernel makes by itself.
const KERNEL_S_OWN: &str = " proto kernel ";

/// All of it, without counters, comments, and routes that the kernel makes by itself, which come when a link
/// has found its carrier, maybe long after it was set up. Two that are equal mean that nothing has been left.
/// Tables and sets are in the order in which they were made.
pub fn snapshot(namespace: &Namespace) -> Result<String, Error> {
    let mut snapshot = String::new();
    for (program, arguments) in LISTINGS {
        let output = namespace.exec(program, arguments, "")?;
        let told = |line: &&str| !line.starts_with('#') && !line.contains(KERNEL_S_OWN);
        for line in output.lines().filter(told) {
            snapshot += without_counters(line);
            snapshot.push('\n');
        }
    }
    Ok(snapshot)
}

/// `iptables-save` counts at each of the kernel's chains.
fn without_counters(line: &str) -> &str {
    match line.split_once(" [") {
        Some((chain, _counters)) if line.starts_with(':') => chain,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_shows_and_what_the_kernel_does_by_itself_does_not() {
        let namespace = Namespace::new("left").unwrap();
        let before = snapshot(&namespace).unwrap();
        namespace.ip("link set lo up").unwrap();
        namespace.ip("address add 10.9.0.7/24 dev lo").unwrap();
        assert_eq!(snapshot(&namespace).unwrap(), before);
        for (leaves, removes) in [
            ("route add 10.8.0.0/24 dev lo", "route del 10.8.0.0/24"),
            (
                "-6 route add local default dev lo table 100",
                "-6 route del local default table 100",
            ),
            ("rule add fwmark 1 lookup 100", "rule del fwmark 1"),
        ] {
            namespace.ip(leaves).unwrap();
            assert_ne!(snapshot(&namespace).unwrap(), before, "{leaves}");
            namespace.ip(removes).unwrap();
            assert_eq!(snapshot(&namespace).unwrap(), before, "{removes}");
        }
        namespace
            .exec("ipset", &["create", "left", "hash:ip"], "")
            .unwrap();
        assert_ne!(snapshot(&namespace).unwrap(), before);
    }
}
