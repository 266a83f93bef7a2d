//! Field numbers are a contract with programs we did not build: these tests compare bytes.

use prost::Message;

use super::{Any, ca, discovery, security, type_url, workload, zds};

/// The field numbers at the top level of an encoded message.
fn field_numbers(message: &impl Message) -> Vec<u32> {
    let encoded = message.encode_to_vec();
    let mut rest = encoded.as_slice();
    let mut numbers = Vec::new();
    while !rest.is_empty() {
        let (number, wire_type) = prost::encoding::decode_key(&mut rest).unwrap();
        let context = prost::encoding::DecodeContext::default();
        prost::encoding::skip_field(wire_type, number, &mut rest, context).unwrap();
        numbers.push(number);
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn text() -> String {
    "x".into()
}

#[test]
fn workload_has_the_field_numbers_of_the_contract() {
    let full = workload::Workload {
        uid: text(),
        name: text(),
        namespace: text(),
        addresses: vec![vec![1, 2, 3, 4].into()],
        hostname: text(),
        network: text(),
        tunnel_protocol: workload::TunnelProtocol::Hbone.into(),
        trust_domain: text(),
        service_account: text(),
        waypoint: Some(workload::GatewayAddress::default()),
        node: text(),
        canonical_name: text(),
        canonical_revision: text(),
        workload_type: workload::WorkloadType::Job.into(),
        workload_name: text(),
        native_tunnel: true,
        authorization_policies: vec![text()],
        status: workload::WorkloadStatus::Unhealthy.into(),
        cluster_id: text(),
        network_gateway: Some(workload::GatewayAddress::default()),
        services: [(text(), workload::PortList::default())].into(),
        application_tunnel: Some(workload::ApplicationTunnel::default()),
        locality: Some(workload::Locality::default()),
        network_mode: workload::NetworkMode::HostNetwork.into(),
        capacity: Some(7),
    };
    let expected: Vec<u32> = (1..=27).filter(|n| ![15, 26].contains(n)).collect();
    assert_eq!(field_numbers(&full), expected);
}

#[test]
fn service_has_the_field_numbers_of_the_contract() {
    let full = workload::Service {
        name: text(),
        namespace: text(),
        hostname: text(),
        addresses: vec![workload::NetworkAddress::default()],
        ports: vec![workload::Port::default()],
        subject_alt_names: vec![text()],
        waypoint: Some(workload::GatewayAddress::default()),
        load_balancing: Some(workload::LoadBalancing::default()),
        ip_families: workload::IpFamilies::Dual.into(),
        canonical: true,
        ingress_use_waypoint: true,
        weighted_waypoints: vec![workload::WeightedWaypoint::default()],
        visibility: workload::Visibility::Namespace.into(),
    };
    let expected: Vec<u32> = (1..=14).filter(|n| *n != 10).collect();
    assert_eq!(field_numbers(&full), expected);
}

#[test]
fn authorization_match_has_the_field_numbers_of_the_contract() {
    let texts = || vec![security::StringMatch::default()];
    let ranges = || vec![security::Address::default()];
    let accounts = || vec![security::ServiceAccountMatch::default()];
    let full = security::Match {
        namespaces: texts(),
        not_namespaces: texts(),
        principals: texts(),
        not_principals: texts(),
        source_ips: ranges(),
        not_source_ips: ranges(),
        destination_ips: ranges(),
        not_destination_ips: ranges(),
        destination_ports: vec![1],
        not_destination_ports: vec![1],
        service_accounts: accounts(),
        not_service_accounts: accounts(),
    };
    assert_eq!(field_numbers(&full), (1..=12).collect::<Vec<_>>());
    let clause = security::Clause {
        matches: vec![full],
    };
    assert_eq!(field_numbers(&clause), [2]);
}

#[test]
fn discovery_has_the_field_numbers_of_envoy() {
    let request = discovery::DeltaDiscoveryRequest {
        node: Some(discovery::Node::default()),
        type_url: text(),
        resource_names_subscribe: vec![text()],
        resource_names_unsubscribe: vec![text()],
        initial_resource_versions: [(text(), text())].into(),
        response_nonce: text(),
        error_detail: Some(discovery::Status::default()),
    };
    assert_eq!(field_numbers(&request), [1, 2, 3, 4, 5, 6, 7]);
    let response = discovery::DeltaDiscoveryResponse {
        system_version_info: text(),
        resources: vec![discovery::Resource::default()],
        type_url: text(),
        nonce: text(),
        removed_resources: vec![text()],
        control_plane: Some(discovery::ControlPlane::default()),
    };
    assert_eq!(field_numbers(&response), [1, 2, 4, 5, 6, 7]);
    let resource = discovery::Resource {
        version: text(),
        resource: Some(Any::default()),
        name: text(),
        aliases: vec![text()],
    };
    assert_eq!(field_numbers(&resource), [1, 2, 3, 4]);
}

#[test]
fn certificate_request_has_the_field_numbers_of_the_contract() {
    let request = ca::IstioCertificateRequest {
        csr: text(),
        validity_duration: 86400,
        metadata: Some(prost_types::Struct::default()),
    };
    assert_eq!(field_numbers(&request), [1, 3, 4]);
}

#[test]
fn zds_delete_names_its_pod_in_field_two() {
    let delete = zds::DelWorkload { uid: "u".into() };
    assert_eq!(delete.encode_to_vec(), b"\x12\x01u");
    let keep = zds::KeepWorkload { uid: "u".into() };
    let request = zds::WorkloadRequest {
        payload: Some(zds::workload_request::Payload::Keep(keep)),
    };
    assert_eq!(request.encode_to_vec(), b"\x2a\x03\x0a\x01u");
}

#[test]
fn any_is_encoded_like_the_well_known_one() {
    let ours = Any {
        type_url: type_url::ADDRESS.into(),
        value: vec![1, 2, 3].into(),
    };
    let theirs = prost_types::Any {
        type_url: type_url::ADDRESS.into(),
        value: vec![1, 2, 3],
    };
    assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec());
}
