//! The rules as values: what to match, what to do, in which chain.
//!
//! The vocabulary is closed and small. It holds what the mesh needs and what both backends can say, so
//! that rendering cannot fail and a listing can be read back into the same values.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::options::{Families, Family};

/// A complete set of rules for one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    families: Families,
    chains: Vec<Chain>,
}

/// An ordered list of rules, reached by one unconditional jump from a hook of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The table that the chain is in.
    pub table: Table,
    /// The hook that jumps to it.
    pub hook: Hook,
    /// What it does; may be empty.
    pub rules: Vec<Rule>,
}

/// A table, by what its rules may do. Listed in the order in which they are put in place: capture
/// begins with `Nat`, when all that it relies on is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Packet and connection marks.
    Mangle,
    /// What happens before connection tracking.
    Raw,
    /// Redirection.
    Nat,
}

/// The point in a packet's way at which a chain runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// The packet came in through an interface.
    Prerouting,
    /// The packet was made by a process of this namespace.
    Output,
    /// The packet is about to leave, whoever made it.
    Postrouting,
}

/// What to do with packets that meet all conditions. For `Nat` only the first packet of a connection is
/// looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    matches: Vec<Match>,
    action: Action,
}

/// One condition on a packet. Each kind occurs at most once in a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Match {
    /// It is of this family.
    Family(Family),
    /// Where it says it comes from.
    Source(Test<IpAddr>),
    /// Where it goes.
    Destination(Test<IpAddr>),
    /// The interface through which it came.
    InInterface(Test<InterfaceName>),
    /// The interface through which it is about to leave.
    OutInterface(Test<InterfaceName>),
    /// Its transport.
    Protocol(Protocol),
    /// The transport's source port; only together with `Protocol`.
    SourcePort(Test<u16>),
    /// The transport's destination port; only together with `Protocol`.
    DestinationPort(Test<u16>),
    /// The mark on the packet.
    PacketMark(Test<Mark>),
    /// The mark on its connection.
    ConnectionMark(Test<Mark>),
    /// A process of this namespace has the socket that it was sent from; not so of what is forwarded.
    OwnSocket,
    /// It goes to a member of the probe set of this family.
    ToProbedPod(Family),
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Test<T> {
    /// Equal to.
    Is(T),
    /// Anything but.
    IsNot(T),
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Let it pass; later rules of this table do not see it.
    Accept,
    /// Go back to the caller.
    Return,
    /// Deliver it to this port of this namespace.
    Redirect(u16),
    /// Put a mark on its connection, other bits are kept.
    MarkConnection(Mark),
    /// Put the connection's mark on the packet, all bits.
    RestoreMark,
    /// Track it in another conntrack zone.
    TrackInZone(u16),
    /// Let it seem to come from this address; answers find their way back.
    SourceAddress(IpAddr),
}

/// A transport that rules distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Some bits of a firewall mark. The value lies within the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    /// The bits' values.
    pub value: u32,
    /// Which bits count.
    pub mask: u32,
}

/// The name of a network interface that means the same to the kernel, to nftables and to iptables.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName(Box<str>);

/// A name that cannot be an interface in a rule: it comes from a pod's annotation, whose author has to
/// correct it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "interface name `{name}` is not usable in a rule: 1 to 15 letters, digits, `.`, `_`, `-` or `@`, \
     beginning with a letter or digit"
)]
pub struct InvalidInterfaceName {
    /// What was given, cut to 32 characters.
    pub name: String,
}

// === impl RuleSet ===

impl RuleSet {
    /// A set of these chains; empty ones count, they are created.
    pub(crate) fn new(families: Families, chains: Vec<Chain>) -> Self {
        Self { families, chains }
    }

    /// The families whose traffic the rules look at.
    pub fn families(&self) -> Families {
        self.families
    }

    /// All chains, by table in the order in which tables are put in place.
    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// The chains of one table; none if the set does not use it.
    pub fn chains_of(&self, table: Table) -> impl Iterator<Item = &Chain> {
        self.chains.iter().filter(move |chain| chain.table == table)
    }

    /// Whether the set uses a table.
    pub fn uses(&self, table: Table) -> bool {
        self.chains_of(table).next().is_some()
    }

    /// The families whose probe sets the rules of a table look into. A set is in the table that uses it.
    pub fn probe_sets(&self, table: Table) -> impl Iterator<Item = Family> {
        let looks_into = move |family: Family| {
            let mut rules = self.chains_of(table).flat_map(|chain| &chain.rules);
            rules.any(|rule| rule.matches.contains(&Match::ToProbedPod(family)))
        };
        Family::ALL
            .into_iter()
            .filter(move |family| looks_into(*family))
    }
}

// === impl Chain ===

