//! nf_tables as the kernel speaks it: batches of netlink messages, and what it lists.
//!
//! The same tables as [`nftables`](crate::nftables), without a program in between: no `nft` has to be
//! installed, started or parsed, and the kernel says which message it refused. Nothing is sent here; the
//! caller has the socket. `docs/design/0014-nf-tables-netlink.md` says why the encoding is our own.

use crate::{
    contract::probe_set,
    model::{Chain, Hook, RuleSet, Table},
    nftables::{FAMILY, base_chain, chain_name, rule_text, table_name},
    options::Family,
};

mod attribute;
mod batch;
mod dump;
mod expression;
mod leftovers;
pub mod members;

use attribute::Writer;
pub use batch::Batch;
use batch::{APPEND, CREATE, Kind, dump as list, get};
pub use dump::{Cost, Dump};
use expression::Expression;
pub use members::Members;

/// `NFPROTO_INET`: IPv4 and IPv6.
const INET: u8 = 1;

/// Attributes of a table.
mod table {
    pub(super) const NAME: u16 = 1;
    pub(super) const FLAGS: u16 = 2;
    /// How many chains, sets, objects and flowtables are in it.
    pub(super) const USE: u16 = 3;
}

/// Attributes of a chain.
mod chain {
    pub(super) const TABLE: u16 = 1;
    pub(super) const NAME: u16 = 3;
    pub(super) const HOOK: u16 = 4;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const HOOK_PRIORITY: u16 = 2;
    pub(super) const POLICY: u16 = 5;
    pub(super) const POLICY_ACCEPT: u32 = 1;
    pub(super) const TYPE: u16 = 7;
    pub(super) const FLAGS: u16 = 10;
    /// The flag that later kernels report of every chain with a hook.
    pub(super) const IS_BASE: u32 = 1;

    /// The name of a hook, by the kernel's number.
    pub(super) fn hook_name(number: u32) -> &'static str {
        let names = ["prerouting", "input", "forward", "output", "postrouting"];
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        names.get(index).copied().unwrap_or("other")
    }
}

/// Attributes of a rule.
mod rule {
    pub(super) const TABLE: u16 = 1;
    pub(super) const CHAIN: u16 = 2;
    pub(super) const HANDLE: u16 = 3;
    pub(super) const EXPRESSIONS: u16 = 4;
}

/// Attributes of a set.
mod set {
    pub(super) const TABLE: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const FLAGS: u16 = 3;
    pub(super) const KEY_TYPE: u16 = 4;
    pub(super) const KEY_LENGTH: u16 = 5;
    pub(super) const ID: u16 = 10;
    pub(super) const USERDATA: u16 = 13;
    /// The numbers of `nft` for its types.
    pub(super) const TYPE_IPV4: u32 = 7;
    pub(super) const TYPE_IPV6: u32 = 8;
}

/// The batch that puts the rules in place, whatever was there before; as
/// [`nftables::apply`](crate::nftables::apply). Probe sets are empty then; see [`restore`].
pub fn apply(rules: &RuleSet) -> Batch {
    restore(rules, &Members::new())
}

/// [`apply`], with these members in the probe sets.
pub fn restore(rules: &RuleSet, members: &Members) -> Batch {
    let mut batch = Batch::default();
    for table in Table::ALL {
        delete_table(&mut batch, table);
        if rules.uses(table) {
            create_table(&mut batch, table, rules);
            for family in rules.probe_sets(table) {
                members::fill(&mut batch, family, members);
            }
        }
    }
    batch
}

/// The batch that removes every trace of the rules. Harmless where there are none.
pub fn remove() -> Batch {
    let mut batch = Batch::default();
    for table in Table::ALL {
        delete_table(&mut batch, table);
    }
    batch
}

/// The batch that adds the rules to what is there. Only good to [learn](Batch::to_trial) whether this
/// kernel has everything that they need.
pub fn add(rules: &RuleSet) -> Batch {
    let mut batch = Batch::default();
    for table in Table::ALL {
        if rules.uses(table) {
            create_table(&mut batch, table, rules);
        }
    }
    batch
}

/// What to send to learn what [`Dump`] needs, in this order and all of the same generation. What is not
/// there lists nothing.
///
/// Tables and chains are asked for by their names, and sets and rules by their table: what else is in a
/// namespace costs nothing, however much its owner puts there. What is in our tables without being ours
/// shows in the number of things that a table says to have.
pub fn requests() -> Vec<Vec<u8>> {
    let of_table = |kind, table| {
        list(kind, INET, |writer| {
            writer.text(table::NAME, table_name(table));
        })
    };
    let mut requests = Table::ALL
        .map(|of| get_table(INET, table_name(of)))
        .to_vec();
    requests.extend(leftovers::requests());
    for table in Table::ALL {
        for hook in Hook::ALL {
            let names = [chain::hook_name(hook_number(hook)), chain_name(hook)];
            requests.extend(names.map(|name| get_chain(INET, table_name(table), name)));
        }
    }
    requests.extend(Table::ALL.map(|table| of_table(Kind::GetSet, table)));
    requests.extend(Table::ALL.map(|table| of_table(Kind::GetRule, table)));
    requests
}

