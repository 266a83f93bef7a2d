//! Reads `nft --json list ruleset` back into the model.
//!
//! A rule that is not of our vocabulary is no error: it is foreign. So a later `nft` that prints
//! something differently makes a pod look damaged, which is repaired by applying again, and never makes
//! a damaged pod look whole.

use std::net::IpAddr;

use serde_json::Value;

use super::{FAMILY, RuleText, base_chain, chain_name, table_name};
use crate::{
    compare::{Comparison, Verdict},
    model::{Action, Hook, Mark, Match, Protocol, Rule, RuleSet, Table, Test},
    options::Family,
};

/// What `nft` printed is not a listing: it is another program, or it was built without JSON. Not for us
/// to retry; the node needs an `nft` that can print JSON.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not JSON.
    #[error("read the listing of nft")]
    Json(#[source] serde_json::Error),
    /// It is JSON of another shape.
    #[error("read the listing of nft: it has no `nftables` array")]
    Shape,
}

/// What a namespace holds in our tables.
#[derive(Debug, Default)]
struct Listing {
    tables: Vec<Table>,
    chains: Vec<HeldChain>,
    others: Vec<(Table, String)>,
}

#[derive(Debug)]
struct HeldChain {
    table: Table,
    name: String,
    base: Option<HeldBase>,
    rules: Vec<HeldRule>,
}

