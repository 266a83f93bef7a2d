//! iptables: input for `iptables-restore --noflush`, made from the output of `iptables-save`.
//!
//! Our rules are in chains of our own, which a restore empties and refills in one commit: no guard rules,
//! no moment without capture. The kernel's chains belong to everybody and get exactly one jump each.
//! Deleting a rule that is not there fails a restore, and adding one that is there doubles it, so what
//! to do about the jumps depends on what is there: [`Saved`] says. Everything here is a function of it.
//!
//! One commit covers one table. Tables are put in place in the order mangle, raw, nat and removed in
//! reverse, so that at any moment what is captured is also handled.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
};

use crate::{
    compare::{Comparison, Verdict},
    contract::probe_set,
    model::{Action, Hook, Match, Rule, RuleSet, Table, Test},
    options::Family,
};

mod leftovers;
mod rule;
mod save;

pub use leftovers::remove_empty_tables;
pub use save::{Error, Saved, Sieve};
use save::{LIMIT, SavedRule, SavedTable};

/// The input that puts the rules of one family in place, and nothing else of ours. If the set does not
/// look at the family, what is left of ours is removed. Empty if there is nothing to do.
pub fn apply(rules: &RuleSet, family: Family, saved: &Saved) -> String {
    if !rules.families().contains(family) {
        return remove(saved);
    }
    let mut input = String::new();
    let (wanted, unwanted): (Vec<_>, Vec<_>) =
        Table::ALL.into_iter().partition(|table| rules.uses(*table));
    for table in wanted {
        fill_table(
            &mut input,
            rules,
            family,
            table,
            saved.table(table_name(table)),
        );
    }
    for table in unwanted {
        clear_table(&mut input, saved.table(table_name(table)));
    }
    input
}

/// The input that removes our chains and every jump to them. Empty if there are none.
pub fn remove(saved: &Saved) -> String {
    let mut input = String::new();
    for table in Table::ALL.into_iter().rev() {
        clear_table(&mut input, saved.table(table_name(table)));
    }
    input
}

/// Compares what a namespace should hold of one family with what it holds. Rules of others are not
/// looked at, unless they jump to our chains.
pub fn compare(wanted: &RuleSet, family: Family, saved: &Saved) -> Verdict {
    let mut comparison = Comparison::default();
    compare_into(&mut comparison, wanted, family, saved);
    comparison.verdict()
}

/// [`compare`], as part of a larger comparison.
pub(crate) fn compare_into(
    comparison: &mut Comparison,
    wanted: &RuleSet,
    family: Family,
    saved: &Saved,
) {
    for table in Table::ALL {
        let held = saved.table(table_name(table));
        let place = match family {
            Family::V4 => format!("ip {}", table_name(table)),
            Family::V6 => format!("ip6 {}", table_name(table)),
        };
        for hook in Hook::ALL {
            let chain = wanted
                .chains_of(table)
                .filter(|_| wanted.families().contains(family))
                .find(|chain| chain.hook == hook);
            let rules: Option<Vec<_>> = chain.map(|chain| chain.rules_of(family).collect());
            compare_chain(comparison, &place, hook, rules.as_deref(), held);
        }
    }
}

/// The name of a table.
pub fn table_name(table: Table) -> &'static str {
    match table {
        Table::Mangle => "mangle",
        Table::Raw => "raw",
        Table::Nat => "nat",
    }
}

/// The name of our chain for a hook.
pub fn chain_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "ISTIO_PRERT",
        Hook::Output => "ISTIO_OUTPUT",
        Hook::Postrouting => "ISTIO_POSTRT",
    }
}

/// A rule as `iptables-save` prints it, without `-A` and chain.
pub fn rule_text(rule: &Rule) -> String {
    RuleText(rule).to_string()
}

/// The kernel's chain at a hook.
fn builtin_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "PREROUTING",
        Hook::Output => "OUTPUT",
        Hook::Postrouting => "POSTROUTING",
    }
}

