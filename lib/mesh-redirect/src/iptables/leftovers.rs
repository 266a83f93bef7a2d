//! What iptables itself leaves behind.
//!
//! The nf_tables variant of iptables makes a table and the kernel's chains when the first rule is added,
//! and keeps them when the last one is gone. They do nothing, but they are seen in every listing. Only
//! nft can delete them.

use std::fmt::Write as _;

use serde_json::Value;

use super::table_name;
use crate::{
    model::Table,
    nftables::{self, objects},
};

/// What iptables names the kernel's chains.
const BUILTIN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// The script for `nft -f -` that deletes those of the tables mangle, raw and nat, of both families, in
/// which there is nothing but the kernel's chains, empty and accepting. Made from the output of
/// `nft --json list ruleset`; empty if there is nothing to do.
///
/// The chains are deleted one by one before their table: should someone have added a rule meanwhile,
/// the kernel refuses, and the transaction has no effect.
pub fn remove_empty_tables(listing: &str) -> Result<String, nftables::Error> {
    let root = serde_json::from_str(listing).map_err(nftables::Error::Json)?;
    let mut script = String::new();
    for family in ["ip", "ip6"] {
        for table in Table::ALL.map(table_name) {
            let here: Vec<_> = objects(&root)?
                .filter(|o| concerns(*o, family, table))
                .collect();
            let chains: Option<Vec<_>> = here
                .iter()
                .filter(|(kind, _)| *kind != "table")
                .map(|o| empty_chain(*o))
                .collect();
            if let (false, Some(chains)) = (here.is_empty(), chains) {
                for chain in chains {
                    // Writing to a string cannot fail.
                    let _ = writeln!(script, "delete chain {family} {table} {chain}");
                }
                let _ = writeln!(script, "delete table {family} {table}");
            }
        }
    }
    Ok(script)
}

fn concerns((kind, object): (&str, &Value), family: &str, table: &str) -> bool {
    let key = if kind == "table" { "name" } else { "table" };
    object.get("family").and_then(Value::as_str) == Some(family)
        && object.get(key).and_then(Value::as_str) == Some(table)
}

/// The name of a chain that may go; rules, sets and chains of others may not.
fn empty_chain<'a>((kind, object): (&str, &'a Value)) -> Option<&'a str> {
    let name = object.get("name")?.as_str()?;
    let accepts = object.get("policy")?.as_str()? == "accept";
    (kind == "chain" && accepts && BUILTIN.contains(&name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(objects: &str) -> String {
        format!(r#"{{"nftables": [{{"table": {{"family": "ip", "name": "nat"}}}}{objects}]}}"#)
    }

    const OUTPUT: &str = r#", {"chain": {"family": "ip", "table": "nat", "name": "OUTPUT",
        "type": "nat", "hook": "output", "prio": -100, "policy": "accept"}}"#;

    #[test]
    fn table_with_empty_builtin_chains_goes() {
        assert_eq!(
            remove_empty_tables(&listing(OUTPUT)).unwrap(),
            "delete chain ip nat OUTPUT\ndelete table ip nat\n"
        );
        assert_eq!(
            remove_empty_tables(&listing("")).unwrap(),
            "delete table ip nat\n"
        );
    }

    #[test]
    fn table_that_anyone_uses_stays() {
        let rule = r#", {"rule": {"family": "ip", "table": "nat", "chain": "OUTPUT", "expr": []}}"#;
        let drops = OUTPUT.replace("accept", "drop");
        let chain = r#", {"chain": {"family": "ip", "table": "nat", "name": "KUBE-SERVICES"}}"#;
        for more in [format!("{OUTPUT}{rule}"), drops, format!("{OUTPUT}{chain}")] {
            assert_eq!(remove_empty_tables(&listing(&more)).unwrap(), "", "{more}");
        }
    }

    #[test]
    fn tables_of_other_names_stay() {
        let other = listing(OUTPUT).replace(r#""nat""#, r#""filter""#);
        assert_eq!(remove_empty_tables(&other).unwrap(), "");
    }
}
