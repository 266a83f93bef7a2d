//! What the kernel lists, read back.
//!
//! The bytes are the kernel's, but what they describe may be anybody's. Nothing is an error: what is not
//! understood is not what we made, and is told as such.

use super::{
    INET,
    attribute::Attributes,
    batch::{Batch, Kind, Message},
    chain,
    expression::{self, Expression},
    leftovers::Leftovers,
    rule, set, table,
};
use crate::{
    compare::Verdict,
    model::{Rule, RuleSet, Table},
    nftables::{Held, HeldBase, HeldChain, HeldRule, HeldSet, chain_name, table_name},
};

/// What a namespace holds of ours.
#[derive(Debug, Default)]
pub struct Dump {
    tables: Vec<Table>,
    chains: Vec<(Table, String, Option<HeldBase>)>,
    rules: Vec<(Table, String, Vec<Expression>)>,
    sets: Vec<HeldSet>,
    others: Vec<(Table, String)>,
    leftovers: Leftovers,
    damaged: bool,
}

// === impl Dump ===

impl Dump {
    /// Reads what the kernel answered to [`requests`](super::requests).
    pub fn decode(bytes: &[u8]) -> Self {
        let mut dump = Self::default();
        let (messages, rest) = Message::split(bytes);
        for message in &messages {
            dump.add(message);
        }
        dump.damaged |= !rest.is_empty();
        dump
    }

    /// What else to ask for before anything is decided, together with the former requests: the rules of
    /// tables in which iptables left something of ours. Empty if nothing is missing.
    pub fn further_requests(&self) -> Vec<Vec<u8>> {
        self.leftovers.requests()
    }

    /// Whether the namespace holds these rules and nothing that iptables left.
    pub fn compare(&self, wanted: &RuleSet) -> Verdict {
        let mut comparison = crate::compare::Comparison::default();
        self.held(wanted).compare_into(&mut comparison, wanted);
        if self.damaged {
            comparison.foreign("nf_tables", "a listing that cannot be read");
        }
        for (place, what) in self.leftovers.list() {
            comparison.foreign(&place, what);
        }
        comparison.verdict()
    }

    /// Whether one of our tables is there.
    pub fn has_tables(&self) -> bool {
        !self.tables.is_empty()
    }

    /// Whether `iptables` (its nf_tables variant) left something of ours.
    pub fn has_leftovers(&self) -> bool {
        self.leftovers.list().next().is_some()
    }

    /// Adds to a batch what removes all that `iptables` left of ours: our chains, the jumps to them, and
    /// the tables in which nothing else is. It must be carried out [at the generation](Batch::at_generation)
    /// of the dump.
    pub fn remove_leftovers(&self, batch: &mut Batch) {
        self.leftovers.remove(batch);
    }

    fn add(&mut self, message: &Message<'_>) {
        let Some(attributes) = Attributes::parse(message.body) else {
            self.damaged = true;
            return;
        };
        if message.family != INET {
            self.leftovers.add(message, &attributes);
            return;
        }
        // The name of a table, or of the table that something is in, has the same number everywhere.
        let Some(name) = attributes.text(table::NAME) else {
            self.damaged = true;
            return;
        };
        let Some(of) = Table::ALL.into_iter().find(|t| table_name(*t) == name) else {
            return;
        };
        if message.is(Kind::NewTable) {
            self.tables.push(of);
            if attributes
                .number(table::FLAGS)
                .is_some_and(|flags| flags != 0)
            {
                self.others
                    .push((of, "table that is dormant or owned".to_owned()));
            }
        } else if message.is(Kind::NewChain) {
            let name = attributes.text(chain::NAME).unwrap_or_default();
            self.chains.push((of, name.to_owned(), base(&attributes)));
        } else if message.is(Kind::NewRule) {
            let name = attributes.text(rule::CHAIN).unwrap_or_default();
            let list = attributes.get(rule::EXPRESSIONS).unwrap_or_default();
            self.rules
                .push((of, name.to_owned(), expression::read(list)));
        } else if message.is(Kind::NewSet) {
            self.sets.push(held_set(of, &attributes));
        } else if message.is(Kind::NewObject) {
            self.others.push((of, "object".to_owned()));
        } else if message.is(Kind::NewFlowTable) {
            self.others.push((of, "flowtable".to_owned()));
        }
    }

    /// In the form that is compared. A rule is recognised by the instructions that a wanted one has.
    fn held(&self, wanted: &RuleSet) -> Held {
        let known: Vec<(Vec<Expression>, &Rule)> = wanted
            .chains()
            .iter()
            .flat_map(|chain| &chain.rules)
            .map(|rule| (expression::compile(rule), rule))
            .collect();
        let jumps: Vec<_> = wanted
            .chains()
            .iter()
            .map(|chain| expression::jump(chain_name(chain.hook)))
            .collect();
        let recognise = |list: &Vec<Expression>| {
            if let (true, [_, Expression::Jump(target)]) = (jumps.contains(list), &list[..]) {
                return HeldRule::Jump(target.clone());
            }
            let found = known.iter().find(|(compiled, _)| compiled == list);
            found.map_or_else(
                || HeldRule::Unknown(expression::text(list)),
                |(_, rule)| HeldRule::Known((*rule).clone()),
            )
        };
        let chains = self.chains.iter().map(|(table, name, base)| HeldChain {
            table: *table,
            name: name.clone(),
            base: base.clone(),
            rules: Vec::new(),
        });
        let mut held = Held {
            tables: self.tables.clone(),
            chains: chains.collect(),
            sets: self.sets.clone(),
            others: self.others.clone(),
        };
        for (table, chain, list) in &self.rules {
            held.add_rule(*table, chain, recognise(list));
        }
        held
    }
}

/// The hook of a chain; what it says beside that is part of the kind, and so makes it another.
fn base(attributes: &Attributes<'_>) -> Option<HeldBase> {
    let flags = attributes.number(chain::FLAGS).unwrap_or_default();
    if attributes.get(chain::HOOK).is_none() && flags == 0 {
        return None;
    }
    let hook = attributes.nested(chain::HOOK)?;
    let number = hook.number(chain::HOOK_NUMBER)?;
    let plain = flags & !chain::IS_BASE == 0
        && hook.nothing_but(&[chain::HOOK_NUMBER, chain::HOOK_PRIORITY]);
    let kind = attributes.text(chain::TYPE).unwrap_or_default();
    let priority = hook.number(chain::HOOK_PRIORITY).unwrap_or_default();
    Some(HeldBase {
        kind: if plain {
            kind.to_owned()
        } else {
            format!("{kind} with flags or devices")
        },
        hook: chain::hook_name(number).to_owned(),
        priority: i64::from(priority.cast_signed()),
        policy: match attributes.number(chain::POLICY) {
            Some(chain::POLICY_ACCEPT) => "accept".to_owned(),
            _ => "drop".to_owned(),
        },
    })
}

fn held_set(table: Table, attributes: &Attributes<'_>) -> HeldSet {
    let number = |kind| attributes.number(kind).unwrap_or_default();
    let kind = match (number(set::KEY_TYPE), number(set::KEY_LENGTH)) {
        (set::TYPE_IPV4, 4) => "ipv4_addr",
        (set::TYPE_IPV6, 16) => "ipv6_addr",
        _ => "unknown",
    };
    HeldSet {
        table,
        name: attributes.text(set::NAME).unwrap_or_default().to_owned(),
        kind: kind.to_owned(),
        plain: number(set::FLAGS) == 0,
    }
}
