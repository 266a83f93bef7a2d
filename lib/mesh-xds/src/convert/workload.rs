//! Workloads.

use mesh_core::workload::{
    ApplicationProtocol, ApplicationTunnel, Health, Locality, NetworkMode, PortMap, TunnelProtocol,
    Workload, WorkloadType,
};
use mesh_proto::workload as proto;

use super::{
    Error, InField, Interner, Problem, excerpt, gateway, ip, ip_bytes, known, list, port, required,
    text_or,
};

/// A workload of the wire, with the wire's defaults filled in.
pub fn from_proto(message: proto::Workload, texts: &mut Interner) -> Result<Workload, Error> {
    let defaults = Workload::with_uid(required(&message.uid).field("uid")?);
    let services = message.services.into_iter().map(|(key, ports)| {
        let field = format!("services[{}]", excerpt(&key));
        let name = gateway::service_name(&key, texts).field(&field)?;
        Ok((name, port_map(ports.ports).field(&field)?))
    });
    Ok(Workload {
        services: services.collect::<Result<_, Error>>()?,
        name: message.name.into(),
        namespace: texts.share(&message.namespace),
        service_account: texts.share(text_or(&message.service_account, &defaults.service_account)),
        trust_domain: texts.share(text_or(&message.trust_domain, &defaults.trust_domain)),
        network: texts.share(&message.network),
        cluster_id: texts.share(text_or(&message.cluster_id, &defaults.cluster_id)),
        addresses: list("addresses", message.addresses, |bytes| ip(&bytes))?,
        hostname: Some(message.hostname)
            .filter(|name| !name.is_empty())
            .map(Into::into),
        protocol: tunnel_protocol(message.tunnel_protocol).field("tunnel_protocol")?,
        network_mode: network_mode(message.network_mode).field("network_mode")?,
        node: texts.share(&message.node),
        canonical_name: texts.share(&message.canonical_name),
        canonical_revision: texts.share(&message.canonical_revision),
        workload_name: texts.share(&message.workload_name),
        workload_type: workload_type(message.workload_type).field("workload_type")?,
        waypoint: optional_gateway(message.waypoint.as_ref(), texts).field("waypoint")?,
        network_gateway: optional_gateway(message.network_gateway.as_ref(), texts)
            .field("network_gateway")?,
        application_tunnel: message
            .application_tunnel
            .map(application_tunnel)
            .transpose()
            .field("application_tunnel")?,
        native_tunnel: message.native_tunnel,
        authorization_policies: list(
            "authorization_policies",
            &message.authorization_policies,
            |key| required(key).map(|key| texts.share(key)),
        )?,
        status: health(message.status).field("status")?,
        locality: locality(&message.locality.unwrap_or_default(), texts),
        capacity: message.capacity.unwrap_or(defaults.capacity),
        uid: defaults.uid,
    })
}

/// A workload for the wire, with every default spelled out.
pub fn to_proto(workload: &Workload) -> proto::Workload {
    proto::Workload {
        uid: workload.uid.to_string(),
        name: workload.name.to_string(),
        namespace: workload.namespace.to_string(),
        addresses: workload.addresses.iter().copied().map(ip_bytes).collect(),
        hostname: workload.hostname.as_deref().unwrap_or_default().to_owned(),
        network: workload.network.to_string(),
        tunnel_protocol: match workload.protocol {
            TunnelProtocol::None => proto::TunnelProtocol::None,
            TunnelProtocol::Hbone => proto::TunnelProtocol::Hbone,
        }
        .into(),
        trust_domain: workload.trust_domain.to_string(),
        service_account: workload.service_account.to_string(),
        waypoint: workload.waypoint.as_ref().map(gateway::to_proto),
        node: workload.node.to_string(),
        canonical_name: workload.canonical_name.to_string(),
        canonical_revision: workload.canonical_revision.to_string(),
        workload_type: workload_type_to_proto(workload.workload_type).into(),
        workload_name: workload.workload_name.to_string(),
        native_tunnel: workload.native_tunnel,
        authorization_policies: workload
            .authorization_policies
            .iter()
            .map(ToString::to_string)
            .collect(),
        status: match workload.status {
            Health::Healthy => proto::WorkloadStatus::Healthy,
            Health::Unhealthy => proto::WorkloadStatus::Unhealthy,
        }
        .into(),
        cluster_id: workload.cluster_id.to_string(),
        network_gateway: workload.network_gateway.as_ref().map(gateway::to_proto),
        services: services_to_proto(workload),
        application_tunnel: workload.application_tunnel.map(application_tunnel_to_proto),
        locality: locality_to_proto(&workload.locality),
        network_mode: match workload.network_mode {
            NetworkMode::Standard => proto::NetworkMode::Standard,
            NetworkMode::HostNetwork => proto::NetworkMode::HostNetwork,
        }
        .into(),
        capacity: Some(workload.capacity),
    }
}

