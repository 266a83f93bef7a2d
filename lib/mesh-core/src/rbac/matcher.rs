//! Compiled lists of a match: sorted, so that membership is a binary search.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net};

use crate::{
    identity::Identity,
    policy::{ServiceAccountMatch, StringMatch},
};

/// Texts by how they are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Texts {
    exact: Box<[Arc<str>]>,
    prefixes: Box<[Arc<str>]>,
    suffixes: Box<[Arc<str>]>,
    any: bool,
}

/// Address ranges, both ends included, disjoint and ascending per family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

/// Service accounts, whatever their trust domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Accounts(Box<[ServiceAccountMatch]>);

/// The ports in ascending order.
pub(super) fn ports(ports: &[u16]) -> Box<[u16]> {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports.dedup();
    ports.into()
}

// === impl Texts ===

impl Texts {
    pub(super) fn new(matches: &[StringMatch]) -> Self {
        let mut exact = Vec::new();
        let mut prefixes = Vec::new();
        let mut suffixes = Vec::new();
        let mut any = false;
        for m in matches {
            match m {
                StringMatch::Exact(text) => exact.push(text.clone()),
                StringMatch::Prefix(text) => prefixes.push(text.clone()),
                StringMatch::Suffix(text) => suffixes.push(text.clone()),
                StringMatch::Presence => any = true,
            }
        }
        exact.sort_unstable();
        Self {
            exact: exact.into(),
            prefixes: prefixes.into(),
            suffixes: suffixes.into(),
            any,
        }
    }

    pub(super) fn contain(&self, text: &str) -> bool {
        (self.any && !text.is_empty())
            || self.exact.binary_search_by(|e| (**e).cmp(text)).is_ok()
            || self
                .prefixes
                .iter()
                .any(|prefix| text.starts_with(&**prefix))
            || self.suffixes.iter().any(|suffix| text.ends_with(&**suffix))
    }
}

// === impl Ranges ===

impl Ranges {
    pub(super) fn new(nets: &[IpNet]) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for net in nets {
            match canonical(*net) {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self {
            v4: merged(v4),
            v6: merged(v6),
        }
    }

    pub(super) fn contain(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => within(&self.v4, address.to_bits()),
            IpAddr::V6(address) => within(&self.v6, address.to_bits()),
        }
    }
}

/// An IPv4-mapped range as the IPv4 range it means: addresses are compared in that form.
fn canonical(net: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED => {
            mapped(v6.network(), v6.prefix_len() - MAPPED)
        }
        IpNet::V4(_) | IpNet::V6(_) => None,
    }
    .unwrap_or(net)
}

fn mapped(network: Ipv6Addr, prefix_len: u8) -> Option<IpNet> {
    let network = network.to_ipv4_mapped()?;
    Ipv4Net::new(network, prefix_len).ok().map(IpNet::V4)
}

/// Ranges in ascending order, overlapping ones joined. CIDR ranges overlap only by nesting.
fn merged<N: Copy + Ord>(mut ranges: Vec<(N, N)>) -> Box<[(N, N)]> {
    ranges.sort_unstable();
    let mut joined: Vec<(N, N)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= *end => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined.into()
}

fn within<N: Copy + Ord>(ranges: &[(N, N)], value: N) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= value);
    after
        .checked_sub(1)
        .and_then(|index| ranges.get(index))
        .is_some_and(|(_, last)| value <= *last)
}

// === impl Accounts ===

impl Accounts {
    pub(super) fn new(accounts: &[ServiceAccountMatch]) -> Self {
        let mut accounts = accounts.to_vec();
        accounts.sort_unstable_by(|a, b| order(a, &b.namespace, &b.service_account));
        Self(accounts.into())
    }

    pub(super) fn contain(&self, id: &Identity) -> bool {
        self.0
            .binary_search_by(|account| order(account, id.namespace(), id.service_account()))
            .is_ok()
    }
}

fn order(account: &ServiceAccountMatch, namespace: &str, name: &str) -> std::cmp::Ordering {
    let by_namespace = (*account.namespace).cmp(namespace);
    by_namespace.then_with(|| (*account.service_account).cmp(name))
}
