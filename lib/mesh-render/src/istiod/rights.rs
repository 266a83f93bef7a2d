//! What the control plane may do to the cluster: no more than what it does.
//!
//! Nothing here reads Secrets outside its own namespace, and there only the one that it keeps. Istio's own
//! control plane needs more; that is another table.

mod istio;

use k8s_openapi::api::rbac::v1::PolicyRule;
use mesh_api::control_plane::{
    MESH_CONFIG_MAP, NAMESPACE_LOCK, ROOT_CONFIG_MAP, ROOT_SECRET, STATUS_LOCK, suffixed,
};

use super::{Plan, READER_ACCOUNT};
use crate::{
    object::Object,
    rbac::{self, READ, named, rule},
};

/// The roles of a revision and their bindings.
pub(super) fn roles(plan: &Plan<'_>) -> Vec<Object> {
    let installation = &plan.installation;
    let account = plan.name();
    let global = |name| format!("{}-{}", installation.suffixed(name), installation.namespace);
    let cluster_role = |name, rules, account: &str| {
        rbac::cluster_role(installation, &global(name), rules, account)
    };
    let mut roles = Vec::new();
    let in_namespace = if plan.is_istio() {
        roles.extend(cluster_role(
            "istiod-clusterrole",
            istio::cluster(),
            &account,
        ));
        let gateways = istio::gateway_controller();
        roles.extend(cluster_role(
            "istiod-gateway-controller",
            gateways,
            &account,
        ));
        if plan.values.global.enable_reader_rbac != Some(false) {
            let rules = istio::reader();
            roles.extend(cluster_role(
                "istio-reader-clusterrole",
                rules,
                READER_ACCOUNT,
            ));
        }
        istio::namespace()
    } else {
        roles.extend(cluster_role("istiod-clusterrole", cluster(), &account));
        namespace(&installation.revision)
    };
    roles.extend(rbac::role(installation, &account, in_namespace, &account));
    roles
}

fn cluster() -> Vec<PolicyRule> {
    vec![
        rule("", &["pods", "nodes", "services", "namespaces"], READ),
        rule("discovery.k8s.io", &["endpointslices"], READ),
        rule(
            "networking.istio.io",
            &["serviceentries", "workloadentries"],
            READ,
        ),
        rule(
            "security.istio.io",
            &["authorizationpolicies", "peerauthentications"],
            READ,
        ),
        rule(
            "gateway.networking.k8s.io",
            &["gateways", "gatewayclasses"],
            READ,
        ),
        // Conditions, and the addresses of ServiceEntries.
        rule("", &["services/status"], &["patch"]),
        rule(
            "networking.istio.io",
            &["serviceentries/status", "workloadentries/status"],
            &["patch"],
        ),
        rule(
            "security.istio.io",
            &["authorizationpolicies/status", "peerauthentications/status"],
            &["patch"],
        ),
        rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
        // The roots, in every namespace. A right to create cannot be bound to a name.
        rule("", &["configmaps"], &["create"]),
        named(
            "",
            "configmaps",
            &[ROOT_CONFIG_MAP],
            &["get", "list", "watch", "update"],
        ),
    ]
}

fn namespace(revision: &str) -> Vec<PolicyRule> {
    let config = suffixed(MESH_CONFIG_MAP, revision);
    let locks = [NAMESPACE_LOCK, STATUS_LOCK].map(|lock| suffixed(lock, revision));
    vec![
        named("", "configmaps", &[&config], READ),
        rule("", &["secrets"], &["create"]),
        named(
            "",
            "secrets",
            &[ROOT_SECRET],
            &["get", "list", "watch", "update"],
        ),
        rule("coordination.k8s.io", &["leases"], &["create"]),
        named(
            "coordination.k8s.io",
            "leases",
            &locks.each_ref().map(String::as_str),
            &["get", "update"],
        ),
    ]
}
