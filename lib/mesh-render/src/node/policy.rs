//! NetworkPolicies that admit a component's traffic, for namespaces that deny by default.

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPort,
        NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use crate::{
    Object,
    meta::{Installation, Texts},
    object::NETWORK_POLICY,
};

/// Admits anybody to these ports of the pods with these labels, and lets the pods reach everything.
pub(crate) fn network_policy(
    of: &Installation,
    name: &str,
    pods: Texts,
    ports: &[(&str, i32)],
) -> Object {
    let port = |(protocol, number): &(&str, i32)| NetworkPolicyPort {
        port: Some(IntOrString::Int(*number)),
        protocol: Some((*protocol).to_owned()),
        ..NetworkPolicyPort::default()
    };
    let ingress = NetworkPolicyIngressRule {
        ports: Some(ports.iter().map(port).collect()),
        ..NetworkPolicyIngressRule::default()
    };
    let policy = NetworkPolicy {
        metadata: of.meta(name),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(pods),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![ingress]),
            egress: Some(vec![NetworkPolicyEgressRule::default()]),
        }),
    };
    Object::new(NETWORK_POLICY, &policy)
}
