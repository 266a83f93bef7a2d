//! What the agent may do to the cluster.
//!
//! Less than in Istio's charts, and enough for both agents: nodes are read one at a time, the DaemonSet is
//! read in the agent's own namespace, the state of pods is patched and never replaced.

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::{ACCOUNT, Agent, DAEMON_SET};
use crate::{
    Object,
    rbac::{READ, cluster_binding, cluster_role, named, role, rule},
};

/// Rights in the ambient mesh.
const AMBIENT: &str = "istio-cni-ambient";
/// Rights to repair pods whose sidecar could not start. Their binding has another name.
const REPAIR: &str = "istio-cni-repair-role";
const REPAIR_BINDING: &str = "istio-cni-repair-rolebinding";

impl Agent<'_> {
    /// Roles, and what binds them to the agent's account.
    pub(super) fn rights(&self) -> Vec<Object> {
        let base = vec![
            rule("", &["pods", "namespaces"], READ),
            rule("", &["nodes"], &["get"]),
        ];
        let mut objects = cluster_role(&self.of, ACCOUNT, base, ACCOUNT).to_vec();
        if self.ambient() {
            let mut rules = vec![rule("", &["pods/status"], &["patch"])];
            if !self.is_istio() {
                // Ours tells of pods that cannot be brought into the mesh, and of those that were repaired.
                rules.push(rule("", &["events"], &["create", "patch"]));
            }
            objects.extend(cluster_role(&self.of, AMBIENT, rules, ACCOUNT));
            // An agent that ends finds out whether it is replaced or removed for good.
            let own = vec![named("apps", "daemonsets", &[DAEMON_SET], &["get"])];
            objects.extend(role(&self.of, ACCOUNT, own, ACCOUNT));
        }
        if self.repairs() {
            let [repair, _] = cluster_role(&self.of, REPAIR, self.repair_rules(), ACCOUNT);
            objects.push(repair);
            objects.push(cluster_binding(&self.of, REPAIR_BINDING, REPAIR, ACCOUNT));
        }
        objects
    }

    fn repair_rules(&self) -> Vec<PolicyRule> {
        let repair = &self.values.repair;
        let mut rules = vec![
            rule("", &["events"], &["create", "patch"]),
            rule("", &["pods"], READ),
        ];
        if repair.delete_pods.unwrap_or_default() {
            rules.push(rule("", &["pods"], &["delete"]));
        }
        if repair.label_pods.unwrap_or_default() {
            rules.push(rule("", &["pods/status"], &["patch", "update"]));
        }
        rules
    }
}
