//! nftables: a script for `nft -f -`, and comparison with `nft --json list ruleset`.
//!
//! Everything is in three tables of family `inet` that are ours alone. A script replaces each of them as
//! a whole, and the kernel applies a script in one transaction: no packet sees half of it, and a pod's
//! traffic does not slip past while rules are replaced. Tables are deleted and created again rather
//! than flushed: a flush keeps what others put there (chains, and base chains at another priority, which
//! cannot be changed in place).

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
};

use crate::{
    contract::probe_set,
    model::{Action, Chain, Hook, Mark, Match, Protocol, Rule, RuleSet, Table, Test},
    options::Family,
};

mod held;
mod listing;

pub(crate) use held::{Held, HeldBase, HeldChain, HeldRule, HeldSet};

pub(crate) use listing::objects;
pub use listing::{Error, compare};

/// The family of our tables; one table holds the rules for IPv4 and IPv6.
pub(crate) const FAMILY: &str = "inet";

/// A base chain's place in the kernel: what the table and the hook ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BaseChain {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) priority: i32,
}

/// The transaction that puts the rules in place, whatever was there before: tables that the set does not
/// use (DNS capture was switched off) disappear in the same moment. So do the members of probe sets.
pub fn apply(rules: &RuleSet) -> String {
    let mut script = String::new();
    for table in Table::ALL {
        delete_table(&mut script, table);
        if rules.uses(table) {
            create_table(&mut script, table, rules);
        }
    }
    script
}

/// The transaction that removes every trace of the rules. Harmless where there are none: a table is
/// created, if need be, in order to be deleted.
pub fn remove() -> String {
    let mut script = String::new();
    for table in Table::ALL {
        delete_table(&mut script, table);
    }
    script
}

/// The name of a table.
pub fn table_name(table: Table) -> &'static str {
    match table {
        Table::Mangle => "istio-ambient-mangle",
        Table::Raw => "istio-ambient-raw",
        Table::Nat => "istio-ambient-nat",
    }
}

/// The name of the chain that holds the rules of a hook.
pub fn chain_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "istio-prerouting",
        Hook::Output => "istio-output",
        Hook::Postrouting => "istio-postrouting",
    }
}

/// A rule as one would type it, without table and chain.
pub fn rule_text(rule: &Rule) -> String {
    RuleText(rule).to_string()
}

pub(crate) fn base_chain(table: Table, hook: Hook) -> BaseChain {
    let name = match hook {
        Hook::Prerouting => "prerouting",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    };
    let (kind, priority) = match (table, hook) {
        // Chains of type route look the route up again when a mark has changed.
        (Table::Mangle, Hook::Output) => ("route", -150),
        (Table::Mangle, _) => ("filter", -150),
        (Table::Raw, _) => ("filter", -300),
        (Table::Nat, Hook::Postrouting) => ("nat", 100),
        (Table::Nat, _) => ("nat", -100),
    };
    BaseChain {
        name,
        kind,
        priority,
    }
}

/// What the members of a family's probe set are.
fn set_type(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    }
}

fn delete_table(script: &mut String, table: Table) {
    let name = table_name(table);
    line(script, format_args!("add table {FAMILY} {name}"));
    line(script, format_args!("delete table {FAMILY} {name}"));
}

fn create_table(script: &mut String, table: Table, rules: &RuleSet) {
    let name = table_name(table);
    line(script, format_args!("add table {FAMILY} {name}"));
    for family in rules.probe_sets(table) {
        let (set, kind) = (probe_set(family), set_type(family));
        line(
            script,
            format_args!("add set {FAMILY} {name} {set} {{ type {kind}; }}"),
        );
    }
    for Chain { hook, .. } in rules.chains_of(table) {
        let BaseChain {
            name: base,
            kind,
            priority,
        } = base_chain(table, *hook);
        let chain = chain_name(*hook);
        line(
            script,
            format_args!(
                "add chain {FAMILY} {name} {base} \
                 {{ type {kind} hook {base} priority {priority}; policy accept; }}"
            ),
        );
        line(script, format_args!("add chain {FAMILY} {name} {chain}"));
        line(
            script,
            format_args!("add rule {FAMILY} {name} {base} counter jump {chain}"),
        );
    }
    for Chain { hook, rules, .. } in rules.chains_of(table) {
        let chain = chain_name(*hook);
        for rule in rules {
            line(
                script,
                format_args!("add rule {FAMILY} {name} {chain} {}", RuleText(rule)),
            );
        }
    }
}

