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

/// All of it, without counters and comments: two that are equal mean that nothing has been left. Tables and
/// sets are in the order in which they were made.
pub fn snapshot(namespace: &Namespace) -> Result<String, Error> {
    let mut snapshot = String::new();
    for (program, arguments) in LISTINGS {
        let output = namespace.exec(program, arguments, "")?;
        for line in output.lines().filter(|line| !line.starts_with('#')) {
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
