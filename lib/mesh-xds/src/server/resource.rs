//! What is published: a content, and the further names under which it is found.

use std::sync::Arc;

use bytes::Bytes;
use mesh_core::{
    policy::PolicyScope,
    service::Service,
    workload::{NetworkMode, Workload},
};

use crate::{Change, convert};

/// One resource as it is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// The encoded message.
    pub content: Bytes,
    /// Further names under which clients may ask for it: `<network>/<ip>`, or `<network>/<ip>/<length>`
    /// for a range.
    pub aliases: Vec<Arc<str>>,
    /// What brings this resource along for clients that ask for names.
    pub groups: Vec<Group>,
    /// Who answers to an alias that several resources have.
    pub precedence: Precedence,
    /// Whether a policy is in force only where a workload names it. See [`super::Machine`] for the
    /// order that follows.
    pub by_name_only: bool,
}

/// A resource of which others are a part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// The resource with this name, a service, brings its workloads.
    Of(Arc<str>),
    /// Clients on this node get it unasked.
    Node(Arc<str>),
}

/// Which of several resources with one alias answers to it. Among equals it is the one that got the
/// alias last, so that a pod which takes over an address is found while the old one is still known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precedence {
    /// Before services.
    #[default]
    Workload,
    /// After workloads.
    Service,
}

/// One resource to publish, or to withdraw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// Its type, such as `type.googleapis.com/istio.workload.Address`.
    pub type_url: &'a str,
    /// Its name within the type.
    pub name: Arc<str>,
    /// What to publish; nothing to withdraw it.
    pub resource: Option<Resource>,
}

// === impl Resource ===

impl From<Bytes> for Resource {
    /// A resource that is found by its name alone.
    fn from(content: Bytes) -> Self {
        Self {
            content,
            ..Self::default()
        }
    }
}

// === impl Update ===

impl From<&Change> for Update<'static> {
    fn from(change: &Change) -> Self {
        let (type_url, name, content) = convert::change_to_proto(change);
        let resource = content.map(|content| match change {
            Change::Workload(workload) => of_workload(content, workload),
            Change::Service(service) => of_service(content, service),
            Change::Policy(policy) => Resource {
                by_name_only: policy.scope == PolicyScope::WorkloadSelector,
                ..content.into()
            },
            Change::RemoveAddress(_) | Change::RemovePolicy(_) => content.into(),
        });
        Self {
            type_url,
            name,
            resource,
        }
    }
}

/// A workload on its node's network is not found by address: the address is the node's, and shared.
fn of_workload(content: Bytes, workload: &Workload) -> Resource {
    let alias = |address| format!("{}/{address}", workload.network).into();
    let services = workload.services.keys();
    let services = services.map(|service| Group::Of(service.to_string().into()));
    let node = (!workload.node.is_empty()).then(|| Group::Node(workload.node.clone()));
    Resource {
        content,
        aliases: match workload.network_mode {
            NetworkMode::Standard => workload.addresses.iter().map(alias).collect(),
            NetworkMode::HostNetwork => Vec::new(),
        },
        groups: services.chain(node).collect(),
        precedence: Precedence::Workload,
        by_name_only: false,
    }
}

fn of_service(content: Bytes, service: &Service) -> Resource {
    let addresses = service.vips.iter().map(ToString::to_string);
    let ranges = service.cidr_vips.iter().map(ToString::to_string);
    Resource {
        content,
        aliases: addresses.chain(ranges).map(Into::into).collect(),
        groups: Vec::new(),
        precedence: Precedence::Service,
        by_name_only: false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mesh_core::address::{NamespacedHostname, NetworkAddress, NetworkCidr};

    use super::*;

    fn aliases(change: &Change) -> Vec<String> {
        let resource = Update::from(change).resource.unwrap();
        resource.aliases.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_workload_is_found_by_its_addresses_and_grouped_by_services_and_node() {
        let service = NamespacedHostname {
            namespace: "ns".into(),
            hostname: "s.ns.svc.cluster.local".into(),
        };
        let mut workload = Workload {
            network: "net".into(),
            addresses: vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            node: "n1".into(),
            services: [(service, BTreeMap::new())].into(),
            ..Workload::with_uid("w")
        };
        let change = Change::Workload(workload.clone());
        assert_eq!(aliases(&change), ["net/10.0.0.1", "net/2001:db8::1"]);
        assert_eq!(
            Update::from(&change).resource.unwrap().groups,
            [
                Group::Of("ns/s.ns.svc.cluster.local".into()),
                Group::Node("n1".into())
            ]
        );
        workload.network_mode = NetworkMode::HostNetwork;
        assert_eq!(aliases(&Change::Workload(workload)), [""; 0]);
    }

    #[test]
    fn a_service_is_found_by_its_addresses_and_ranges() {
        let service = Service {
            vips: vec![NetworkAddress {
                network: "".into(),
                address: "10.96.0.1".parse().unwrap(),
            }],
            cidr_vips: vec![NetworkCidr {
                network: "".into(),
                cidr: "192.0.2.0/24".parse().unwrap(),
            }],
            ..Service::named("s", "ns", "s.example")
        };
        let change = Change::Service(service);
        assert_eq!(aliases(&change), ["/10.96.0.1", "/192.0.2.0/24"]);
    }
}
