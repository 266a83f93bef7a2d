//! Policies: which are published, which a workload names, and what their authors are told.

use std::sync::Arc;

use mesh_api::condition::ZTUNNEL_ACCEPTED;
use mesh_core::policy::Authorization;

use super::status::Status;
use crate::{
    cluster::{Cluster, Space},
    object::Key,
    output::Condition,
    policy::{Report, authorization::translate, peer::Peers},
    text::Labels,
};

/// The policy for proxies; nothing if it is none of theirs.
pub(super) fn build(cluster: &Cluster, key: &Key) -> Option<Authorization> {
    let policy = cluster.seen(&key.namespace)?.policies.get(&key.name)?;
    translate(&policy.object, &cluster.context).authorization
}

/// The keys of the policies that a workload must name, in order: those that select it, of its own
/// namespace and of the root's, and the one that its PeerAuthentications come to.
pub(super) fn names(cluster: &Cluster, space: &Space, key: &Key, labels: &Labels) -> Vec<Arc<str>> {
    let root = &cluster.settings.root_namespace;
    let elsewhere = **root != *key.namespace;
    let root_space = cluster.seen(root).filter(|_| elsewhere);
    let selecting = |namespace: &str, space: &Space| {
        let names = space.selecting_policies.matching(labels);
        let keys = names.map(|name| Arc::from(format!("{namespace}/{name}")));
        keys.collect::<Vec<Arc<str>>>()
    };
    let mut names = selecting(&key.namespace, space);
    names.extend(
        root_space
            .into_iter()
            .flat_map(|space| selecting(root, space)),
    );
    let label = |key: &str| labels.get(key).map(|value| &**value);
    names.extend(cluster.peers.policy_of(&key.namespace, label));
    names.sort_unstable();
    names
}

/// What the author of an AuthorizationPolicy is told.
pub(super) fn status(cluster: &Cluster, space: &Space, key: &Key) -> Option<Status> {
    let policy = space.policies.get(&key.name)?;
    let report = translate(&policy.object, &cluster.context).report;
    Some(Status {
        generation: policy.object.metadata.generation.unwrap_or_default(),
        conditions: report.map(condition).into_iter().collect(),
        reported: policy.reported,
    })
}

/// What the author of a PeerAuthentication is told.
pub(super) fn peer_status(cluster: &Cluster, space: &Space, key: &Key) -> Option<Status> {
    let peer = space.peers.get(&key.name)?;
    // The report depends on the object and the root namespace alone.
    let report = Peers::new(cluster.settings.root_namespace.as_str()).apply(&peer.object);
    Some(Status {
        generation: peer.object.metadata.generation.unwrap_or_default(),
        conditions: vec![condition(report.report)],
        reported: peer.reported,
    })
}

fn condition(report: Report) -> Condition {
    Condition {
        kind: ZTUNNEL_ACCEPTED,
        status: report.accepted,
        reason: report.reason,
        message: report.message,
    }
}
