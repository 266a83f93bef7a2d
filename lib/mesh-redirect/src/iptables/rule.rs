//! Reads one saved rule back into the model.

use std::net::IpAddr;

use super::save::SavedRule;
use crate::{
    contract::probe_set,
    model::{Action, Mark, Match, Protocol, Rule, Test},
    options::Family,
};

impl SavedRule {
    /// The rule as a value, or `None` if it is not of our vocabulary.
    pub(super) fn parse(&self) -> Option<Rule> {
        let words = self.words();
        let mut words = words.as_slice();
        let mut matches = Vec::new();
        loop {
            if let ["-j", target, options @ ..] = words {
                return Some(Rule::new(matches, action(target, options)?));
            }
            let (condition, rest) = condition(words)?;
            matches.extend(condition);
            words = rest;
        }
    }
}

/// One condition and what follows it. `-m tcp` and the like is none by itself.
fn condition<'a, 'w>(words: &'w [&'a str]) -> Option<(Option<Match>, &'w [&'a str])> {
    let (equality, words) = match words {
        ["!", rest @ ..] => (false, rest),
        _ => (true, words),
    };
    match words {
        ["-m", "mark", "!", "--mark", mark, rest @ ..] if equality => Some((
            Some(Match::PacketMark(Test::IsNot(parse_mark(mark)?))),
            rest,
        )),
        ["-m", "mark", "--mark", mark, rest @ ..] if equality => {
            Some((Some(Match::PacketMark(Test::Is(parse_mark(mark)?))), rest))
        }
        ["-m", "connmark", "!", "--mark", mark, rest @ ..] if equality => Some((
            Some(Match::ConnectionMark(Test::IsNot(parse_mark(mark)?))),
            rest,
        )),
        ["-m", "connmark", "--mark", mark, rest @ ..] if equality => Some((
            Some(Match::ConnectionMark(Test::Is(parse_mark(mark)?))),
            rest,
        )),
        ["-m", "tcp" | "udp", rest @ ..] if equality => Some((None, rest)),
        ["-m", "owner", "--socket-exists", rest @ ..] if equality => {
            Some((Some(Match::OwnSocket), rest))
        }
        ["-m", "set", "--match-set", name, "dst", rest @ ..] if equality => {
            let family = Family::ALL.into_iter().find(|f| probe_set(*f) == *name)?;
            Some((Some(Match::ToProbedPod(family)), rest))
        }
        [flag, value, rest @ ..] => Some((Some(simple(flag, value, equality)?), rest)),
        _ => None,
    }
}

fn simple(flag: &str, value: &str, equality: bool) -> Option<Match> {
    match flag {
        "-s" => Some(Match::Source(Test::new(equality, host(value)?))),
        "-d" => Some(Match::Destination(Test::new(equality, host(value)?))),
        "-i" => Some(Match::InInterface(Test::new(equality, value.parse().ok()?))),
        "-o" => Some(Match::OutInterface(Test::new(
            equality,
            value.parse().ok()?,
        ))),
        "--sport" => Some(Match::SourcePort(Test::new(equality, value.parse().ok()?))),
        "--dport" => Some(Match::DestinationPort(Test::new(
            equality,
            value.parse().ok()?,
        ))),
        "-p" if equality => match value {
            "tcp" => Some(Match::Protocol(Protocol::Tcp)),
            "udp" => Some(Match::Protocol(Protocol::Udp)),
            _ => None,
        },
        _ => None,
    }
}

fn action(target: &str, options: &[&str]) -> Option<Action> {
    match (target, options) {
        ("ACCEPT", []) => Some(Action::Accept),
        ("RETURN", []) => Some(Action::Return),
        ("REDIRECT", ["--to-ports", port]) => Some(Action::Redirect(port.parse().ok()?)),
        ("CONNMARK", ["--set-xmark", mark]) => Some(Action::MarkConnection(parse_mark(mark)?)),
        ("CONNMARK", ["--restore-mark", "--nfmask", nf, "--ctmask", ct]) => {
            (hex(nf)? == u32::MAX && hex(ct)? == u32::MAX).then_some(Action::RestoreMark)
        }
        ("SNAT", ["--to-source", address]) => Some(Action::SourceAddress(address.parse().ok()?)),
        ("CT", ["--zone", zone]) => Some(Action::TrackInZone(zone.parse().ok()?)),
        _ => None,
    }
}

/// A single address; a range is none of ours.
fn host(text: &str) -> Option<IpAddr> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let full = if address.is_ipv4() { "32" } else { "128" };
    (length == full).then_some(address)
}

/// `value/mask`, or a value of which all bits count.
fn parse_mark(text: &str) -> Option<Mark> {
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    Some(Mark {
        value: hex(value)?,
        mask: hex(mask)?,
    })
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}
