//! Who may connect to the control plane, where NetworkPolicies are wanted.

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPort,
        NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use mesh_api::control_plane::{HTTP_PORT, MONITORING_PORT, SECURE_PORT};

use super::Plan;
use crate::object::{self, Object};

/// The NetworkPolicy: its ports from everywhere, and everything out.
pub(super) fn policy(plan: &Plan<'_>) -> Option<Object> {
    if plan.values.global.network_policy.enabled != Some(true) {
        return None;
    }
    let mut ports = vec![SECURE_PORT, HTTP_PORT, MONITORING_PORT];
    if plan.is_istio() {
        ports.extend([15010, 15011, 15017]);
    }
    let port = |number: u16| NetworkPolicyPort {
        port: Some(IntOrString::Int(number.into())),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    };
    let mut metadata = plan.installation.meta(&plan.name());
    plan.label(&mut metadata);
    let policy = NetworkPolicy {
        metadata,
        spec: Some(NetworkPolicySpec {
            egress: Some(vec![NetworkPolicyEgressRule::default()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                ports: Some(ports.into_iter().map(port).collect()),
                ..NetworkPolicyIngressRule::default()
            }]),
            pod_selector: Some(LabelSelector {
                match_labels: Some(plan.service_selector()),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
        }),
    };
    Some(Object::new(object::NETWORK_POLICY, &policy))
}
