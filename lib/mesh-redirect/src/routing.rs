//! Policy routing that belongs to the rules.
//!
//! Replies of the application to a connection that the proxy opened under the client's address carry
//! [`RETURN_MARK`]. Without more they would leave the pod towards that client. A policy rule sends
//! marked packets to a table in which every address is local, and so to the proxy's socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    contract::{RETURN_MARK, ROUTE_TABLE, RULE_PREFERENCE},
    model::Mark,
    options::{Families, Family},
};

/// A policy rule and the one route of its table. Each family has its own and they are put in place and
/// removed independently: that one of them exists says nothing about the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PolicyRoute {
    /// The family of rule and route.
    pub family: Family,
    /// The firewall mark that the rule selects.
    pub mark: Mark,
    /// The rule's place; the main table is looked up at 32766.
    pub preference: u32,
    /// The table, with one route in it: everything is local, through `lo`, scope host.
    pub table: u32,
}

// === impl PolicyRoute ===

impl PolicyRoute {
    /// The one of a family.
    pub fn of(family: Family) -> Self {
        Self {
            family,
            mark: RETURN_MARK,
            preference: RULE_PREFERENCE,
            table: ROUTE_TABLE,
        }
    }

    /// Those that go with a pod's rules.
    pub fn for_families(families: Families) -> impl Iterator<Item = Self> {
        families.iter().map(Self::of)
    }

    /// The route's destination, always with prefix length 0.
    pub fn destination(&self) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}