/// Target port by service port. Of two entries for one service port (TCP and UDP, say) the last counts.
pub(super) fn port_map(ports: Vec<proto::Port>) -> Result<PortMap, Error> {
    let pair = |entry: proto::Port| {
        let service_port = port(entry.service_port).and_then(|number| match number {
            0 => Err(Problem::Port(0)),
            number => Ok(number),
        });
        Ok::<_, Error>((
            service_port.field("service_port")?,
            port(entry.target_port).field("target_port")?,
        ))
    };
    Ok(list("ports", ports, pair)?.into_iter().collect())
}

/// Ports for the wire. What is spoken on them is the service's to say.
fn ports_to_proto(ports: &PortMap) -> Vec<proto::Port> {
    let port = |(service_port, target_port): (&u16, &u16)| proto::Port {
        service_port: u32::from(*service_port),
        target_port: u32::from(*target_port),
        app_protocol: proto::AppProtocol::Unknown.into(),
    };
    ports.iter().map(port).collect()
}

fn optional_gateway(
    message: Option<&proto::GatewayAddress>,
    texts: &mut Interner,
) -> Result<Option<mesh_core::address::GatewayAddress>, Error> {
    message
        .map(|message| gateway::from_proto(message, texts))
        .transpose()
}

fn tunnel_protocol(value: i32) -> Result<TunnelProtocol, Problem> {
    match known(value)? {
        proto::TunnelProtocol::None => Ok(TunnelProtocol::None),
        proto::TunnelProtocol::Hbone => Ok(TunnelProtocol::Hbone),
        proto::TunnelProtocol::LegacyIstioMtls => {
            Err(Problem::Unsupported("the mutual TLS of sidecars"))
        }
    }
}

fn network_mode(value: i32) -> Result<NetworkMode, Problem> {
    Ok(match known(value)? {
        proto::NetworkMode::Standard => NetworkMode::Standard,
        proto::NetworkMode::HostNetwork => NetworkMode::HostNetwork,
    })
}

fn workload_type(value: i32) -> Result<WorkloadType, Problem> {
    Ok(match known(value)? {
        proto::WorkloadType::Deployment => WorkloadType::Deployment,
        proto::WorkloadType::Cronjob => WorkloadType::CronJob,
        proto::WorkloadType::Pod => WorkloadType::Pod,
        proto::WorkloadType::Job => WorkloadType::Job,
    })
}

fn workload_type_to_proto(kind: WorkloadType) -> proto::WorkloadType {
    match kind {
        WorkloadType::Deployment => proto::WorkloadType::Deployment,
        WorkloadType::CronJob => proto::WorkloadType::Cronjob,
        WorkloadType::Pod => proto::WorkloadType::Pod,
        WorkloadType::Job => proto::WorkloadType::Job,
    }
}

fn health(value: i32) -> Result<Health, Problem> {
    Ok(match known(value)? {
        proto::WorkloadStatus::Healthy => Health::Healthy,
        proto::WorkloadStatus::Unhealthy => Health::Unhealthy,
    })
}

fn application_tunnel(message: proto::ApplicationTunnel) -> Result<ApplicationTunnel, Error> {
    let protocol = match known(message.protocol).field("protocol")? {
        proto::application_tunnel::Protocol::None => ApplicationProtocol::None,
        proto::application_tunnel::Protocol::Proxy => ApplicationProtocol::Proxy,
    };
    let port = port(message.port).field("port")?;
    Ok(ApplicationTunnel {
        protocol,
        port: Some(port).filter(|port| *port != 0),
    })
}

fn application_tunnel_to_proto(tunnel: ApplicationTunnel) -> proto::ApplicationTunnel {
    proto::ApplicationTunnel {
        protocol: match tunnel.protocol {
            ApplicationProtocol::None => proto::application_tunnel::Protocol::None,
            ApplicationProtocol::Proxy => proto::application_tunnel::Protocol::Proxy,
        }
        .into(),
        port: tunnel.port.unwrap_or(0).into(),
    }
}

fn locality(message: &proto::Locality, texts: &mut Interner) -> Locality {
    Locality {
        region: texts.share(&message.region),
        zone: texts.share(&message.zone),
        subzone: texts.share(&message.subzone),
    }
}

fn locality_to_proto(locality: &Locality) -> Option<proto::Locality> {
    (*locality != Locality::default()).then(|| proto::Locality {
        region: locality.region.to_string(),
        zone: locality.zone.to_string(),
        subzone: locality.subzone.to_string(),
    })
}

fn services_to_proto(workload: &Workload) -> std::collections::BTreeMap<String, proto::PortList> {
    let entry = |(name, ports): (&mesh_core::address::NamespacedHostname, &PortMap)| {
        let ports = ports_to_proto(ports);
        (name.to_string(), proto::PortList { ports })
    };
    workload.services.iter().map(entry).collect()
}
