//! What the status of an object says about its waypoint and who sees it.

use mesh_api::{
    condition::{self, reason, reporter},
    mesh_config::Visibility,
};

use super::{
    policy,
    waypoint::{self, Side, Subject, Verdict},
};
use crate::{
    cluster::{Cluster, Space},
    object::{Key, Kind},
    output::{Condition, StatusUpdate},
    published::BuiltStatus,
    record::{
        entry::{Resolution, ServiceEntry, Strategy},
        service::Role,
    },
};

/// What the status of an object should say.
pub(crate) fn build(cluster: &Cluster, kind: Kind, key: &Key) -> BuiltStatus {
    let mut gateways = Vec::new();
    let space = cluster.seen(&key.namespace);
    let status = space.and_then(|space| match kind {
        Kind::Service => service(cluster, space, key, &mut gateways),
        Kind::ServiceEntry => entry(cluster, space, key, &mut gateways),
        Kind::WorkloadEntry => workload_entry(cluster, space, key, &mut gateways),
        Kind::AuthorizationPolicy => policy::status(cluster, space, key),
        Kind::PeerAuthentication => policy::peer_status(cluster, space, key),
        _ => None,
    });
    let reported = status.as_ref().is_some_and(|status| status.reported);
    let update = status.map(|status| StatusUpdate {
        generation: status.generation,
        conditions: status.conditions,
        ..nothing(kind, key)
    });
    BuiltStatus {
        update,
        reported,
        gateways,
    }
}

/// The status of an object of which there is nothing to say.
pub(crate) fn nothing(kind: Kind, key: &Key) -> StatusUpdate {
    StatusUpdate {
        kind,
        key: key.clone(),
        generation: 0,
        reporter: match kind {
            Kind::WorkloadEntry => reporter::WORKLOAD_ENTRY,
            Kind::AuthorizationPolicy | Kind::PeerAuthentication => reporter::ZTUNNEL_POLICY,
            _ => reporter::SERVICE,
        },
        conditions: Vec::new(),
        addresses: Vec::new(),
    }
}

/// What the status of an object should say, and whether it says anything of ours already.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) generation: i64,
    pub(super) conditions: Vec<Condition>,
    pub(super) reported: bool,
}

fn service(cluster: &Cluster, space: &Space, key: &Key, gateways: &mut Vec<Key>) -> Option<Status> {
    let service = space.services.get(&key.name)?;
    let hostname = cluster.hostname(&key.namespace, &key.name);
    let subject = Subject {
        namespace: &key.namespace,
        binding: service.binding.as_deref(),
        role: &service.role,
        side: Side::Service,
        hostname: Some(&hostname),
        confined: false,
    };
    let bound = waypoint::resolve(cluster, &subject, gateways);
    Some(Status {
        generation: 0,
        conditions: bound_condition(&bound.verdict).into_iter().collect(),
        reported: service.reported,
    })
}

fn entry(cluster: &Cluster, space: &Space, key: &Key, gateways: &mut Vec<Key>) -> Option<Status> {
    let entry = space.entries.get(&key.name)?;
    let visibility = cluster.visibility(space, entry);
    let subject = Subject {
        namespace: &key.namespace,
        binding: entry.binding.as_deref(),
        role: &Role::Application,
        side: Side::Service,
        hostname: None,
        confined: visibility == Visibility::Namespace,
    };
    let verdict = waypoint::resolve(cluster, &subject, gateways).verdict;
    let conditions = [
        bound_condition(&verdict),
        missing_condition(entry, &verdict),
        visibility_condition(visibility),
    ];
    Some(Status {
        generation: entry.generation,
        conditions: conditions.into_iter().flatten().collect(),
        reported: entry.reported,
    })
}

fn workload_entry(
    cluster: &Cluster,
    space: &Space,
    key: &Key,
    gateways: &mut Vec<Key>,
) -> Option<Status> {
    let entry = space.workload_entries.get(&key.name)?;
    let subject = Subject::workload(&key.namespace, entry.binding.as_deref());
    let verdict = waypoint::resolve(cluster, &subject, gateways).verdict;
    Some(Status {
        generation: entry.generation,
        conditions: bound_condition(&verdict).into_iter().collect(),
        reported: entry.reported,
    })
}

fn bound_condition(verdict: &Verdict) -> Option<Condition> {
    let (status, reason, message) = match verdict {
        Verdict::Unbound => return None,
        Verdict::Accepted {
            waypoint,
            canary,
            ingress,
        } => {
            let share = canary
                .as_ref()
                .map_or_else(String::new, |(second, weight)| {
                    format!(", {weight} % of it through {second}")
                });
            let gateways = if *ingress {
                "; that of ingress gateways too"
            } else {
                ""
            };
            let message = format!("traffic goes through waypoint {waypoint}{share}{gateways}");
            (true, reason::WAYPOINT_ACCEPTED, message)
        }
        Verdict::Refused {
            waypoint,
            refusal,
            bypassed,
        } => {
            let consequence = if *bypassed {
                "traffic goes directly to its destination, past the waypoint's policies"
            } else {
                "traffic is closed until it can take it"
            };
            let message = format!("{}; {consequence}", refusal.explain(waypoint));
            (false, refusal.reason(), message)
        }
        Verdict::CanaryRefused { waypoint, refusal } => {
            let message = format!(
                "{}; all traffic goes through waypoint {waypoint}",
                refusal.explain(waypoint)
            );
            (false, refusal.reason(), message)
        }
    };
    Some(Condition {
        kind: condition::WAYPOINT_BOUND,
        status,
        reason,
        message,
    })
}

/// A wildcard that is resolved on demand needs a proxy that knows which name is meant, and to race
/// addresses one that connects before the client believes that it is connected.
fn missing_condition(entry: &ServiceEntry, verdict: &Verdict) -> Option<Condition> {
    let wildcard = entry.hosts.iter().any(|h| ServiceEntry::is_wildcard(h));
    let (reason, message) = if *verdict != Verdict::Unbound {
        return None;
    } else if wildcard && entry.resolution == Resolution::DynamicDns {
        (
            reason::NO_WAYPOINT_FOR_WILDCARD_SERVICE,
            "a wildcard host with resolution DYNAMIC_DNS can be reached through a waypoint only: \
             label the object or its namespace with istio.io/use-waypoint",
        )
    } else if entry.strategy == Strategy::Race {
        (
            reason::NO_WAYPOINT_FOR_RACING_CONNECT_STRATEGY,
            "connect strategy FIRST_HEALTHY_RACE is carried out by a waypoint only, and without it one \
             address is tried: label the object or its namespace with istio.io/use-waypoint",
        )
    } else {
        return None;
    };
    Some(Condition {
        kind: condition::WAYPOINT_MISSING,
        status: true,
        reason,
        message: message.into(),
    })
}

fn visibility_condition(visibility: Visibility) -> Option<Condition> {
    let (reason, message) = match visibility {
        Visibility::None => return None,
        Visibility::Namespace => (reason::NAMESPACE, "its own namespace sees this entry"),
        Visibility::Public => (reason::PUBLIC, "the whole mesh sees this entry"),
    };
    Some(Condition {
        kind: condition::VISIBILITY_APPLIED,
        status: true,
        reason,
        message: message.into(),
    })
}
