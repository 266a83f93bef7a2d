//! Cluster roles that consist of others, which labels choose.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::rbac::v1::{ClusterRole, PolicyRule},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};
use serde_json::{Value, json};

use super::{CLUSTER_ROLES, read};
use crate::store::Store;

/// The aggregated cluster roles whose `rules` are not what they consist of now, with the rules that they
/// should have. To be written after every write of a cluster role.
pub fn aggregated(store: &Store) -> Vec<Value> {
    let roles = store.list(&CLUSTER_ROLES, None);
    let effective = effective(&read(store, &CLUSTER_ROLES));
    let stale = roles.iter().filter_map(|role| {
        role.get("aggregationRule").filter(|rule| !rule.is_null())?;
        let name = role.pointer("/metadata/name")?.as_str()?;
        let rules = json!(&**effective.get(name)?);
        let same = role.get("rules").unwrap_or(&Value::Null) == &rules
            || (rules == json!([]) && role.get("rules").is_none_or(Value::is_null));
        (!same).then(|| {
            let mut role = Value::clone(role);
            role["rules"] = rules;
            role
        })
    });
    stale.collect()
}

/// The rules that every cluster role amounts to, by name.
pub(super) fn effective(roles: &[ClusterRole]) -> BTreeMap<String, Arc<[PolicyRule]>> {
    let all: BTreeMap<String, &ClusterRole> =
        roles.iter().map(|role| (role.name_any(), role)).collect();
    let rules = all.keys().map(|name| {
        let mut rules = Vec::new();
        collect(name, &all, &mut BTreeSet::new(), &mut rules);
        (name.clone(), rules.into())
    });
    rules.collect()
}

/// Adds the rules of one role, or of those that it consists of; each role is `visited` once.
fn collect<'a>(
    name: &'a str,
    all: &'a BTreeMap<String, &ClusterRole>,
    visited: &mut BTreeSet<&'a str>,
    rules: &mut Vec<PolicyRule>,
) {
    if !visited.insert(name) {
        return;
    }
    let Some(role) = all.get(name) else { return };
    let Some(aggregation) = &role.aggregation_rule else {
        for rule in role.rules.iter().flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
        return;
    };
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        for other in chosen(selector, all) {
            collect(other, all, visited, rules);
        }
    }
}

/// The roles that a selector chooses; one that makes no sense chooses none.
fn chosen<'a>(
    selector: &LabelSelector,
    all: &'a BTreeMap<String, &ClusterRole>,
) -> impl Iterator<Item = &'a str> {
    let selector = Selector::try_from(selector.clone()).ok();
    let matching = all.iter().filter(move |(_, role)| {
        let matches = selector.as_ref().map(|s| s.matches(role.labels()));
        matches.unwrap_or(false)
    });
    matching.map(|(name, _)| name.as_str())
}
