//! What the kernel lists, read back.
//!
//! The bytes are the kernel's, but what they describe may be anybody's: whoever has `NET_ADMIN` in a pod
//! may write into our tables and those of iptables. Nothing is an error: what is not understood, or more
//! than we ever write, is not what we made, and is told as such.

use std::ops::ControlFlow;

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

/// Most bytes of messages that are kept. The rules of a pod with 64 virtual interfaces have some
/// 50 KiB; what is more than this was not written by us.
const KEPT: usize = 256 * 1024;
/// Most bytes of messages that are looked at in a pod, most of which are passed over. Rules of others
/// are among them only if they share a table with what iptables left of ours.
const READ_IN_POD: usize = 4 * 1024 * 1024;
/// The same on the host, where nobody writes who may not do everything: kube-proxy may have some hundred
/// bytes for each service and endpoint in a table that iptables left something of ours in.
const READ_ON_HOST: usize = 128 * 1024 * 1024;

/// What a namespace holds of ours.
#[derive(Debug)]
pub struct Dump {
    tables: Vec<HeldTable>,
    chains: Vec<(Table, String, Option<HeldBase>)>,
    rules: Vec<(Table, String, Vec<Expression>)>,
    sets: Vec<HeldSet>,
    others: Vec<(Table, String)>,
    leftovers: Leftovers,
    damaged: bool,
    cost: Cost,
    /// Most bytes that are looked at.
    limit: usize,
    /// Whether there was more than that, or than [`KEPT`].
    cut: bool,
}

/// What a listing has cost, in bytes of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// What was looked at.
    pub read: usize,
    /// What of it was kept.
    pub kept: usize,
}

#[derive(Debug)]
struct HeldTable {
    table: Table,
    /// How many things the kernel says are in it.
    holds: Option<u32>,
}

// === impl Dump ===

impl Default for Dump {
    fn default() -> Self {
        Self::of_pod()
    }
}

impl Dump {
    /// Nothing yet of a pod.
    pub fn of_pod() -> Self {
        Self::within(READ_IN_POD)
    }

    /// Nothing yet of the host.
    pub fn of_host() -> Self {
        Self::within(READ_ON_HOST)
    }

    fn within(limit: usize) -> Self {
        Self {
            tables: Vec::new(),
            chains: Vec::new(),
            rules: Vec::new(),
            sets: Vec::new(),
            others: Vec::new(),
            leftovers: Leftovers::default(),
            damaged: false,
            cost: Cost::default(),
            limit,
            cut: false,
        }
    }

    /// Reads what the kernel answered to [`requests`](super::requests), all at once.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut dump = Self::default();
        let (messages, rest) = Message::split(bytes);
        for message in &messages {
            dump.add_message(message);
        }
        dump.damaged |= !rest.is_empty();
        dump
    }

    /// Takes one message of an answer. It breaks off as soon as there is more than we ever write: what
    /// follows does not matter any more.
    pub fn add(&mut self, bytes: &[u8]) -> ControlFlow<()> {
        self.cost.read += bytes.len();
        self.cut |= self.cost.read > self.limit;
        match Message::first(bytes) {
            _ if self.cut => {}
            None => self.damaged = true,
            Some((message, _)) => {
                if self.add_message(&message) {
                    self.cost.kept += bytes.len();
                    self.cut |= self.cost.kept > KEPT;
                }
            }
        }
        if self.cut {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// What else to ask for before anything is decided, together with the former requests: the rules of
    /// tables in which iptables left something of ours. Empty if nothing is missing.
    pub fn further_requests(&self) -> Vec<Vec<u8>> {
        if self.cut {
            // Our tables are to be made anew whatever else there is.
            return Vec::new();
        }
        self.leftovers.further_requests()
    }

    /// What it has cost to learn this.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Whether the namespace holds these rules and nothing that iptables left.
    pub fn compare(&self, wanted: &RuleSet) -> Verdict {
        let mut comparison = crate::compare::Comparison::default();
        self.held(wanted).compare_into(&mut comparison, wanted);
        if self.damaged {
            comparison.foreign("nf_tables", "a listing that cannot be read");
        }
        if self.cut {
            comparison.foreign("nf_tables", "more than is ever put there");
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
    /// of the dump. Where there was too much to find every jump, our chains stay, and are empty.
    pub fn remove_leftovers(&self, batch: &mut Batch) {
        self.leftovers.remove(batch, !self.cut);
    }

    /// Whether something of the message is kept.
    fn add_message(&mut self, message: &Message<'_>) -> bool {
        let Some(attributes) = Attributes::parse(message.body) else {
            self.damaged = true;
            return false;
        };
        if message.family != INET {
            return self.leftovers.add(message, &attributes);
        }
        // The name of a table, or of the table that something is in, has the same number everywhere.
        let Some(name) = attributes.text(table::NAME) else {
            self.damaged = true;
            return false;
        };
        let Some(of) = Table::ALL.into_iter().find(|t| table_name(*t) == name) else {
            return false;
        };
        if message.is(Kind::NewTable) {
            self.add_table(of, &attributes);
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
        } else {
            return false;
        }
        true
    }

    fn add_table(&mut self, table: Table, attributes: &Attributes<'_>) {
        let holds = attributes.number(table::USE);
        self.tables.push(HeldTable { table, holds });
        let flags = attributes.number(table::FLAGS);
        if flags.is_some_and(|flags| flags != 0) {
            let what = "table that is dormant or owned".to_owned();
            self.others.push((table, what));
        }
    }

    /// What our tables hold beside what was asked for by name.
    fn strangers(&self) -> impl Iterator<Item = (Table, String)> {
        self.tables.iter().filter_map(|held| {
            let chains = self.chains.iter().filter(|(of, ..)| *of == held.table);
            let sets = self.sets.iter().filter(|set| set.table == held.table);
            let known = u32::try_from(chains.count() + sets.count()).ok();
            let strange = held.holds.is_some_and(|holds| Some(holds) != known);
            let what = "chains, sets or objects that are not ours";
            strange.then(|| (held.table, what.to_owned()))
        })
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
            tables: self.tables.iter().map(|held| held.table).collect(),
            chains: chains.collect(),
            sets: self.sets.clone(),
            others: self
                .others
                .iter()
                .cloned()
                .chain(self.strangers())
                .collect(),
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
