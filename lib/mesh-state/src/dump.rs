//! The state in the form of `config_dump`, as `istioctl ztunnel-config` reads it.
//!
//! The types here only borrow: a dump costs as much as the text made of it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use mesh_core::{
    address::{GatewayAddress, GatewayDestination, NamespacedHostname},
    service::{BalancingMode, HealthPolicy, IpFamilies, LoadBalancing, Scope, Service, Visibility},
    workload::{
        ApplicationProtocol, ApplicationTunnel, Health, NetworkMode, PortMap, TunnelProtocol,
        Workload, WorkloadType,
    },
};
use serde::Serialize;

use crate::snapshot::Snapshot;

mod policy;

use policy::PolicyDump;

/// A snapshot, to be serialized. Everything is sorted, so that two dumps can be compared.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dump<'a> {
    /// By uid.
    workloads: Vec<WorkloadDump<'a>>,
    /// By namespace and host name.
    services: Vec<ServiceDump<'a>>,
    /// By namespace and name.
    policies: Vec<PolicyDump<'a>>,
    /// Endpoints whose service is not known yet, by `namespace/hostname`.
    staged_services: BTreeMap<String, Endpoints<'a>>,
}

/// Endpoints by workload uid.
type Endpoints<'a> = BTreeMap<&'a str, EndpointDump<'a>>;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadDump<'a> {
    uid: &'a str,
    workload_ips: &'a [IpAddr],
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<GatewayDump>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_gateway: Option<GatewayDump>,
    protocol: &'static str,
    name: &'a str,
    namespace: &'a str,
    service_account: &'a str,
    workload_name: &'a str,
    workload_type: &'static str,
    canonical_name: &'a str,
    canonical_revision: &'a str,
    cluster_id: &'a str,
    trust_domain: &'a str,
    locality: LocalityDump<'a>,
    node: &'a str,
    network: &'a str,
    network_mode: &'static str,
    status: &'static str,
    hostname: &'a str,
    capacity: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_tunnel: Option<TunnelDump>,
    authorization_policies: &'a [Arc<str>],
    /// As `namespace/hostname`.
    services: Vec<String>,
    native_tunnel: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceDump<'a> {
    name: &'a str,
    namespace: &'a str,
    hostname: &'a str,
    vips: Vec<String>,
    cidr_vips: Vec<RangeDump<'a>>,
    ports: &'a BTreeMap<u16, u16>,
    endpoints: Endpoints<'a>,
    subject_alt_names: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<GatewayDump>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    weighted_waypoints: Vec<WeightedDump>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_balancer: Option<LoadBalancerDump>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_families: Option<&'static str>,
    canonical: bool,
    visibility: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointDump<'a> {
    workload_uid: &'a str,
    port: &'a PortMap,
    status: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GatewayDump {
    destination: String,
    hbone_mtls_port: u16,
}

#[derive(Debug, Serialize)]
struct WeightedDump {
    destination: GatewayDump,
    weight: u32,
}

#[derive(Debug, Serialize)]
struct LocalityDump<'a> {
    region: &'a str,
    zone: &'a str,
    subzone: &'a str,
}

#[derive(Debug, Serialize)]
struct TunnelDump {
    protocol: &'static str,
    port: Option<u16>,
}

#[derive(Debug, Serialize)]
struct RangeDump<'a> {
    network: &'a str,
    cidr: IpNet,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LoadBalancerDump {
    routing_preferences: Vec<&'static str>,
    mode: &'static str,
    health_policy: &'static str,
}

// === impl Dump ===

impl<'a> Dump<'a> {
    pub(crate) fn of(snapshot: &'a Snapshot) -> Self {
        let known = snapshot.workloads.iter();
        let mut workloads: Vec<_> = known
            .map(|known| WorkloadDump::of(&known.workload))
            .collect();
        workloads.sort_unstable_by_key(|workload| workload.uid);
        let entries = snapshot.services.iter();
        let mut services: Vec<_> = entries
            .map(|entry| ServiceDump::of(&entry.service, snapshot))
            .collect();
        services.sort_unstable_by_key(|service| (service.namespace, service.hostname));
        let compiled = snapshot.policies.iter();
        let mut policies: Vec<_> = compiled
            .map(|policy| PolicyDump::of(policy.source()))
            .collect();
        policies.sort_unstable_by_key(PolicyDump::key);
        let staged = snapshot.services.staged();
        Self {
            workloads,
            services,
            policies,
            staged_services: staged
                .map(|key| (key.to_string(), endpoints(key, snapshot)))
                .collect(),
        }
    }
}

fn endpoints<'a>(key: &NamespacedHostname, snapshot: &'a Snapshot) -> Endpoints<'a> {
    let endpoint = |workload: &'a Arc<Workload>| {
        let port = workload.services.get(key)?;
        let dump = EndpointDump {
            workload_uid: &workload.uid,
            port,
            status: health(workload.status),
        };
        Some((&*workload.uid, dump))
    };
    snapshot.workloads_of(key).filter_map(endpoint).collect()
}

// === impl WorkloadDump ===