/// Entry point of the fuzz target in `fuzz/`, replayed by a test on a saved corpus: what the kernel
/// lists, which must be read whatever it is.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let rules = crate::in_pod(&crate::Options::default());
    let dump = Dump::decode(bytes);
    // Nothing but whole rules compares as whole.
    if dump.compare(&rules) == crate::Verdict::Same {
        assert!(dump.has_tables());
    }
    dump.further_requests();
    dump.remove_leftovers(&mut Batch::default());
    members::decode(bytes);
}

fn get_table(family: u8, name: &str) -> Vec<u8> {
    get(Kind::GetTable, family, |writer| {
        writer.text(table::NAME, name);
    })
}

fn get_chain(family: u8, table: &str, name: &str) -> Vec<u8> {
    get(Kind::GetChain, family, |writer| {
        writer.text(chain::TABLE, table);
        writer.text(chain::NAME, name);
    })
}

fn delete_table(batch: &mut Batch, of: Table) {
    new_table(batch, of);
    let name = table_name(of);
    let what = format!("delete table {FAMILY} {name}");
    batch.push((Kind::DeleteTable, 0), INET, what, |writer| {
        writer.text(table::NAME, name);
    });
}

fn new_table(batch: &mut Batch, of: Table) {
    let name = table_name(of);
    let what = format!("add table {FAMILY} {name}");
    batch.push((Kind::NewTable, CREATE), INET, what, |writer| {
        writer.text(table::NAME, name);
        writer.number(table::FLAGS, 0);
    });
}

fn create_table(batch: &mut Batch, of: Table, rules: &RuleSet) {
    new_table(batch, of);
    for (index, family) in rules.probe_sets(of).enumerate() {
        // Numbers of sets need to differ within a batch alone.
        new_set(
            batch,
            of,
            family,
            u32::try_from(index + 1).unwrap_or(u32::MAX),
        );
    }
    for Chain { hook, .. } in rules.chains_of(of) {
        new_base_chain(batch, of, *hook);
        new_chain(batch, of, chain_name(*hook), |_| {});
        let jump = format!("counter jump {}", chain_name(*hook));
        let base = base_chain(of, *hook).name;
        new_rule(batch, of, base, &jump, &expression::jump(chain_name(*hook)));
    }
    for Chain { hook, rules, .. } in rules.chains_of(of) {
        for rule in rules {
            let text = rule_text(rule);
            new_rule(
                batch,
                of,
                chain_name(*hook),
                &text,
                &expression::compile(rule),
            );
        }
    }
}

fn new_set(batch: &mut Batch, of: Table, family: Family, id: u32) {
    let (table, name) = (table_name(of), probe_set(family));
    let (kind, length) = match family {
        Family::V4 => (set::TYPE_IPV4, 4),
        Family::V6 => (set::TYPE_IPV6, 16),
    };
    let what = format!("add set {FAMILY} {table} {name}");
    batch.push((Kind::NewSet, CREATE), INET, what, |writer| {
        writer.text(set::TABLE, table);
        writer.text(set::NAME, name);
        writer.number(set::FLAGS, 0);
        writer.number(set::KEY_TYPE, kind);
        writer.number(set::KEY_LENGTH, length);
        writer.number(set::ID, id);
        // What `nft` remembers with it: the key (0) is four bytes, 2 for network byte order.
        let [a, b, c, d] = 2_u32.to_ne_bytes();
        writer.put(set::USERDATA, &[0, 4, a, b, c, d]);
    });
}

fn new_base_chain(batch: &mut Batch, of: Table, hook: Hook) {
    let base = base_chain(of, hook);
    new_chain(batch, of, base.name, |writer| {
        writer.text(chain::TYPE, base.kind);
        writer.number(chain::POLICY, chain::POLICY_ACCEPT);
        writer.nest(chain::HOOK, |writer| {
            writer.number(chain::HOOK_NUMBER, hook_number(hook));
            writer.number(chain::HOOK_PRIORITY, base.priority.cast_unsigned());
        });
    });
}

/// The kernel's number of a hook.
fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

fn new_chain(batch: &mut Batch, of: Table, name: &str, hook: impl FnOnce(&mut Writer)) {
    let table = table_name(of);
    let what = format!("add chain {FAMILY} {table} {name}");
    batch.push((Kind::NewChain, CREATE), INET, what, |writer| {
        writer.text(chain::TABLE, table);
        writer.text(chain::NAME, name);
        hook(writer);
    });
}

fn new_rule(batch: &mut Batch, of: Table, chain: &str, text: &str, list: &[Expression]) {
    let table = table_name(of);
    let what = format!("add rule {FAMILY} {table} {chain} {text}");
    batch.push((Kind::NewRule, CREATE | APPEND), INET, what, |writer| {
        writer.text(rule::TABLE, table);
        writer.text(rule::CHAIN, chain);
        writer.nest(rule::EXPRESSIONS, |writer| expression::write(writer, list));
    });
}

#[cfg(test)]
mod tests;