#[derive(Debug, PartialEq, Eq)]
struct HeldBase {
    kind: String,
    hook: String,
    priority: i64,
    policy: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HeldRule {
    Known(Rule),
    Jump(String),
    Unknown(String),
}

/// Compares what a namespace should hold with the output of `nft --json list ruleset` in it. Only our
/// own tables are looked at.
pub fn compare(wanted: &RuleSet, listing: &str) -> Result<Verdict, Error> {
    let held = Listing::parse(listing)?;
    let mut comparison = Comparison::default();
    for table in Table::ALL {
        let place = format!("{FAMILY} {}", table_name(table));
        match (wanted.uses(table), held.tables.contains(&table)) {
            (true, true) => compare_table(&mut comparison, wanted, &held, table),
            (true, false) => comparison.missing(&place, "table"),
            (false, true) => comparison.foreign(&place, "table"),
            (false, false) => {}
        }
    }
    Ok(comparison.verdict())
}

/// The objects of a listing, each with its kind.
pub(crate) fn objects(root: &Value) -> Result<impl Iterator<Item = (&str, &Value)>, Error> {
    let objects = root
        .get("nftables")
        .and_then(Value::as_array)
        .ok_or(Error::Shape)?;
    Ok(objects
        .iter()
        .filter_map(Value::as_object)
        .flatten()
        .map(|(kind, object)| (&**kind, object)))
}

fn compare_table(comparison: &mut Comparison, wanted: &RuleSet, held: &Listing, table: Table) {
    comparison.found();
    let prefix = format!("{FAMILY} {}", table_name(table));
    let mut expected = Vec::new();
    for chain in wanted.chains_of(table) {
        let base = base_chain(table, chain.hook);
        let name = chain_name(chain.hook);
        let base_rules = vec![HeldRule::Jump(name.to_owned()).with_text()];
        let rules = chain
            .rules
            .iter()
            .map(|r| HeldRule::Known(r.clone()).with_text())
            .collect();
        expected.extend([
            (
                base.name,
                Some(HeldBase::wanted(table, chain.hook)),
                base_rules,
            ),
            (name, None, rules),
        ]);
    }
    for (name, base, rules) in &expected {
        let place = format!("{prefix} {name}");
        match held.chain(table, name) {
            Some(chain) => {
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
            None => comparison.missing(&place, "chain"),
        }
    }
    for chain in held.chains.iter().filter(|chain| chain.table == table) {
        if !expected.iter().any(|(name, ..)| *name == chain.name) {
            comparison.foreign(&format!("{prefix} {}", chain.name), "chain");
        }
    }
    for (_, what) in held.others.iter().filter(|(other, _)| *other == table) {
        comparison.foreign(&prefix, what);
    }
}

// === impl Listing ===

impl Listing {
    fn parse(text: &str) -> Result<Self, Error> {
        let root = serde_json::from_str(text).map_err(Error::Json)?;
        let mut listing = Self::default();
        for (kind, object) in objects(&root)? {
            listing.add(kind, object);
        }
        Ok(listing)
    }

    fn add(&mut self, kind: &str, object: &Value) {
        let key = if kind == "table" { "name" } else { "table" };
        let ours = |table: &Table| string(object, key) == Some(table_name(*table));
        let Some(table) = Table::ALL.into_iter().find(ours) else {
            return;
        };
        if string(object, "family") != Some(FAMILY) {
            return;
        }
        match kind {
            "table" => self.tables.push(table),
            "chain" => self.chains.push(HeldChain {
                table,
                name: string(object, "name").unwrap_or_default().to_owned(),
                base: HeldBase::parse(object),
                rules: Vec::new(),
            }),
            "rule" => {
                let name = string(object, "chain").unwrap_or_default();
                let rule = HeldRule::parse(object.get("expr").unwrap_or(&Value::Null));
                match self
                    .chains
                    .iter_mut()
                    .find(|c| c.table == table && c.name == name)
                {
                    Some(chain) => chain.rules.push(rule),
                    None => self.others.push((table, rule.text())),
                }
            }
            _ => self.others.push((table, kind.to_owned())),
        }
    }

    fn chain(&self, table: Table, name: &str) -> Option<&HeldChain> {
        self.chains
            .iter()
            .find(|chain| chain.table == table && chain.name == name)
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

    fn parse(chain: &Value) -> Option<Self> {
        Some(Self {
            kind: string(chain, "type")?.to_owned(),
            hook: string(chain, "hook")?.to_owned(),
            priority: chain.get("prio")?.as_i64()?,
            policy: string(chain, "policy")?.to_owned(),
        })
    }
}

// === impl HeldRule ===

impl HeldRule {
    fn parse(expressions: &Value) -> Self {
        let parsed = expressions.as_array().and_then(|list| {
            let statements: Vec<_> = list.iter().filter(|e| e.get("counter").is_none()).collect();
            jump(&statements).or_else(|| rule(&statements))
        });
        parsed.unwrap_or_else(|| Self::Unknown(expressions.to_string()))
    }

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

fn jump(statements: &[&Value]) -> Option<HeldRule> {
    let [only] = statements else { return None };
    Some(HeldRule::Jump(
        string(only.get("jump")?, "target")?.to_owned(),
    ))
}

fn rule(statements: &[&Value]) -> Option<HeldRule> {
    let (last, conditions) = statements.split_last()?;
    let mut matches = Vec::new();
    for condition in conditions {
        matches.extend(condition_of(condition)?);
    }
    matches.sort();
    matches.dedup();
    Some(HeldRule::Known(Rule::new(matches, action(last)?)))
}

/// A comparison; one of ports stands for two, because it implies the transport.
fn condition_of(statement: &Value) -> Option<Vec<Match>> {
    let comparison = statement.get("match")?;
    let equality = match string(comparison, "op")? {
        "==" => true,
        "!=" => false,
        _ => return None,
    };
    let (left, right) = (comparison.get("left")?, comparison.get("right")?);
    if let Some(payload) = left.get("payload") {
        return payload_match(payload, equality, right);
    }
    if let Some(operands) = left.get("&").and_then(Value::as_array) {
        let [key, mask] = operands.as_slice() else {
            return None;
        };
        let mark = Test::new(
            equality,
            Mark {
                value: number(right)?,
                mask: number(mask)?,
            },
        );
        return Some(vec![match mark_key(key)? {
            Key::Packet => Match::PacketMark(mark),
            Key::Connection => Match::ConnectionMark(mark),
        }]);
    }
    let key = string(left.get("meta")?, "key")?;
    let word = right.as_str()?;
    Some(vec![match (key, word, equality) {
        ("nfproto", "ipv4", true) => Match::Family(Family::V4),
        ("nfproto", "ipv6", true) => Match::Family(Family::V6),
        ("l4proto", word, true) => Match::Protocol(protocol(word)?),
        ("iifname", word, _) => Match::InInterface(Test::new(equality, word.parse().ok()?)),
        ("oifname", word, _) => Match::OutInterface(Test::new(equality, word.parse().ok()?)),
        _ => return None,
    }])
}

fn payload_match(payload: &Value, equality: bool, right: &Value) -> Option<Vec<Match>> {
    let header = string(payload, "protocol")?;
    match (header, string(payload, "field")?) {
        ("ip" | "ip6", field @ ("saddr" | "daddr")) => {
            let address: IpAddr = right.as_str()?.parse().ok()?;
            let test = Test::new(equality, address);
            Some(vec![if field == "saddr" {
                Match::Source(test)
            } else {
                Match::Destination(test)
            }])
        }
        (header, field @ ("sport" | "dport")) => {
            let port = Test::new(equality, u16::try_from(right.as_u64()?).ok()?);
            let port = if field == "sport" {
                Match::SourcePort(port)
            } else {
                Match::DestinationPort(port)
            };
            Some(vec![Match::Protocol(protocol(header)?), port])
        }
        _ => None,
    }
}

fn action(statement: &Value) -> Option<Action> {
    let (kind, value) = statement.as_object()?.iter().next()?;
    match kind.as_str() {
        "accept" => Some(Action::Accept),
        "return" => Some(Action::Return),
        "redirect" => Some(Action::Redirect(
            u16::try_from(value.get("port")?.as_u64()?).ok()?,
        )),
        "mangle" => mangle(value.get("key")?, value.get("value")?),
        _ => None,
    }
}

fn mangle(key: &Value, value: &Value) -> Option<Action> {
    if key.get("ct").and_then(|ct| string(ct, "key")) == Some("zone") {
        return Some(Action::TrackInZone(u16::try_from(value.as_u64()?).ok()?));
    }
    match (mark_key(key)?, mark_key(value)) {
        (Key::Packet, Some(Key::Connection)) => Some(Action::RestoreMark),
        (Key::Connection, None) => mark_connection(value),
        _ => None,
    }
}

/// `ct mark & keep | set`. The kernel stores the two constants folded into one another and some versions
/// of nft print `keep | set` for `keep`; both mean the same.
fn mark_connection(value: &Value) -> Option<Action> {
    let [kept, set] = operands(value, "|")? else {
        return None;
    };
    let [key, keep] = operands(kept, "&")? else {
        return None;
    };
    let (Key::Connection, keep, set) = (mark_key(key)?, number(keep)?, number(set)?) else {
        return None;
    };
    Some(Action::MarkConnection(Mark::new(set, !keep | set)))
}

enum Key {
    Packet,
    Connection,
}

fn mark_key(value: &Value) -> Option<Key> {
    let (of, key) = value.as_object()?.iter().next()?;
    match (of.as_str(), string(key, "key")?) {
        ("meta", "mark") => Some(Key::Packet),
        ("ct", "mark") => Some(Key::Connection),
        _ => None,
    }
}

fn operands<'a>(value: &'a Value, operator: &str) -> Option<&'a [Value]> {
    value.get(operator)?.as_array().map(Vec::as_slice)
}

fn protocol(word: &str) -> Option<Protocol> {
    match word {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

fn string<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

#[cfg(test)]
mod tests;