impl<'a> WorkloadDump<'a> {
    fn of(workload: &'a Workload) -> Self {
        Self {
            uid: &workload.uid,
            workload_ips: &workload.addresses,
            waypoint: workload.waypoint.as_ref().map(GatewayDump::of),
            network_gateway: workload.network_gateway.as_ref().map(GatewayDump::of),
            protocol: match workload.protocol {
                TunnelProtocol::None => "TCP",
                TunnelProtocol::Hbone => "HBONE",
            },
            name: &workload.name,
            namespace: &workload.namespace,
            service_account: &workload.service_account,
            workload_name: &workload.workload_name,
            workload_type: match workload.workload_type {
                WorkloadType::Deployment => "deployment",
                WorkloadType::CronJob => "cronjob",
                WorkloadType::Pod => "pod",
                WorkloadType::Job => "job",
            },
            canonical_name: &workload.canonical_name,
            canonical_revision: &workload.canonical_revision,
            cluster_id: &workload.cluster_id,
            trust_domain: &workload.trust_domain,
            locality: LocalityDump {
                region: &workload.locality.region,
                zone: &workload.locality.zone,
                subzone: &workload.locality.subzone,
            },
            node: &workload.node,
            network: &workload.network,
            network_mode: match workload.network_mode {
                NetworkMode::Standard => "Standard",
                NetworkMode::HostNetwork => "HostNetwork",
            },
            status: health(workload.status),
            hostname: workload.hostname.as_deref().unwrap_or_default(),
            capacity: workload.capacity,
            application_tunnel: workload.application_tunnel.map(TunnelDump::of),
            authorization_policies: &workload.authorization_policies,
            services: workload.services.keys().map(ToString::to_string).collect(),
            native_tunnel: workload.native_tunnel,
        }
    }
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "Healthy",
        Health::Unhealthy => "Unhealthy",
    }
}

// === impl TunnelDump ===

impl TunnelDump {
    fn of(tunnel: ApplicationTunnel) -> Self {
        Self {
            protocol: match tunnel.protocol {
                ApplicationProtocol::None => "NONE",
                ApplicationProtocol::Proxy => "PROXY",
            },
            port: tunnel.port,
        }
    }
}

// === impl GatewayDump ===

impl GatewayDump {
    fn of(gateway: &GatewayAddress) -> Self {
        Self {
            destination: match &gateway.destination {
                GatewayDestination::Address(address) => address.to_string(),
                GatewayDestination::Hostname(name) => name.to_string(),
            },
            hbone_mtls_port: gateway.hbone_mtls_port,
        }
    }
}

// === impl ServiceDump ===

impl<'a> ServiceDump<'a> {
    fn of(service: &'a Service, snapshot: &'a Snapshot) -> Self {
        let ranges = service.cidr_vips.iter();
        let weighted = service.weighted_waypoints.iter();
        Self {
            name: &service.name,
            namespace: &service.namespace,
            hostname: &service.hostname,
            vips: service.vips.iter().map(ToString::to_string).collect(),
            cidr_vips: ranges
                .map(|range| RangeDump {
                    network: &range.network,
                    cidr: range.cidr,
                })
                .collect(),
            ports: &service.ports,
            endpoints: endpoints(&service.key(), snapshot),
            subject_alt_names: &service.subject_alt_names,
            waypoint: service.waypoint.as_ref().map(GatewayDump::of),
            weighted_waypoints: weighted
                .map(|weighted| WeightedDump {
                    destination: GatewayDump::of(&weighted.destination),
                    weight: weighted.weight,
                })
                .collect(),
            load_balancer: service.load_balancing.as_ref().map(LoadBalancerDump::of),
            ip_families: match service.ip_families {
                IpFamilies::Automatic => None,
                IpFamilies::Ipv4Only => Some("IPv4"),
                IpFamilies::Ipv6Only => Some("IPv6"),
                IpFamilies::Dual => Some("Dual"),
            },
            canonical: service.canonical,
            visibility: match service.visibility {
                Visibility::Public => "Public",
                Visibility::Namespace => "Namespace",
            },
        }
    }
}

// === impl LoadBalancerDump ===

impl LoadBalancerDump {
    fn of(policy: &LoadBalancing) -> Self {
        let scope = |scope: &Scope| match scope {
            Scope::Region => "Region",
            Scope::Zone => "Zone",
            Scope::Subzone => "Subzone",
            Scope::Node => "Node",
            Scope::Cluster => "Cluster",
            Scope::Network => "Network",
        };
        Self {
            routing_preferences: policy.routing_preference.iter().map(scope).collect(),
            mode: match policy.mode {
                BalancingMode::Standard => "Standard",
                BalancingMode::Strict => "Strict",
                BalancingMode::Failover => "Failover",
                BalancingMode::Passthrough => "Passthrough",
            },
            health_policy: match policy.health_policy {
                HealthPolicy::OnlyHealthy => "OnlyHealthy",
                HealthPolicy::AllowAll => "AllowAll",
            },
        }
    }
}

#[cfg(test)]
mod tests;
