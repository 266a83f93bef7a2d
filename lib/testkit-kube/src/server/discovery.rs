//! Discovery: which groups, versions and resources there are, in pieces or in one document.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::{
    request::{Form, Path},
    respond::{self, Body},
};
use crate::{
    registry::{Registry, Resource, Subresource},
    status::Status,
};

/// The version of Kubernetes whose API this is.
const MINOR: &str = "33";

/// Answers a path of discovery.
pub(super) fn respond(
    registry: &Registry,
    headers: &HeaderMap,
    path: &Path,
) -> Result<Response<Body>, Status> {
    let form = Form::negotiate(headers)?;
    let resources = registry.all();
    let (core, groups): (Vec<_>, Vec<_>) = resources
        .iter()
        .cloned()
        .partition(|resource| resource.kind.group.is_empty());
    let value = match (path, form) {
        (Path::CoreVersions, Form::Aggregated(version)) => return Ok(aggregated(&core, version)),
        (Path::Groups, Form::Aggregated(version)) => return Ok(aggregated(&groups, version)),
        (Path::CoreVersions, _) => json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        }),
        (Path::Groups, _) => json!({
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": by_group(&groups).iter().map(|group| describe_group(group)).collect::<Vec<_>>(),
        }),
        (Path::Group(name), _) => {
            let groups = by_group(&groups);
            let group = groups.iter().find(|group| group[0].kind.group == *name);
            let mut group = describe_group(group.ok_or_else(not_found)?);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            group
        }
        (Path::Resources { group, version }, _) => list(&resources, group, version)?,
        (Path::Resource(_) | Path::Other, _) => return Err(not_found()),
    };
    Ok(respond::json(StatusCode::OK, &value))
}

/// `/version`
pub(super) fn version() -> Value {
    json!({
        "major": "1",
        "minor": MINOR,
        "gitVersion": format!("v1.{MINOR}.0+embedded"),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux/amd64",
    })
}

/// Runs of the same group.
fn by_group(resources: &[Arc<Resource>]) -> Vec<&[Arc<Resource>]> {
    resources
        .chunk_by(|one, other| one.kind.group == other.kind.group)
        .collect()
}

/// The versions of a group, the preferred one first.
fn versions(group: &[Arc<Resource>]) -> Vec<&str> {
    let mut versions: Vec<&str> = group
        .iter()
        .map(|resource| &*resource.kind.version)
        .collect();
    versions.sort_by(|one, other| crate::registry::prefer(one, other));
    versions.dedup();
    versions
}

fn describe_group(group: &[Arc<Resource>]) -> Value {
    let name = group.first().map_or("", |resource| &*resource.kind.group);
    let versions: Vec<Value> = versions(group)
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

fn list(resources: &[Arc<Resource>], group: &str, version: &str) -> Result<Value, Status> {
    let within = |resource: &&Arc<Resource>| {
        resource.kind.group == group && resource.kind.version == version
    };
    let mut entries = Vec::new();
    for resource in resources.iter().filter(within) {
        entries.push(describe(resource));
        let subresources = resource.subresources.iter();
        entries.extend(subresources.map(|it| describe_subresource(resource, it)));
    }
    if entries.is_empty() {
        return Err(not_found());
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Ok(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": entries,
    }))
}

fn describe(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind.kind,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    entry
}

fn describe_subresource(resource: &Resource, subresource: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", resource.plural, subresource.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": subresource.kind.kind,
        "verbs": subresource.verbs,
    });
    if subresource.kind.group != resource.kind.group {
        entry["group"] = subresource.kind.group.clone().into();
        entry["version"] = subresource.kind.version.clone().into();
    }
    entry
}

fn aggregated(resources: &[Arc<Resource>], api: &str) -> Response<Body> {
    let items: Vec<Value> = by_group(resources)
        .iter()
        .map(|group| {
            let name = group.first().map_or("", |resource| &*resource.kind.group);
            let versions: Vec<Value> = versions(group)
                .iter()
                .map(|version| aggregated_version(group, version))
                .collect();
            json!({"metadata": {"name": name, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{api}"),
        "metadata": {},
        "items": items,
    });
    let content_type =
        format!("application/json;g=apidiscovery.k8s.io;v={api};as=APIGroupDiscoveryList");
    respond::bytes(
        StatusCode::OK,
        &content_type,
        Bytes::from(document.to_string()),
    )
}

fn aggregated_version(group: &[Arc<Resource>], version: &str) -> Value {
    let resources = group
        .iter()
        .filter(|resource| resource.kind.version == version);
    let resources: Vec<Value> = resources
        .map(|resource| {
            let kind = &resource.kind;
            let mut entry = json!({
                "resource": resource.plural,
                "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
                "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": resource.singular,
                "verbs": resource.verbs,
                "shortNames": resource.short_names,
                "categories": resource.categories,
            });
            let subresources: Vec<Value> = resource
                .subresources
                .iter()
                .map(|it| {
                    let kind = &it.kind;
                    json!({
                        "subresource": it.name,
                        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
                        "verbs": it.verbs,
                    })
                })
                .collect();
            if !subresources.is_empty() {
                entry["subresources"] = subresources.into();
            }
            entry
        })
        .collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn not_found() -> Status {
    let message = "the server could not find the requested resource";
    Status::new(StatusCode::NOT_FOUND, "NotFound", message)
}
