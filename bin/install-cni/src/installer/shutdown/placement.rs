//! Whether a pod may run on a node, by its node selector and its required node affinity.

use k8s_openapi::{
    api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

/// Whether the pod asks for particular nodes at all.
pub(super) fn is_restricted(pod: &PodSpec) -> bool {
    pod.node_selector.is_some() || required(pod).is_some()
}

/// Whether the pod's node selector and required node affinity fit a node with this metadata. Taints are not
/// looked at: a node's taints come and go, and the agent tolerates them all.
pub(super) fn admits(pod: &PodSpec, node: &ObjectMeta) -> bool {
    let selector = pod.node_selector.iter().flatten();
    let mut selector = selector.map(|(key, value)| label(node, key) == Some(value));
    let affinity = required(pod).is_none_or(|wanted| {
        let mut terms = wanted.node_selector_terms.iter();
        terms.any(|term| fits(term, node))
    });
    affinity && selector.all(|fits| fits)
}

fn required(pod: &PodSpec) -> Option<&NodeSelector> {
    let affinity = pod.affinity.as_ref()?.node_affinity.as_ref()?;
    affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()
}

/// All requirements of a term hold; a term without any fits nothing.
fn fits(term: &NodeSelectorTerm, node: &ObjectMeta) -> bool {
    let labels = term.match_expressions.iter().flatten();
    let mut labels = labels.map(|r| holds(r, label(node, &r.key).map(String::as_str)));
    let fields = term.match_fields.iter().flatten();
    let mut fields = fields.map(|r| r.key == "metadata.name" && holds(r, node.name.as_deref()));
    let is_empty = term.match_expressions.iter().flatten().count() == 0
        && term.match_fields.iter().flatten().count() == 0;
    !is_empty && labels.all(|holds| holds) && fields.all(|holds| holds)
}

fn holds(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let listed = |value: &str| {
        let mut values = requirement.values.iter().flatten();
        values.any(|listed| listed == value)
    };
    let number = || found?.parse::<i64>().ok();
    let bound = || requirement.values.as_ref()?.first()?.parse::<i64>().ok();
    let compared = |by: fn(&i64, &i64) -> bool| {
        let pair = number().zip(bound());
        pair.is_some_and(|(number, bound)| by(&number, &bound))
    };
    match requirement.operator.as_str() {
        "In" => found.is_some_and(listed),
        "NotIn" => !found.is_some_and(listed),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compared(i64::gt),
        "Lt" => compared(i64::lt),
        // An operator of a newer API server: to stay is the safe side.
        _ => true,
    }
}

fn label<'a>(node: &'a ObjectMeta, key: &str) -> Option<&'a String> {
    node.labels.as_ref()?.get(key)
}
