//! Endpoint choice: which of a service's endpoints takes a connection.
//!
//! All work is done when the endpoints change. They are sorted into a tree with one level per scope of
//! the service's routing preference, and every node of it holds a ready weighted choice. A connection
//! walks down the tree along the client's own place, at most one hash lookup per level, and draws once:
//! neither step grows with the number of endpoints. The tree does not depend on who the client is, so
//! one serves them all.

use std::{collections::HashMap, sync::Arc};

use fastrand::Rng;

use crate::{
    service::{BalancingMode, LoadBalancing, Scope},
    workload::Workload,
};

pub mod weighted;

use weighted::Weighted;

/// The eligible endpoints of one service, prepared for choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancer<T> {
    levels: Box<[Level]>,
    tree: Tree<T>,
}

/// An endpoint that may be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a, T> {
    /// What a choice returns.
    pub value: T,
    /// The workload behind it, whose place and capacity count.
    pub workload: &'a Workload,
}

/// What a choice returns among, and what happens when no endpoint is at the client's place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tree<T> {
    /// No endpoint is chosen.
    Strict(Node<T>),
    /// Scopes are given up from the last to the first.
    Widening(Node<T>),
    /// As `Widening` over the scopes after the network, but the client's own network goes first: to be
    /// in it counts as much as to agree in all the others.
    NetworkFirst {
        own: HashMap<Arc<str>, Node<T>>,
        all: Node<T>,
    },
}

/// A level of the tree: the attribute it splits by, and whether a choice may be made below it. A zone
/// means something only within its region, so a preference for zones alone also splits by region, but
/// does not stop there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Level {
    attribute: Scope,
    stop: bool,
}

/// The endpoints that share the values on the way to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node<T> {
    here: Weighted<T>,
    children: HashMap<Arc<str>, Self>,
}

/// The last node of a walk at which a choice may be made, and how many levels lead to it.
struct Reach<'a, T> {
    here: &'a Weighted<T>,
    levels: usize,
}

/// One choice, or two that rank the same.
type Pools<'a, T> = (&'a Weighted<T>, Option<&'a Weighted<T>>);

// === impl Balancer ===

impl<T: Copy> Balancer<T> {
    /// Prepares the choice among endpoints that are all eligible. Those of capacity 0 are left out.
    pub fn new(policy: Option<&LoadBalancing>, candidates: &[Candidate<'_, T>]) -> Self {
        let ready = |c: &&Candidate<'_, T>| c.workload.capacity > 0;
        let candidates: Vec<_> = candidates.iter().filter(ready).collect();
        let mode = policy.map_or(BalancingMode::Standard, |p| p.mode);
        let scopes = policy.map_or(&[][..], |p| &p.routing_preference);
        let (levels, tree) = match (mode, levels(scopes)) {
            (BalancingMode::Standard | BalancingMode::Passthrough, _) => {
                (Vec::new(), Tree::Widening(Node::build(&[], &candidates)))
            }
            (BalancingMode::Strict, levels) => {
                let root = Node::build(&levels, &candidates);
                (levels, Tree::Strict(root))
            }
            (BalancingMode::Failover, levels) => match levels.split_first() {
                Some((first, rest)) if first.attribute == Scope::Network && !rest.is_empty() => {
                    (rest.to_vec(), Tree::network_first(rest, &candidates))
                }
                _ => {
                    let root = Node::build(&levels, &candidates);
                    (levels, Tree::Widening(root))
                }
            },
        };
        Self {
            levels: levels.into(),
            tree,
        }
    }

    /// An endpoint for a connection of `client`; `None` if none may take it.
    pub fn choose(&self, client: &Workload, rng: &mut Rng) -> Option<T> {
        let (first, second) = self.pools(client)?;
        let second = second.filter(|pool| {
            let total = first.total().saturating_add(pool.total());
            rng.u64(..total.max(1)) < pool.total()
        });
        second.unwrap_or(first).choose(rng).copied()
    }

    /// Whether no endpoint can ever be chosen.
    pub fn is_empty(&self) -> bool {
        match &self.tree {
            Tree::Strict(all) | Tree::Widening(all) | Tree::NetworkFirst { all, .. } => {
                all.here.is_empty()
            }
        }
    }

    /// The best-ranked endpoints for a client.
    fn pools(&self, client: &Workload) -> Option<Pools<'_, T>> {
        let levels = &self.levels;
        let (first, second) = match &self.tree {
            Tree::Strict(root) => {
                let reach = root.walk(levels, client);
                (reach.levels == levels.len()).then_some((reach.here, None))?
            }
            Tree::Widening(root) => (root.walk(levels, client).here, None),
            Tree::NetworkFirst { own, all } => match own.get(&client.network) {
                Some(own) => own_or_equal(levels, client, own, all),
                None => (all.walk(levels, client).here, None),
            },
        };
        (!first.is_empty()).then_some((first, second))
    }
}

