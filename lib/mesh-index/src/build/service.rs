//! Services and hosts of ServiceEntries to services.

use std::{net::IpAddr, sync::Arc};

use mesh_api::mesh_config::Visibility;
use mesh_core::{
    address::{NetworkAddress, NetworkCidr},
    service::{self, BalancingMode, HealthPolicy, IpFamilies, LoadBalancing, Scope},
};

use super::waypoint::{self, Side, Subject};
use crate::{
    allocate,
    cluster::{Cluster, Space},
    object::Key,
    record::{
        entry::{Resolution, ServiceEntry},
        service::{Distribution, Role, Service, Target},
    },
};

/// The service of a host name in a namespace: that of a Service if there is one, else that of the oldest
/// ServiceEntry with that host.
pub(super) fn build(
    cluster: &Cluster,
    key: &Key,
    gateways: &mut Vec<Key>,
) -> Option<service::Service> {
    let (namespace, host) = (&key.namespace, &key.name);
    let space = cluster.seen(namespace)?;
    if let Some((name, owner)) = cluster.parse_hostname(host)
        && *owner == **namespace
        && let Some((name, service)) = space.services.get_key_value(name)
    {
        return Some(of_service(cluster, space, key, (name, service), gateways));
    }
    let found = cluster.entry_of(namespace, host)?;
    Some(of_entry(cluster, space, key, found, gateways))
}

fn of_service(
    cluster: &Cluster,
    space: &Space,
    key: &Key,
    (name, service): (&Arc<str>, &Service),
    gateways: &mut Vec<Key>,
) -> service::Service {
    let subject = Subject {
        namespace: &key.namespace,
        binding: service.binding.as_deref(),
        role: &service.role,
        side: Side::Service,
        hostname: Some(&key.name),
        confined: false,
    };
    let bound = waypoint::resolve(cluster, &subject, gateways);
    let spoken = (service.ports.iter()).filter_map(|port| Some((port.number, port.protocol?)));
    let ports = service.ports.iter().map(|port| match &port.target {
        Target::Number(target) => (port.number, *target),
        Target::Name(_) => (port.number, 0),
    });
    let health = if service.publish_not_ready {
        HealthPolicy::AllowAll
    } else {
        HealthPolicy::OnlyHealthy
    };
    let distribution = preference(space, service.distribution);
    let load_balancing = if service.local {
        Some(LoadBalancing {
            routing_preference: vec![Scope::Node],
            mode: BalancingMode::Strict,
            health_policy: health,
        })
    } else {
        balancing(distribution, health)
    };
    service::Service {
        name: name.clone(),
        namespace: key.namespace.clone(),
        hostname: key.name.clone(),
        vips: vips(cluster, &service.addresses),
        ports: ports.collect(),
        app_protocols: spoken.collect(),
        waypoint: bound.gateway,
        weighted_waypoints: bound.weighted,
        ingress_use_waypoint: bound.ingress,
        load_balancing,
        ip_families: service.families,
        canonical: true,
        ..service::Service::named("", "", "")
    }
}

fn of_entry(
    cluster: &Cluster,
    space: &Space,
    key: &Key,
    (entry_key, entry): (&Key, &ServiceEntry),
    gateways: &mut Vec<Key>,
) -> service::Service {
    let visibility = cluster.visibility(space, entry);
    let subject = Subject {
        namespace: &key.namespace,
        binding: entry.binding.as_deref(),
        role: &Role::Application,
        side: Side::Service,
        hostname: Some(&key.name),
        confined: visibility != Visibility::Public,
    };
    let bound = waypoint::resolve(cluster, &subject, gateways);
    let load_balancing = match entry.resolution {
        Resolution::None => Some(LoadBalancing {
            routing_preference: Vec::new(),
            mode: BalancingMode::Passthrough,
            health_policy: HealthPolicy::AllowAll,
        }),
        _ => balancing(
            preference(space, entry.distribution),
            HealthPolicy::OnlyHealthy,
        ),
    };
    let allocated: Vec<IpAddr> = if allocate::wanted(&cluster.settings, entry) {
        allocate::of_host(entry, &key.name).collect()
    } else {
        Vec::new()
    };
    let ranges = entry.ranges.iter().map(|cidr| NetworkCidr {
        network: cluster.names.network.clone(),
        cidr: *cidr,
    });
    let spoken = (entry.ports.iter()).filter_map(|port| Some((port.number, port.protocol?)));
    let canonical = cluster.canonical(&key.name);
    service::Service {
        name: entry_key.name.clone(),
        namespace: key.namespace.clone(),
        hostname: key.name.clone(),
        vips: vips(cluster, entry.addresses.iter().chain(&allocated)),
        cidr_vips: ranges.collect(),
        ports: entry.ports.iter().map(|p| (p.number, p.target)).collect(),
        app_protocols: spoken.collect(),
        subject_alt_names: entry.subject_alt_names.to_vec(),
        waypoint: bound.gateway,
        weighted_waypoints: bound.weighted,
        ingress_use_waypoint: bound.ingress,
        load_balancing,
        ip_families: IpFamilies::Automatic,
        canonical: canonical == Some(&key.namespace),
        visibility: match visibility {
            Visibility::Public => service::Visibility::Public,
            Visibility::Namespace | Visibility::None => service::Visibility::Namespace,
        },
    }
}

fn vips<'a>(
    cluster: &Cluster,
    addresses: impl IntoIterator<Item = &'a IpAddr>,
) -> Vec<NetworkAddress> {
    let addresses = addresses.into_iter().map(|address| NetworkAddress {
        network: cluster.names.network.clone(),
        address: *address,
    });
    addresses.collect()
}

/// The object's preference, else that of its namespace.
fn preference(space: &Space, own: Option<Distribution>) -> Distribution {
    let namespace = space.namespace.as_ref();
    let inherited = || namespace.and_then(|namespace| namespace.distribution);
    own.or_else(inherited).unwrap_or(Distribution::Any)
}

fn balancing(distribution: Distribution, health: HealthPolicy) -> Option<LoadBalancing> {
    let routing_preference = match distribution {
        Distribution::Any => Vec::new(),
        Distribution::SameZone => vec![Scope::Network, Scope::Region, Scope::Zone],
        Distribution::SameNode => vec![
            Scope::Network,
            Scope::Region,
            Scope::Zone,
            Scope::Subzone,
            Scope::Node,
        ],
    };
    let mode = match distribution {
        Distribution::Any => BalancingMode::Standard,
        Distribution::SameZone | Distribution::SameNode => BalancingMode::Failover,
    };
    let plain = mode == BalancingMode::Standard && health == HealthPolicy::OnlyHealthy;
    (!plain).then_some(LoadBalancing {
        routing_preference,
        mode,
        health_policy: health,
    })
}
