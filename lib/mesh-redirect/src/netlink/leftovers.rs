//! What the nf_tables variant of iptables left of ours, seen from below.
//!
//! To nf_tables the tables of iptables are tables like others. So what is ours in them can be removed in
//! the very batch that puts our own tables in place: the change from one to the other is atomic.

use super::{
    attribute::{Attributes, Writer},
    batch::{Batch, Kind, Message, dump},
    chain,
    expression::family_number,
    get_chain, get_table, rule, table,
};
use crate::{
    iptables::{chain_name, table_name},
    model::{Hook, Table},
    options::Family,
};

/// The chains that iptables makes in every table it uses.
const BUILTIN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// Attributes on the way from an expression to the chain that it jumps to.
const EXPRESSION: u16 = 1;
const DATA: u16 = 2;
const VERDICT: u16 = 2;
const VERDICT_CHAIN: u16 = 2;

/// The tables of iptables.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// Each with the number of chains, sets and objects in it.
    tables: Vec<((Family, Table), u32)>,
    chains: Vec<HeldChain>,
    /// Rules of others that lead into our chains.
    jumps: Vec<HeldRule>,
    /// Tables with something else in them, such as a rule.
    used: Vec<(Family, Table)>,
}

#[derive(Debug)]
struct HeldChain {
    place: (Family, Table),
    name: String,
    /// Whether it does nothing by itself: without a hook, or accepting.
    accepts: bool,
}

#[derive(Debug)]
struct HeldRule {
    place: (Family, Table),
    chain: String,
    handle: Vec<u8>,
}

/// What to send first: the tables, and our chains in them.
pub(super) fn requests() -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    for (family, of) in every_place() {
        let (family, of) = (family_number(family), table_name(of));
        requests.push(get_table(family, of));
        requests.extend(Hook::ALL.map(|hook| get_chain(family, of, chain_name(hook))));
    }
    requests
}

fn every_place() -> impl Iterator<Item = (Family, Table)> {
    let of = |family| Table::ALL.map(|of| (family, of));
    Family::ALL.into_iter().flat_map(of)
}

// === impl Leftovers ===

impl Leftovers {
    /// Whether something of the message is kept.
    pub(super) fn add(&mut self, message: &Message<'_>, attributes: &Attributes<'_>) -> bool {
        let Some(place) = place(message.family, attributes) else {
            return false;
        };
        if message.is(Kind::NewTable) {
            let holds = attributes.number(table::USE).unwrap_or(u32::MAX);
            self.tables.push((place, holds));
        } else if message.is(Kind::NewChain) {
            let policy = attributes.number(chain::POLICY);
            self.chains.push(HeldChain {
                place,
                name: attributes.text(chain::NAME).unwrap_or_default().to_owned(),
                accepts: policy.is_none_or(|policy| policy == chain::POLICY_ACCEPT),
            });
        } else if message.is(Kind::NewRule) {
            return self.add_rule(place, attributes);
        } else {
            return self.mark_used(place);
        }
        true
    }

    fn add_rule(&mut self, place: (Family, Table), attributes: &Attributes<'_>) -> bool {
        let chain = attributes.text(rule::CHAIN).unwrap_or_default();
        if is_own(chain) {
            // It goes with its chain.
            return false;
        }
        if !targets(attributes).any(is_own) {
            return self.mark_used(place);
        }
        self.jumps.push(HeldRule {
            place,
            chain: chain.to_owned(),
            handle: attributes.get(rule::HANDLE).unwrap_or_default().to_owned(),
        });
        true
    }

    fn mark_used(&mut self, place: (Family, Table)) -> bool {
        let new = !self.used.contains(&place);
        if new {
            self.used.push(place);
        }
        new
    }

    /// Requests for the kernel's chains and the rules of the tables that hold chains of ours.
    pub(super) fn further_requests(&self) -> Vec<Vec<u8>> {
        let mut requests = Vec::new();
        for (family, of) in self.places() {
            let (family, of) = (family_number(family), table_name(of));
            requests.extend(BUILTIN.map(|name| get_chain(family, of, name)));
            requests.push(dump(Kind::GetRule, family, |writer| {
                writer.text(rule::TABLE, of);
            }));
        }
        requests
    }

