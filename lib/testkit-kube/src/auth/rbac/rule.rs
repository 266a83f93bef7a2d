//! What one rule allows, and what it covers of another.

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::{Attributes, Target};
use crate::auth::refusal::quoted;

/// Stands for everything of its kind.
const ALL: &str = "*";

/// Whether a rule allows it.
pub(super) fn allows(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    if !holds(&rule.verbs, attributes.verb) {
        return false;
    }
    match attributes.target {
        Target::Path(path) => names_path(list(rule.non_resource_urls.as_ref()), path),
        Target::Resource {
            group,
            resource,
            subresource,
            name,
            ..
        } => {
            holds(list(rule.api_groups.as_ref()), group)
                && names_resource(list(rule.resources.as_ref()), resource, subresource)
                && names_object(list(rule.resource_names.as_ref()), name)
        }
    }
}

/// What of `wanted` the rules in `held` do not give, each piece as small as a rule can be.
pub(super) fn uncovered(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let pieces = wanted.iter().flat_map(pieces);
    let missing = pieces.filter(|piece| !held.iter().any(|rule| covers(rule, piece)));
    missing.collect()
}

/// A rule as messages show it.
pub(super) fn describe(rule: &PolicyRule) -> String {
    let parts = [
        ("APIGroups", list(rule.api_groups.as_ref())),
        ("Resources", list(rule.resources.as_ref())),
        ("NonResourceURLs", list(rule.non_resource_urls.as_ref())),
        ("ResourceNames", list(rule.resource_names.as_ref())),
        ("Verbs", rule.verbs.as_slice()),
    ];
    let parts = parts.iter().filter(|(_, values)| !values.is_empty());
    let parts: Vec<_> = parts
        .map(|(key, values)| format!("{key}:{}", quoted(values)))
        .collect();
    format!("{{{}}}", parts.join(", "))
}

/// A list that may be absent.
pub(super) fn list(values: Option<&Vec<String>>) -> &[String] {
    values.map_or(&[], Vec::as_slice)
}

fn holds(values: &[String], value: &str) -> bool {
    values.iter().any(|v| v == ALL || v == value)
}

fn names_resource(rules: &[String], resource: &str, subresource: &str) -> bool {
    let matches = |rule: &String| match (rule.split_once('/'), subresource) {
        (_, _) if rule == ALL => true,
        (None, "") => rule == resource,
        (Some((of, sub)), wanted) => sub == wanted && (of == ALL || of == resource),
        (None, _) => false,
    };
    rules.iter().any(matches)
}

fn names_object(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|n| n == name)
}

fn names_path(rules: &[String], path: &str) -> bool {
    rules.iter().any(|rule| match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    })
}

/// A rule as rules of one verb and one thing each.
fn pieces(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |value: &String| Some(vec![value.clone()]);
    let mut pieces = Vec::new();
    for verb in &rule.verbs {
        let base = PolicyRule {
            verbs: vec![verb.clone()],
            ..PolicyRule::default()
        };
        for path in list(rule.non_resource_urls.as_ref()) {
            pieces.push(PolicyRule {
                non_resource_urls: one(path),
                ..base.clone()
            });
        }
        for group in list(rule.api_groups.as_ref()) {
            for resource in list(rule.resources.as_ref()) {
                let whole = PolicyRule {
                    api_groups: one(group),
                    resources: one(resource),
                    ..base.clone()
                };
                match list(rule.resource_names.as_ref()) {
                    [] => pieces.push(whole),
                    names => pieces.extend(names.iter().map(|name| PolicyRule {
                        resource_names: one(name),
                        ..whole.clone()
                    })),
                }
            }
        }
    }
    pieces
}

/// Whether `rule` gives all of `piece`, which is one of [`pieces`].
fn covers(rule: &PolicyRule, piece: &PolicyRule) -> bool {
    let verbs = piece.verbs.iter().all(|verb| holds(&rule.verbs, verb));
    let groups = list(piece.api_groups.as_ref()).iter();
    let mut groups = groups.map(|group| holds(list(rule.api_groups.as_ref()), group));
    let mut resources = list(piece.resources.as_ref()).iter().map(|resource| {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        names_resource(list(rule.resources.as_ref()), resource, subresource)
    });
    let mut paths = list(piece.non_resource_urls.as_ref())
        .iter()
        .map(|path| names_path(list(rule.non_resource_urls.as_ref()), path));
    let names = match list(piece.resource_names.as_ref()) {
        [] => list(rule.resource_names.as_ref()).is_empty(),
        names => names
            .iter()
            .all(|name| names_object(list(rule.resource_names.as_ref()), name)),
    };
    verbs && names && groups.all(|g| g) && resources.all(|r| r) && paths.all(|p| p)
}
