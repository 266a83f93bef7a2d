//! A small mesh for tests: short ways to say what discovery says.

use std::{net::IpAddr, sync::Arc};

use mesh_core::{
    address::{
        GatewayAddress, GatewayDestination, NamespacedHostname, NetworkAddress, NetworkCidr,
    },
    change::Change,
    identity::Identity,
    policy::{Action, Authorization, Clause, Match, PolicyScope, Rule},
    rbac::Connection,
    service::{BalancingMode, HealthPolicy, LoadBalancing, Scope, Service},
    workload::{PortMap, TunnelProtocol, Workload},
};

use crate::{
    snapshot::Snapshot,
    store::{Config, Store},
};

pub(crate) const NODE: &str = "node1";

pub(crate) fn mk_config() -> Config {
    Config {
        node: Some(NODE.into()),
        cluster: Some("Kubernetes".into()),
        ..Config::default()
    }
}

/// A pod of this node that takes HBONE, in namespace `app` unless the name says `namespace/name`.
pub(crate) fn mk_pod(name: &str, ip: &str) -> Workload {
    let (namespace, name) = name.split_once('/').unwrap_or(("app", name));
    Workload {
        name: name.into(),
        namespace: namespace.into(),
        service_account: name.into(),
        addresses: vec![ip.parse().unwrap()],
        protocol: TunnelProtocol::Hbone,
        node: NODE.into(),
        ..Workload::with_uid(format!("Kubernetes//Pod/{namespace}/{name}"))
    }
}

/// The service `name` of namespace `app` at a virtual address, with port 80 to target port 8080.
pub(crate) fn mk_service(name: &str, vip: &str) -> Service {
    let (namespace, name) = name.split_once('/').unwrap_or(("app", name));
    Service {
        vips: vec![at(vip)],
        ports: [(80, 8080)].into(),
        ..Service::named(name, namespace, &format!("{name}.example"))
    }
}

/// The pod, backing a service with ports of its own.
pub(crate) fn backing(mut pod: Workload, service: &Service, ports: &[(u16, u16)]) -> Workload {
    let ports: PortMap = ports.iter().copied().collect();
    pod.services.insert(service.key(), ports);
    pod
}

pub(crate) fn balanced(service: Service, mode: BalancingMode, scopes: &[Scope]) -> Service {
    Service {
        load_balancing: Some(LoadBalancing {
            routing_preference: scopes.to_vec(),
            mode,
            health_policy: HealthPolicy::OnlyHealthy,
        }),
        ..service
    }
}

pub(crate) fn at(ip: &str) -> NetworkAddress {
    NetworkAddress {
        network: "".into(),
        address: ip.parse().unwrap(),
    }
}

pub(crate) fn range(cidr: &str) -> NetworkCidr {
    NetworkCidr {
        network: "".into(),
        cidr: cidr.parse().unwrap(),
    }
}

pub(crate) fn gateway_at(ip: &str) -> GatewayAddress {
    GatewayAddress {
        destination: GatewayDestination::Address(at(ip)),
        hbone_mtls_port: 15008,
    }
}

pub(crate) fn gateway_named(key: &NamespacedHostname) -> GatewayAddress {
    GatewayAddress {
        destination: GatewayDestination::Hostname(key.clone()),
        hbone_mtls_port: 15008,
    }
}

/// A policy of namespace `app` on port 8080.
pub(crate) fn mk_policy(name: &str, scope: PolicyScope, action: Action) -> Authorization {
    let m = Match {
        destination_ports: vec![8080],
        ..Match::default()
    };
    Authorization {
        name: name.into(),
        namespace: "app".into(),
        scope,
        action,
        rules: vec![Rule {
            clauses: vec![Clause { matches: vec![m] }],
        }],
        dry_run: false,
    }
}

pub(crate) fn mk_connection(to: &str) -> Connection {
    Connection {
        source_identity: None,
        source_ip: "10.0.0.9".parse().unwrap(),
        destination: to.parse().unwrap(),
    }
}

pub(crate) fn identity_of(workload: &Workload) -> Identity {
    workload.identity().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What a store shows after these workloads and services.
pub(crate) fn mk_snapshot(workloads: &[&Workload], services: &[&Service]) -> Arc<Snapshot> {
    let store = Store::new(mk_config());
    store.apply(services.iter().map(|s| Change::Service(Service::clone(s))));
    store.apply(
        workloads
            .iter()
            .map(|w| Change::Workload(Workload::clone(w))),
    );
    store.snapshot()
}