fn line(script: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(script, "{text}");
}

struct RuleText<'a>(&'a Rule);

impl fmt::Display for RuleText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        for condition in rule.matches() {
            write_match(f, rule, condition)?;
        }
        f.write_str("counter ")?;
        match rule.action() {
            Action::Accept => f.write_str("accept"),
            Action::Return => f.write_str("return"),
            Action::Redirect(port) => write!(f, "redirect to :{port}"),
            Action::MarkConnection(Mark { value, mask }) => {
                write!(f, "ct mark set ct mark & {:#010x} | {value:#x}", !mask)
            }
            Action::RestoreMark => f.write_str("meta mark set ct mark"),
            Action::TrackInZone(zone) => write!(f, "ct zone set {zone}"),
            Action::SourceAddress(address) => {
                write!(f, "snat {} to {address}", header(address))
            }
        }
    }
}

fn write_match(f: &mut fmt::Formatter<'_>, rule: &Rule, condition: &Match) -> fmt::Result {
    match condition {
        Match::Family(Family::V4) => f.write_str("meta nfproto ipv4 "),
        Match::Family(Family::V6) => f.write_str("meta nfproto ipv6 "),
        Match::Source(address) => {
            write!(
                f,
                "{} saddr {} ",
                header(*address.value()),
                relation(address)
            )
        }
        Match::Destination(address) => {
            write!(
                f,
                "{} daddr {} ",
                header(*address.value()),
                relation(address)
            )
        }
        Match::InInterface(name) => write!(f, "iifname {} ", quoted(name)),
        Match::OutInterface(name) => write!(f, "oifname {} ", quoted(name)),
        // A port match implies its transport.
        Match::Protocol(_) if has_port(rule) => Ok(()),
        Match::Protocol(protocol) => write!(f, "meta l4proto {protocol} "),
        Match::SourcePort(port) => write!(f, "{} sport {} ", transport(rule), relation(port)),
        Match::DestinationPort(port) => write!(f, "{} dport {} ", transport(rule), relation(port)),
        Match::PacketMark(mark) => write!(f, "meta mark {} ", masked(*mark)),
        Match::ConnectionMark(mark) => write!(f, "ct mark {} ", masked(*mark)),
        // Every user's number; without a socket there is none to compare.
        Match::OwnSocket => f.write_str("meta skuid >= 0 "),
        Match::ToProbedPod(Family::V4) => write!(f, "ip daddr @{} ", probe_set(Family::V4)),
        Match::ToProbedPod(Family::V6) => write!(f, "ip6 daddr @{} ", probe_set(Family::V6)),
    }
}

fn has_port(rule: &Rule) -> bool {
    rule.matches()
        .iter()
        .any(|m| matches!(m, Match::SourcePort(_) | Match::DestinationPort(_)))
}

/// `th` is any transport; our rules always say which.
fn transport(rule: &Rule) -> &'static str {
    match rule.protocol() {
        Some(Protocol::Tcp) => "tcp",
        Some(Protocol::Udp) => "udp",
        None => "th",
    }
}

fn header(address: IpAddr) -> &'static str {
    match Family::of(address) {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn relation<T: fmt::Display>(test: &Test<T>) -> String {
    match test {
        Test::Is(value) => value.to_string(),
        Test::IsNot(value) => format!("!= {value}"),
    }
}

fn quoted<T: fmt::Display>(test: &Test<T>) -> String {
    match test {
        Test::Is(value) => format!("\"{value}\""),
        Test::IsNot(value) => format!("!= \"{value}\""),
    }
}

fn masked(test: Test<Mark>) -> String {
    let operator = if test.is_equality() { "==" } else { "!=" };
    let Mark { value, mask } = *test.value();
    format!("& {mask:#x} {operator} {value:#x}")
}
