//! From a CRD to the resources that it defines.

use std::sync::Arc;

use kube::core::GroupVersionKind;
use serde_json::Value;

use super::{ALL, Column, Error, READ_WRITE, Resource, Source, Subresource, strings};
use crate::{schema::Schema, store::GroupResource};

/// What a CRD defines: one resource per served version.
#[derive(Debug)]
pub struct Definition {
    group: String,
    plural: String,
    /// The served versions.
    pub resources: Vec<Resource>,
}

// === impl Definition ===

impl Definition {
    /// Reads a CRD, whose names have been validated.
    pub fn parse(crd: &Value) -> Result<Self, Error> {
        let spec = &crd["spec"];
        let mut definition = Self {
            group: text(&spec["group"]),
            plural: text(&spec["names"]["plural"]),
            resources: Vec::new(),
        };
        let versions = spec["versions"].as_array().into_iter().flatten();
        for (index, version) in versions.enumerate() {
            let schema =
                Schema::from_openapi(&version["schema"]["openAPIV3Schema"]).map_err(|source| {
                    Error::Schema {
                        version: index,
                        source,
                    }
                })?;
            if version["served"] == true {
                let resource = definition.version(spec, version, schema);
                definition.resources.push(resource);
            }
        }
        Ok(definition)
    }

    /// Where the objects are kept.
    pub fn storage(&self) -> GroupResource {
        GroupResource::named(&self.group, &self.plural)
    }

    fn version(&self, spec: &Value, version: &Value, schema: Schema) -> Resource {
        let names = &spec["names"];
        let name = text(&names["kind"]);
        let kind = GroupVersionKind::gvk(&self.group, &text(&version["name"]), &name);
        let or = |value: &Value, other: String| value.as_str().map_or(other, str::to_owned);
        Resource {
            storage: self.storage(),
            plural: self.plural.clone(),
            singular: or(&names["singular"], name.to_lowercase()),
            list_kind: or(&names["listKind"], format!("{name}List")),
            short_names: strings(&names["shortNames"]),
            categories: strings(&names["categories"]),
            namespaced: spec["scope"] == "Namespaced",
            verbs: ALL,
            subresources: subresources(&kind, &version["subresources"]),
            source: Source::Custom(Arc::new(schema)),
            columns: columns(&version["additionalPrinterColumns"]),
            selectable: selectable(&version["selectableFields"]),
            generations: true,
            versioned_updates: true,
            kind,
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn subresources(kind: &GroupVersionKind, subresources: &Value) -> Vec<Subresource> {
    let mut list = Vec::new();
    if subresources["status"].is_object() {
        list.push(Subresource {
            name: "status",
            kind: kind.clone(),
            verbs: READ_WRITE,
        });
    }
    list
}

fn columns(columns: &Value) -> Vec<Column> {
    let columns = columns.as_array().into_iter().flatten();
    columns
        .map(|column| Column {
            name: text(&column["name"]),
            kind: text(&column["type"]),
            format: text(&column["format"]),
            description: text(&column["description"]),
            priority: column["priority"].as_i64().unwrap_or_default(),
            path: text(&column["jsonPath"]),
        })
        .collect()
}

fn selectable(fields: &Value) -> Vec<String> {
    let fields = fields.as_array().into_iter().flatten();
    fields
        .filter_map(|field| field["jsonPath"].as_str())
        .map(|path| path.trim_start_matches('.').to_owned())
        .collect()
}