/// The endpoints of the client's network that agree furthest; if they agree in nothing else, also those
/// of other networks that agree in everything.
fn own_or_equal<'a, T: Copy>(
    levels: &[Level],
    client: &Workload,
    own: &'a Node<T>,
    all: &'a Node<T>,
) -> Pools<'a, T> {
    let near = own.walk(levels, client);
    if near.levels > 0 {
        return (near.here, None);
    }
    // Nothing of the own network agrees in the first scope, so a full walk ends among other networks.
    let elsewhere = all.walk(levels, client);
    let agrees_in_all = elsewhere.levels == levels.len();
    (&own.here, agrees_in_all.then_some(elsewhere.here))
}

// === impl Tree ===

impl<T: Copy> Tree<T> {
    fn network_first(rest: &[Level], candidates: &[&Candidate<'_, T>]) -> Self {
        let own = split(Scope::Network, candidates)
            .into_iter()
            .map(|(network, members)| (network, Node::build(rest, &members)))
            .collect();
        let all = Node::build(rest, candidates);
        Self::NetworkFirst { own, all }
    }
}

// === impl Node ===

impl<T: Copy> Node<T> {
    fn build(levels: &[Level], candidates: &[&Candidate<'_, T>]) -> Self {
        let weights = candidates.iter().map(|c| (c.value, c.workload.capacity));
        let children = match levels.split_first() {
            None => HashMap::new(),
            Some((level, below)) => split(level.attribute, candidates)
                .into_iter()
                .map(|(value, members)| (value, Self::build(below, &members)))
                .collect(),
        };
        Self {
            here: Weighted::new(weights),
            children,
        }
    }

    /// As far down as the client's place leads.
    fn walk(&self, levels: &[Level], client: &Workload) -> Reach<'_, T> {
        let mut reach = Reach {
            here: &self.here,
            levels: 0,
        };
        let mut node = self;
        for (depth, level) in (1..).zip(levels) {
            let Some(child) = node.children.get(place(level.attribute, client)) else {
                break;
            };
            node = child;
            if level.stop {
                reach = Reach {
                    here: &node.here,
                    levels: depth,
                };
            }
        }
        reach
    }
}

/// The levels of a preference. An attribute that an earlier level settles is not split by again.
fn levels(preference: &[Scope]) -> Vec<Level> {
    let mut levels: Vec<Level> = Vec::new();
    for scope in preference {
        let path: &[Scope] = match scope {
            Scope::Zone => &[Scope::Region, Scope::Zone],
            Scope::Subzone => &[Scope::Region, Scope::Zone, Scope::Subzone],
            Scope::Region | Scope::Node | Scope::Cluster | Scope::Network => {
                std::slice::from_ref(scope)
            }
        };
        for &attribute in path {
            if !levels.iter().any(|level| level.attribute == attribute) {
                let stop = attribute == *scope;
                levels.push(Level { attribute, stop });
            }
        }
    }
    levels
}

/// The candidates by their value of one attribute.
fn split<'c, 'w, T>(
    attribute: Scope,
    candidates: &[&'c Candidate<'w, T>],
) -> HashMap<Arc<str>, Vec<&'c Candidate<'w, T>>> {
    let mut members: HashMap<Arc<str>, Vec<_>> = HashMap::new();
    for candidate in candidates {
        let value = place(attribute, candidate.workload);
        members.entry(value.clone()).or_default().push(*candidate);
    }
    members
}

/// Where a workload is, in one respect. Unknown parts are empty and agree with each other.
fn place(attribute: Scope, workload: &Workload) -> &Arc<str> {
    match attribute {
        Scope::Region => &workload.locality.region,
        Scope::Zone => &workload.locality.zone,
        Scope::Subzone => &workload.locality.subzone,
        Scope::Node => &workload.node,
        Scope::Cluster => &workload.cluster_id,
        Scope::Network => &workload.network,
    }
}

#[cfg(test)]
mod tests;
