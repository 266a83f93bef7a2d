//! What a namespace holds in our tables, however it was learned, and its comparison with what it should.

use super::{FAMILY, RuleText, base_chain, chain_name, set_type, table_name};
use crate::{
    Family,
    compare::{Comparison, Verdict},
    contract::probe_set,
    model::{Chain, Hook, Rule, RuleSet, Table},
};

/// What a namespace holds in our tables.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) tables: Vec<Table>,
    pub(crate) chains: Vec<HeldChain>,
    pub(crate) sets: Vec<HeldSet>,
    /// Whatever else there is, and what is wrong with a table.
    pub(crate) others: Vec<(Table, String)>,
}

#[derive(Debug)]
pub(crate) struct HeldChain {
    pub(crate) table: Table,
    pub(crate) name: String,
    pub(crate) base: Option<HeldBase>,
    pub(crate) rules: Vec<HeldRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldBase {
    pub(crate) kind: String,
    pub(crate) hook: String,
    pub(crate) priority: i64,
    pub(crate) policy: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeldRule {
    Known(Rule),
    Jump(String),
    Unknown(String),
}

/// A set, without its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldSet {
    pub(crate) table: Table,
    pub(crate) name: String,
    pub(crate) kind: String,
    /// Whether it has no properties but its type.
    pub(crate) plain: bool,
}

/// A chain that should be there.
struct Expected {
    name: &'static str,
    base: Option<HeldBase>,
    rules: Vec<(HeldRule, String)>,
}

// === impl Held ===

impl Held {
    /// Compares with what should be there.
    pub(crate) fn compare(&self, wanted: &RuleSet) -> Verdict {
        let mut comparison = Comparison::default();
        self.compare_into(&mut comparison, wanted);
        comparison.verdict()
    }

    /// [`Held::compare`], as part of a larger comparison.
    pub(crate) fn compare_into(&self, comparison: &mut Comparison, wanted: &RuleSet) {
        for table in Table::ALL {
            let place = format!("{FAMILY} {}", table_name(table));
            match (wanted.uses(table), self.tables.contains(&table)) {
                (true, true) => self.compare_table(comparison, wanted, table),
                (true, false) => comparison.missing(&place, "table"),
                (false, true) => comparison.foreign(&place, "table"),
                (false, false) => {}
            }
        }
    }

    /// Adds a rule to the end of its chain.
    pub(crate) fn add_rule(&mut self, table: Table, chain: &str, rule: HeldRule) {
        let is_it = |held: &&mut HeldChain| held.table == table && held.name == chain;
        match self.chains.iter_mut().find(is_it) {
            Some(chain) => chain.rules.push(rule),
            None => self.others.push((table, rule.text())),
        }
    }

    fn compare_table(&self, comparison: &mut Comparison, wanted: &RuleSet, table: Table) {
        comparison.found();
        let prefix = format!("{FAMILY} {}", table_name(table));
        let expected: Vec<_> = wanted.chains_of(table).flat_map(Expected::of).collect();
        for chain in &expected {
            self.compare_chain(comparison, table, chain);
        }
        for chain in self.chains.iter().filter(|chain| chain.table == table) {
            if !expected.iter().any(|wanted| wanted.name == chain.name) {
                comparison.foreign(&format!("{prefix} {}", chain.name), "chain");
            }
        }
        self.compare_sets(comparison, wanted, table);
        for (_, what) in self.others.iter().filter(|(other, _)| *other == table) {
            comparison.foreign(&prefix, what);
        }
    }

    fn compare_chain(&self, comparison: &mut Comparison, table: Table, wanted: &Expected) {
        let Expected { name, base, rules } = wanted;
        let place = format!("{FAMILY} {} {name}", table_name(table));
        let is_it = |chain: &&HeldChain| chain.table == table && chain.name == *name;
        let Some(chain) = self.chains.iter().find(is_it) else {
            comparison.missing(&place, "chain");
            return;
        };
        if chain.base != *base {
            comparison.foreign(&place, "chain with another type, hook, priority or policy");
        }
        let held: Vec<_> = chain
            .rules
            .iter()
            .cloned()
            .map(HeldRule::with_text)
            .collect();
        comparison.sequence(&place, rules, &held);
    }

    fn compare_sets(&self, comparison: &mut Comparison, wanted: &RuleSet, table: Table) {
        let wanted: Vec<_> = wanted
            .probe_sets(table)
            .map(|family| HeldSet::wanted(table, family))
            .collect();
        let prefix = format!("{FAMILY} {}", table_name(table));
        let held: Vec<_> = self.sets.iter().filter(|set| set.table == table).collect();
        for set in &wanted {
            if !held.contains(&set) {
                comparison.missing(&format!("{prefix} {}", set.name), "set");
            }
        }
        for set in held {
            if !wanted.contains(set) {
                comparison.foreign(&format!("{prefix} {}", set.name), "set");
            }
        }
    }
}

// === impl Expected ===

impl Expected {
    /// The kernel's chain, with a jump, and ours, with the rules.
    fn of(chain: &Chain) -> [Self; 2] {
        let (base, own) = (base_chain(chain.table, chain.hook), chain_name(chain.hook));
        let rules = chain.rules.iter().cloned().map(HeldRule::Known);
        [
            Self {
                name: base.name,
                base: Some(HeldBase::wanted(chain.table, chain.hook)),
                rules: vec![HeldRule::Jump(own.to_owned()).with_text()],
            },
            Self {
                name: own,
                base: None,
                rules: rules.map(HeldRule::with_text).collect(),
            },
        ]
    }
}

// === impl HeldBase ===

impl HeldBase {
    fn wanted(table: Table, hook: Hook) -> Self {
        let base = base_chain(table, hook);
        Self {
            kind: base.kind.to_owned(),
            hook: base.name.to_owned(),
            priority: base.priority.into(),
            policy: "accept".to_owned(),
        }
    }
}

// === impl HeldSet ===

impl HeldSet {
    fn wanted(table: Table, family: Family) -> Self {
        Self {
            table,
            name: probe_set(family).to_owned(),
            kind: set_type(family).to_owned(),
            plain: true,
        }
    }
}

// === impl HeldRule ===

impl HeldRule {
    fn text(&self) -> String {
        match self {
            Self::Known(rule) => RuleText(rule).to_string(),
            Self::Jump(target) => format!("jump {target}"),
            Self::Unknown(expressions) => expressions.clone(),
        }
    }

    fn with_text(self) -> (Self, String) {
        let text = self.text();
        (self, text)
    }
}