    /// Our chains, each with its place.
    pub(super) fn list(&self) -> impl Iterator<Item = (String, &'static str)> {
        let own = self.chains.iter().filter(|chain| is_own(&chain.name));
        own.map(|chain| {
            let (family, of) = chain.place;
            let place = format!("{} {} {}", word(family), table_name(of), chain.name);
            (place, "chain of iptables")
        })
    }

    /// If not all jumps are known, our chains are emptied instead of removed: one that is jumped to
    /// cannot be.
    pub(super) fn remove(&self, batch: &mut Batch, all_known: bool) {
        for place in self.places() {
            self.empty(batch, place);
            if all_known {
                self.remove_chains(batch, place);
            }
        }
    }

    fn places(&self) -> Vec<(Family, Table)> {
        let own = self.chains.iter().filter(|chain| is_own(&chain.name));
        let mut places: Vec<_> = own.map(|chain| chain.place).collect();
        places.sort();
        places.dedup();
        places
    }

    fn empty(&self, batch: &mut Batch, place: (Family, Table)) {
        for rule in self.jumps.iter().filter(|rule| rule.place == place) {
            push(
                batch,
                (Kind::DeleteRule, "rule"),
                place,
                &rule.chain,
                |writer| {
                    writer.text(rule::CHAIN, &rule.chain);
                    writer.put(rule::HANDLE, &rule.handle);
                },
            );
        }
        for own in self.here(place).filter(|chain| is_own(&chain.name)) {
            push(
                batch,
                (Kind::DeleteRule, "rules of"),
                place,
                &own.name,
                |writer| {
                    writer.text(rule::CHAIN, &own.name);
                },
            );
        }
    }

    fn remove_chains(&self, batch: &mut Batch, place: (Family, Table)) {
        // If nothing else is in the table, iptables made it for us.
        let made_for_us = self.is_empty_without_ours(place);
        let here = self.here(place);
        for held in here.filter(|chain| made_for_us || is_own(&chain.name)) {
            push(
                batch,
                (Kind::DeleteChain, "chain"),
                place,
                &held.name,
                |writer| {
                    writer.text(chain::NAME, &held.name);
                },
            );
        }
        if made_for_us {
            push(batch, (Kind::DeleteTable, "table"), place, "", |_| {});
        }
    }

    fn here(&self, place: (Family, Table)) -> impl Iterator<Item = &HeldChain> {
        self.chains.iter().filter(move |chain| chain.place == place)
    }

    fn is_empty_without_ours(&self, place: (Family, Table)) -> bool {
        let idle = |chain: &HeldChain| {
            let builtin = chain.accepts && BUILTIN.contains(&chain.name.as_str());
            is_own(&chain.name) || builtin
        };
        let known = u32::try_from(self.here(place).count()).ok();
        let is_all = |(of, holds): &((Family, Table), u32)| *of == place && Some(*holds) == known;
        self.here(place).all(idle) && self.tables.iter().any(is_all) && !self.used.contains(&place)
    }
}

fn push(
    batch: &mut Batch,
    (kind, noun): (Kind, &str),
    (family, of): (Family, Table),
    name: &str,
    body: impl FnOnce(&mut Writer),
) {
    let what = format!("delete {noun} {} {} {name}", word(family), table_name(of));
    batch.push(
        (kind, 0),
        family_number(family),
        what.trim_end(),
        |writer| {
            writer.text(table::NAME, table_name(of));
            body(writer);
        },
    );
}

fn place(family: u8, attributes: &Attributes<'_>) -> Option<(Family, Table)> {
    let name = attributes.text(table::NAME)?;
    every_place().find(|(of, table)| family_number(*of) == family && table_name(*table) == name)
}

/// The chains that a rule may lead to.
fn targets<'a>(attributes: &Attributes<'a>) -> impl Iterator<Item = &'a str> {
    let list = attributes.nested(rule::EXPRESSIONS);
    let expressions: Vec<_> = list.iter().flat_map(|list| list.list(EXPRESSION)).collect();
    expressions.into_iter().filter_map(|expression| {
        let operands = Attributes::parse(expression)?.nested(DATA)?;
        let verdict = operands.nested(DATA)?.nested(VERDICT)?;
        verdict.text(VERDICT_CHAIN)
    })
}

fn is_own(name: &str) -> bool {
    Hook::ALL.into_iter().any(|hook| chain_name(hook) == name)
}

fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