/// Where the jump goes if it is missing. On the way out the first rule that names a source decides, and
/// others have theirs too; in a pod, rules of its own come first.
fn jump_verb(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting | Hook::Output => "-A",
        Hook::Postrouting => "-I",
    }
}

/// Whether a chain is one of ours, in whatever table.
fn is_own_chain(name: &str) -> bool {
    Hook::ALL.into_iter().any(|hook| chain_name(hook) == name)
}

fn fill_table(
    input: &mut String,
    rules: &RuleSet,
    family: Family,
    table: Table,
    held: Option<&SavedTable>,
) {
    line(input, format_args!("*{}", table_name(table)));
    for chain in rules.chains_of(table) {
        line(input, format_args!(":{} - [0:0]", chain_name(chain.hook)));
    }
    for chain in rules.chains_of(table) {
        for rule in chain.rules_of(family) {
            line(
                input,
                format_args!("-A {} {}", chain_name(chain.hook), RuleText(&rule)),
            );
        }
    }
    let uses = |hook| rules.chains_of(table).any(|chain| chain.hook == hook);
    let mut present: Vec<Hook> = Vec::new();
    for jump in held.into_iter().flat_map(foreign_jumps) {
        match wanted_jump(jump) {
            Some(hook) if uses(hook) && !present.contains(&hook) => present.push(hook),
            _ => line(input, format_args!("-D {} {}", jump.chain, jump.spec)),
        }
    }
    for chain in rules.chains_of(table) {
        if !present.contains(&chain.hook) {
            let (from, to) = (builtin_name(chain.hook), chain_name(chain.hook));
            let verb = jump_verb(chain.hook);
            line(input, format_args!("{verb} {from} -j {to}"));
        }
    }
    let wanted = |name: &str| rules.chains_of(table).any(|c| chain_name(c.hook) == name);
    let unwanted = held.into_iter().flat_map(|table| &table.chains);
    for chain in unwanted.filter(|name| is_own_chain(name) && !wanted(name)) {
        line(input, format_args!("-F {chain}"));
        if held.is_some_and(knows_all_jumps) {
            line(input, format_args!("-X {chain}"));
        }
    }
    line(input, format_args!("COMMIT"));
}

fn clear_table(input: &mut String, held: Option<&SavedTable>) {
    let Some(table) = held else { return };
    let chains: Vec<_> = table
        .chains
        .iter()
        .filter(|name| is_own_chain(name))
        .collect();
    if chains.is_empty() {
        return;
    }
    line(input, format_args!("*{}", table.name));
    for jump in foreign_jumps(table) {
        line(input, format_args!("-D {} {}", jump.chain, jump.spec));
    }
    for chain in &chains {
        line(input, format_args!("-F {chain}"));
    }
    for chain in chains.iter().filter(|_| knows_all_jumps(table)) {
        line(input, format_args!("-X {chain}"));
    }
    line(input, format_args!("COMMIT"));
}

/// Rules outside our chains that lead into them: our own jumps and whatever else would keep a chain
/// from being deleted.
fn foreign_jumps(table: &SavedTable) -> impl Iterator<Item = &SavedRule> {
    table
        .rules
        .iter()
        .filter(|rule| !is_own_chain(&rule.chain))
        .filter(|rule| rule.target().is_some_and(is_own_chain))
}

/// Whether there are no more jumps than are known: a chain that is jumped to cannot be removed.
fn knows_all_jumps(table: &SavedTable) -> bool {
    foreign_jumps(table).count() < LIMIT
}

/// The hook whose jump this rule is: unconditional, from the kernel's chain to ours.
fn wanted_jump(rule: &SavedRule) -> Option<Hook> {
    Hook::ALL
        .into_iter()
        .find(|hook| rule.chain == builtin_name(*hook) && rule.words() == ["-j", chain_name(*hook)])
}