impl Chain {
    /// The rules that concern one family, without saying so.
    pub fn rules_of(&self, family: Family) -> impl Iterator<Item = Rule> {
        self.rules
            .iter()
            .filter_map(move |rule| rule.within(family))
    }
}

// === impl Table ===

impl Table {
    /// Every table that the mesh uses, in the order in which they are put in place.
    pub const ALL: [Self; 3] = [Self::Mangle, Self::Raw, Self::Nat];
}

// === impl Hook ===

impl Hook {
    /// Every hook that the mesh uses.
    pub const ALL: [Self; 3] = [Self::Prerouting, Self::Output, Self::Postrouting];
}

// === impl Rule ===

impl Rule {
    /// A rule; the order of conditions does not matter.
    pub fn new(matches: impl IntoIterator<Item = Match>, action: Action) -> Self {
        let mut matches: Vec<_> = matches.into_iter().collect();
        matches.sort();
        Self { matches, action }
    }

    /// The conditions, in canonical order.
    pub fn matches(&self) -> &[Match] {
        &self.matches
    }

    /// What to do.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The transport it is limited to.
    pub fn protocol(&self) -> Option<Protocol> {
        self.matches.iter().find_map(|m| match m {
            Match::Protocol(protocol) => Some(*protocol),
            _ => None,
        })
    }

    /// The family it is limited to, by saying so or by comparing an address.
    pub fn family(&self) -> Option<Family> {
        self.matches.iter().find_map(|m| match m {
            Match::Family(family) | Match::ToProbedPod(family) => Some(*family),
            Match::Source(Test::Is(ip) | Test::IsNot(ip))
            | Match::Destination(Test::Is(ip) | Test::IsNot(ip)) => Some(Family::of(*ip)),
            _ => None,
        })
    }

    /// The rule as seen where only one family exists, or `None` if it is about the other.
    fn within(&self, family: Family) -> Option<Self> {
        if self.family().is_some_and(|own| own != family) {
            return None;
        }
        let said = |m: &&Match| !matches!(m, Match::Family(_));
        Some(Self {
            matches: self.matches.iter().filter(said).cloned().collect(),
            ..*self
        })
    }
}

// === impl Test ===

impl<T> Test<T> {
    /// What is compared with.
    pub fn value(&self) -> &T {
        match self {
            Self::Is(value) | Self::IsNot(value) => value,
        }
    }

    /// Whether the comparison is for equality.
    pub fn is_equality(&self) -> bool {
        matches!(self, Self::Is(_))
    }

    /// The same comparison with something made from the value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Test<U> {
        match self {
            Self::Is(value) => Test::Is(f(value)),
            Self::IsNot(value) => Test::IsNot(f(value)),
        }
    }

    pub(crate) fn new(equality: bool, value: T) -> Self {
        if equality {
            Self::Is(value)
        } else {
            Self::IsNot(value)
        }
    }
}

// === impl Protocol ===

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

// === impl Mark ===

impl Mark {
    /// These bits; those outside the mask are dropped.
    pub const fn new(value: u32, mask: u32) -> Self {
        Self {
            value: value & mask,
            mask,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

// === impl InterfaceName ===

impl InterfaceName {
    /// The kernel's limit (`IFNAMSIZ`), without the terminating zero.
    pub const MAX_LEN: usize = 15;

    /// The loopback interface.
    pub fn loopback() -> Self {
        Self("lo".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = InvalidInterfaceName;

    /// Refuses more than the kernel does: a trailing `*` or `+` is a wildcard to one backend and not to
    /// the other, and blanks or quotes would end the word in the text that is rendered.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let first = |c: char| c.is_ascii_alphanumeric();
        let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
        if name.len() <= Self::MAX_LEN && name.starts_with(first) && name.chars().all(rest) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidInterfaceName {
                name: name.chars().take(32).collect(),
            })
        }
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_that_backends_read_differently_are_refused() {
        for name in ["eth0", "fake1s0f1", "vlan.100", "tap-0_a", "veth0@if2"] {
            assert!(name.parse::<InterfaceName>().is_ok(), "{name}");
        }
        let long = "a".repeat(InterfaceName::MAX_LEN + 1);
        for name in [
            "",
            "eth*",
            "eth+",
            "-i",
            "a b",
            "a\"b",
            "a\nb",
            "a/b",
            "é0",
            long.as_str(),
        ] {
            assert!(name.parse::<InterfaceName>().is_err(), "{name}");
        }
    }

    #[test]
    fn order_of_conditions_does_not_matter() {
        let (tcp, port) = (
            Match::Protocol(Protocol::Tcp),
            Match::DestinationPort(Test::Is(1)),
        );
        let one = Rule::new([tcp.clone(), port.clone()], Action::Accept);
        assert_eq!(one, Rule::new([port, tcp], Action::Accept));
    }
}
