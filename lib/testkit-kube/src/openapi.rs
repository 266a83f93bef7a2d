//! The documents below `/openapi`, from which kubectl learns what exists and how it looks.
//!
//! Version 3 is an index and a document per group and version; version 2 is one document, as JSON or as
//! the protobuf messages that older kubectl reads. They hold what kubectl asks for: schemas with their kinds
//! and merge keys, and the operations on objects with their parameters.

mod definition;
mod operation;
mod wire;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::{
    registry::Resource,
    schema::{Origin, Schema},
};
use definition::Dialect;

/// One document.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its body.
    pub body: Bytes,
}

const JSON: &str = "application/json";
/// The protobuf form of version 2. kubectl before 1.28 asks for it by the second name, which is no media
/// type by the rules and is therefore never answered.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const PROTOBUF_BEFORE: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Answers `GET path` for a path at or below `/openapi/v2` or `/openapi/v3`; `accept` is the header or empty.
/// `None` means that there is no such document (404).
pub fn respond(path: &str, accept: &str, resources: &[Arc<Resource>]) -> Option<Document> {
    let path = path.trim_end_matches('/');
    match path.strip_prefix("/openapi/v3") {
        Some("") => Some(Document::json(&index(resources))),
        Some(below) => {
            let group_version = below.strip_prefix('/')?;
            group(group_version, resources).map(|document| Document::json(&document))
        }
        None if path == "/openapi/v2" => Some(version_2(accept, resources)),
        None => None,
    }
}

// === impl Document ===

impl Document {
    fn json(value: &Value) -> Self {
        Self {
            content_type: JSON,
            body: value.to_string().into(),
        }
    }
}

/// `api/v1` or `apis/apps/v1`.
fn root(resource: &Resource) -> String {
    let kind = &resource.kind;
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

/// Where the documents of version 3 are. The hash changes with the document: kubectl keeps what it has read.
fn index(resources: &[Arc<Resource>]) -> Value {
    let mut hashes: BTreeMap<String, DefaultHasher> = BTreeMap::new();
    for resource in resources {
        let hasher = hashes.entry(root(resource)).or_default();
        resource.kind.hash(hasher);
        resource.plural.hash(hasher);
        if let Some(Origin::Custom(text)) = resource.schema().map(Schema::origin) {
            text.to_string().hash(hasher);
        }
    }
    let path = |(root, hasher): (String, DefaultHasher)| {
        let url = format!("/openapi/v3/{root}?hash={:016X}", hasher.finish());
        (root, json!({"serverRelativeURL": url}))
    };
    json!({"paths": hashes.into_iter().map(path).collect::<Map<_, _>>()})
}

/// The document of a group and version, `None` if nothing is served there.
fn group(group_version: &str, resources: &[Arc<Resource>]) -> Option<Value> {
    let resources: Vec<&Resource> = resources
        .iter()
        .map(Arc::as_ref)
        .filter(|resource| root(resource) == group_version)
        .collect();
    if resources.is_empty() {
        return None;
    }
    let paths = resources
        .iter()
        .flat_map(|resource| operation::paths(resource, Dialect::V3));
    let schemas = definition::reachable(&resources);
    Some(json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths.collect::<Map<_, _>>(),
        "components": {"schemas": schemas},
    }))
}

fn version_2(accept: &str, resources: &[Arc<Resource>]) -> Document {
    let paths = resources
        .iter()
        .flat_map(|resource| operation::paths(resource, Dialect::V2))
        .collect();
    let definitions = definition::all(resources);
    if accept.contains(PROTOBUF) || accept.contains(PROTOBUF_BEFORE) {
        return Document {
            content_type: PROTOBUF,
            body: wire::encode(&info(), &paths, &definitions).into(),
        };
    }
    Document::json(&json!({
        "swagger": "2.0", "info": info(), "paths": Value::Object(paths), "definitions": definitions,
    }))
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.33.0"})
}

#[cfg(test)]
mod tests;