fn compare_chain(
    comparison: &mut Comparison,
    table: &str,
    hook: Hook,
    wanted: Option<&[Rule]>,
    held: Option<&SavedTable>,
) {
    let name = chain_name(hook);
    let place = format!("{table} {name}");
    let exists = held.is_some_and(|table| table.chains.iter().any(|chain| chain == name));
    match (wanted, exists) {
        (Some(rules), true) => {
            comparison.found();
            let in_chain = |rule: &&SavedRule| rule.chain == name;
            let held: Vec<_> = held
                .into_iter()
                .flat_map(|table| table.rules.iter().filter(in_chain))
                .map(|rule| (rule.parse(), rule.spec.clone()))
                .collect();
            let rules: Vec<_> = rules
                .iter()
                .map(|rule| (Some(rule.clone()), rule_text(rule)))
                .collect();
            comparison.sequence(&place, &rules, &held);
        }
        (Some(_), false) => comparison.missing(&place, "chain"),
        (None, true) => comparison.foreign(&place, "chain"),
        (None, false) => {}
    }
    let builtin = format!("{table} {}", builtin_name(hook));
    let leads_here = |rule: &&SavedRule| rule.target() == Some(name);
    let jumps: Vec<_> = held
        .into_iter()
        .flat_map(foreign_jumps)
        .filter(leads_here)
        .map(|rule| (wanted_jump(rule), format!("{} {}", rule.chain, rule.spec)))
        .collect();
    let jump = wanted.map(|_| (Some(hook), format!("{} -j {name}", builtin_name(hook))));
    comparison.sequence(&builtin, jump.as_slice(), &jumps);
}

fn line(input: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(input, "{text}");
}

struct RuleText<'a>(&'a Rule);

impl fmt::Display for RuleText<'_> {
    /// In the order and form of `iptables-save`, so that one can be compared with the other by eye.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        let mut module_named = false;
        for condition in rule.matches() {
            match condition {
                // The program is chosen by family.
                Match::Family(_) => {}
                Match::Source(test) => write!(f, "{}-s {} ", not(test), host(*test.value()))?,
                Match::Destination(test) => write!(f, "{}-d {} ", not(test), host(*test.value()))?,
                Match::InInterface(test) => write!(f, "{}-i {} ", not(test), test.value())?,
                Match::OutInterface(test) => write!(f, "{}-o {} ", not(test), test.value())?,
                Match::Protocol(protocol) => write!(f, "-p {protocol} ")?,
                Match::SourcePort(test) | Match::DestinationPort(test) => {
                    if let (false, Some(protocol)) = (module_named, rule.protocol()) {
                        write!(f, "-m {protocol} ")?;
                        module_named = true;
                    }
                    let side = if matches!(condition, Match::SourcePort(_)) {
                        's'
                    } else {
                        'd'
                    };
                    write!(f, "{}--{side}port {} ", not(test), test.value())?;
                }
                Match::PacketMark(test) => {
                    write!(f, "-m mark {}--mark {} ", not(test), test.value())?;
                }
                Match::ConnectionMark(test) => {
                    write!(f, "-m connmark {}--mark {} ", not(test), test.value())?;
                }
                Match::OwnSocket => f.write_str("-m owner --socket-exists ")?,
                Match::ToProbedPod(family) => {
                    write!(f, "-m set --match-set {} dst ", probe_set(*family))?;
                }
            }
        }
        write_action(f, rule.action())
    }
}

fn write_action(f: &mut fmt::Formatter<'_>, action: Action) -> fmt::Result {
    match action {
        Action::Accept => f.write_str("-j ACCEPT"),
        Action::Return => f.write_str("-j RETURN"),
        Action::Redirect(port) => write!(f, "-j REDIRECT --to-ports {port}"),
        Action::MarkConnection(mark) => write!(f, "-j CONNMARK --set-xmark {mark}"),
        Action::RestoreMark => {
            f.write_str("-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff")
        }
        Action::TrackInZone(zone) => write!(f, "-j CT --zone {zone}"),
        Action::SourceAddress(address) => write!(f, "-j SNAT --to-source {address}"),
    }
}

fn not<T>(test: &Test<T>) -> &'static str {
    if test.is_equality() { "" } else { "! " }
}

fn host(address: IpAddr) -> String {
    let length = if address.is_ipv4() { 32 } else { 128 };
    format!("{address}/{length}")
}

#[cfg(test)]
mod tests;
