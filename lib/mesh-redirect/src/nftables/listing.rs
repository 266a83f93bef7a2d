//! Reads `nft --json list ruleset` back into the model.
//!
//! A rule that is not of our vocabulary is no error: it is foreign. So a later `nft` that prints
//! something differently makes a pod look damaged, which is repaired by applying again, and never makes
//! a damaged pod look whole.

use std::net::IpAddr;

use serde_json::Value;

use super::{FAMILY, Held, HeldBase, HeldChain, HeldRule, HeldSet, table_name};
use crate::{
    compare::Verdict,
    contract::probe_set,
    model::{Action, Mark, Match, Protocol, Rule, RuleSet, Table, Test},
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

/// Compares what a namespace should hold with the output of `nft --json list ruleset` in it. Only our
/// own tables are looked at.
pub fn compare(wanted: &RuleSet, listing: &str) -> Result<Verdict, Error> {
    Ok(parse(listing)?.compare(wanted))
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

fn parse(text: &str) -> Result<Held, Error> {
    let root = serde_json::from_str(text).map_err(Error::Json)?;
    let mut held = Held::default();
    for (kind, object) in objects(&root)? {
        add(&mut held, kind, object);
    }
    Ok(held)
}

fn add(held: &mut Held, kind: &str, object: &Value) {
    let key = if kind == "table" { "name" } else { "table" };
    let ours = |table: &Table| string(object, key) == Some(table_name(*table));
    let Some(table) = Table::ALL.into_iter().find(ours) else {
        return;
    };
    if string(object, "family") != Some(FAMILY) {
        return;
    }
    let text = |key| string(object, key).unwrap_or_default().to_owned();
    match kind {
        "table" => held.tables.push(table),
        "chain" => held.chains.push(HeldChain {
            table,
            name: text("name"),
            base: base(object),
            rules: Vec::new(),
        }),
        "rule" => {
            let rule = held_rule(object.get("expr").unwrap_or(&Value::Null));
            held.add_rule(table, &text("chain"), rule);
        }
        // A set with properties of its own, such as time-outs, is another kind of set.
        "set" => held.sets.push(HeldSet {
            table,
            name: text("name"),
            kind: text("type"),
            plain: object.get("flags").is_none(),
        }),
        _ => held.others.push((table, kind.to_owned())),
    }
}

fn base(chain: &Value) -> Option<HeldBase> {
    Some(HeldBase {
        kind: string(chain, "type")?.to_owned(),
        hook: string(chain, "hook")?.to_owned(),
        priority: chain.get("prio")?.as_i64()?,
        policy: string(chain, "policy")?.to_owned(),
    })
}

fn held_rule(expressions: &Value) -> HeldRule {
    let parsed = expressions.as_array().and_then(|list| {
        let statements: Vec<_> = list.iter().filter(|e| e.get("counter").is_none()).collect();
        jump(&statements).or_else(|| rule(&statements))
    });
    parsed.unwrap_or_else(|| HeldRule::Unknown(expressions.to_string()))
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
        ">=" => return own_socket(comparison),
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

fn own_socket(comparison: &Value) -> Option<Vec<Match>> {
    let key = string(comparison.get("left")?.get("meta")?, "key")?;
    let all = comparison.get("right")?.as_u64()? == 0;
    (key == "skuid" && all).then(|| vec![Match::OwnSocket])
}

fn payload_match(payload: &Value, equality: bool, right: &Value) -> Option<Vec<Match>> {
    let header = string(payload, "protocol")?;
    match (header, string(payload, "field")?) {
        ("ip" | "ip6", "daddr") if right.as_str()?.starts_with('@') => {
            let name = right.as_str()?.strip_prefix('@')?;
            let family = Family::ALL.into_iter().find(|f| probe_set(*f) == name)?;
            let fits = (header == "ip") == (family == Family::V4);
            (equality && fits).then(|| vec![Match::ToProbedPod(family)])
        }
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
        "snat" => Some(Action::SourceAddress(source(value)?)),
        "mangle" => mangle(value.get("key")?, value.get("value")?),
        _ => None,
    }
}

/// The address alone; a range of ports or a flag makes it another action.
fn source(snat: &Value) -> Option<IpAddr> {
    let address: IpAddr = string(snat, "addr")?.parse().ok()?;
    let family = if address.is_ipv4() { "ip" } else { "ip6" };
    let only = snat.as_object()?.len() == 2 && string(snat, "family")? == family;
    only.then_some(address)
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
