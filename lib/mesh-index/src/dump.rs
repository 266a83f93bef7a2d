//! What is known, for people and debug endpoints. Its size is bounded whatever the cluster holds.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    cluster::{Cluster, Space},
    object::{Key, Kind},
    output::Problem,
    record::namespace::Namespace,
};

/// A summary of what is known.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dump {
    /// The cluster's id.
    pub cluster_id: Arc<str>,
    /// The trust domain.
    pub trust_domain: Arc<str>,
    /// The cluster's network; may be empty.
    pub network: Arc<str>,
    /// How many objects of each kind are known.
    pub objects: BTreeMap<&'static str, usize>,
    /// The namespaces, up to [`MAX_NAMESPACES`] in order of their names.
    pub namespaces: Vec<NamespaceDump>,
    /// What is wrong with objects, up to [`MAX_PROBLEMS`] in order of the objects.
    pub problems: Vec<Problem>,
    /// How many namespaces and problems are left out.
    pub left_out: usize,
}

/// What is known of one namespace.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceDump {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is looked at.
    pub discovered: bool,
    /// The Gateway that its objects use unless they choose otherwise.
    pub waypoint: Option<String>,
    /// How many objects of each kind are known.
    pub objects: BTreeMap<&'static str, usize>,
}

/// Most namespaces in a summary.
pub const MAX_NAMESPACES: usize = 2000;
/// Most problems in a summary.
pub const MAX_PROBLEMS: usize = 2000;

impl Dump {
    pub(crate) fn of(cluster: &Cluster, problems: &HashMap<(Kind, Key), Box<[Problem]>>) -> Self {
        let mut objects = BTreeMap::new();
        count(&mut objects, Kind::Node, cluster.nodes.len());
        count(&mut objects, Kind::GatewayClass, cluster.classes.len());
        let mut namespaces = Vec::with_capacity(cluster.spaces.len());
        for (name, space) in &cluster.spaces {
            let own = counts(space);
            for (kind, number) in &own {
                *objects.entry(*kind).or_default() += number;
            }
            count(
                &mut objects,
                Kind::Namespace,
                usize::from(space.namespace.is_some()),
            );
            namespaces.push((name, space, own));
        }
        namespaces.sort_unstable_by_key(|(name, ..)| *name);
        let mut told: Vec<&Problem> = problems.values().flatten().collect();
        told.sort_unstable();
        let left_out = namespaces.len().saturating_sub(MAX_NAMESPACES)
            + told.len().saturating_sub(MAX_PROBLEMS);
        let namespaces = namespaces.into_iter().take(MAX_NAMESPACES);
        Self {
            cluster_id: cluster.names.cluster_id.clone(),
            trust_domain: cluster.names.trust_domain.clone(),
            network: cluster.names.network.clone(),
            objects,
            namespaces: namespaces
                .map(|(name, space, objects)| NamespaceDump {
                    name: name.clone(),
                    discovered: cluster.seen(name).is_some(),
                    waypoint: space.namespace.as_ref().and_then(Namespace::waypoint),
                    objects,
                })
                .collect(),
            problems: told.into_iter().take(MAX_PROBLEMS).cloned().collect(),
            left_out,
        }
    }
}

fn counts(space: &Space) -> BTreeMap<&'static str, usize> {
    let mut objects = BTreeMap::new();
    for (kind, number) in [
        (Kind::Pod, space.pods.len()),
        (Kind::Service, space.services.len()),
        (Kind::EndpointSlice, space.slices.len()),
        (Kind::ServiceEntry, space.entries.len()),
        (Kind::WorkloadEntry, space.workload_entries.len()),
        (Kind::Gateway, space.gateways.len()),
        (Kind::AuthorizationPolicy, space.policies.len()),
        (Kind::PeerAuthentication, space.peers.len()),
    ] {
        count(&mut objects, kind, number);
    }
    objects
}

fn count(objects: &mut BTreeMap<&'static str, usize>, kind: Kind, number: usize) {
    if number > 0 {
        *objects.entry(kind.name()).or_default() += number;
    }
}
