//! What the nf_tables variant of iptables left of ours, seen from below.
//!
//! To nf_tables the tables of iptables are tables like others. So what is ours in them can be removed in
//! the very batch that puts our own tables in place: the change from one to the other is atomic.

use super::{
    attribute::{Attributes, Writer},
    batch::{Batch, Kind, Message, dump},
    chain,
    expression::family_number,
    rule, table,
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
    chains: Vec<HeldChain>,
    rules: Vec<HeldRule>,
    /// Tables with something else in them, such as a set.
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
    targets: Vec<String>,
}

// === impl Leftovers ===

impl Leftovers {
    pub(super) fn add(&mut self, message: &Message<'_>, attributes: &Attributes<'_>) {
        let Some(place) = place(message.family, attributes) else {
            return;
        };
        if message.is(Kind::NewChain) {
            let policy = attributes.number(chain::POLICY);
            self.chains.push(HeldChain {
                place,
                name: attributes.text(chain::NAME).unwrap_or_default().to_owned(),
                accepts: policy.is_none_or(|policy| policy == chain::POLICY_ACCEPT),
            });
        } else if message.is(Kind::NewRule) {
            self.rules.push(HeldRule {
                place,
                chain: attributes.text(rule::CHAIN).unwrap_or_default().to_owned(),
                handle: attributes.get(rule::HANDLE).unwrap_or_default().to_owned(),
                targets: targets(attributes),
            });
        } else if !message.is(Kind::NewTable) {
            self.used.push(place);
        }
    }

    /// Requests for the rules and sets of the tables that hold chains of ours.
    pub(super) fn requests(&self) -> Vec<Vec<u8>> {
        let places = self.places().into_iter();
        places
            .flat_map(|(family, of)| {
                let family = family_number(family);
                [
                    dump(Kind::GetRule, family, |writer| {
                        writer.text(rule::TABLE, table_name(of));
                    }),
                    dump(Kind::GetSet, family, |writer| {
                        writer.text(table::NAME, table_name(of));
                    }),
                ]
            })
            .collect()
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

    pub(super) fn remove(&self, batch: &mut Batch) {
        for place in self.places() {
            self.remove_from(batch, place);
        }
    }

    fn places(&self) -> Vec<(Family, Table)> {
        let own = self.chains.iter().filter(|chain| is_own(&chain.name));
        let mut places: Vec<_> = own.map(|chain| chain.place).collect();
        places.sort();
        places.dedup();
        places
    }

    fn remove_from(&self, batch: &mut Batch, place: (Family, Table)) {
        let jumps = |rule: &&HeldRule| {
            let into_ours = rule.targets.iter().any(|target| is_own(target));
            rule.place == place && !is_own(&rule.chain) && into_ours
        };
        for rule in self.rules.iter().filter(jumps) {
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
        let here = || self.chains.iter().filter(move |chain| chain.place == place);
        for own in here().filter(|chain| is_own(&chain.name)) {
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
        // If nothing else is in the table, iptables made it for us.
        let made_for_us = self.is_empty_without_ours(place);
        for held in here().filter(|chain| made_for_us || is_own(&chain.name)) {
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

    fn is_empty_without_ours(&self, place: (Family, Table)) -> bool {
        let idle = |chain: &HeldChain| {
            let builtin = chain.accepts && BUILTIN.contains(&chain.name.as_str());
            chain.place != place || is_own(&chain.name) || builtin
        };
        let ours = |rule: &HeldRule| {
            let into_ours = rule.targets.iter().any(|target| is_own(target));
            rule.place != place || is_own(&rule.chain) || into_ours
        };
        self.chains.iter().all(idle) && self.rules.iter().all(ours) && !self.used.contains(&place)
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
    let family = Family::ALL
        .into_iter()
        .find(|f| family_number(*f) == family)?;
    let of = Table::ALL.into_iter().find(|t| table_name(*t) == name)?;
    Some((family, of))
}

/// The chains that a rule may lead to.
fn targets(attributes: &Attributes<'_>) -> Vec<String> {
    let Some(list) = attributes.nested(rule::EXPRESSIONS) else {
        return Vec::new();
    };
    let target = |expression: &[u8]| {
        let operands = Attributes::parse(expression)?.nested(DATA)?;
        let verdict = operands.nested(DATA)?.nested(VERDICT)?;
        verdict.text(VERDICT_CHAIN).map(str::to_owned)
    };
    list.list(EXPRESSION).filter_map(target).collect()
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
