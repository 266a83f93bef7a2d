//! Tables: what kubectl shows of objects, made by the server.

mod builtin;
mod jsonpath;
mod pod;
mod time;
mod workload;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::{Column, Resource};
use jsonpath::Path;

/// How rows of a resource are made.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Arc<[Column]>,
    cells: Cells,
    include: Include,
    version: &'static str,
    /// Whether the next event brings the columns; one time is enough for a client.
    describes: bool,
}

/// What a row carries besides its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// The object's metadata.
    Metadata,
    /// The object.
    Object,
}

/// Where cells come from.
#[derive(Debug, Clone)]
enum Cells {
    /// A function of a built-in kind.
    Builtin(fn(&Value, Timestamp) -> Vec<Value>),
    /// The paths of a CRD, after the name.
    Paths(Arc<[Option<Path>]>),
}

// === impl Table ===

impl Table {
    /// The table of a resource, in a version of meta.k8s.io.
    pub fn of(resource: &Resource, include: Include, version: &'static str) -> Self {
        let (columns, cells) = if resource.is_custom() {
            custom(resource)
        } else {
            builtin::table(resource)
        };
        Self {
            columns,
            cells,
            include,
            version,
            describes: true,
        }
    }

    /// The table without its rows.
    pub fn head(&self, metadata: &Value) -> Value {
        json!({
            "kind": "Table",
            "apiVersion": format!("meta.k8s.io/{}", self.version),
            "metadata": metadata,
            "columnDefinitions": self.definitions(),
        })
    }

    /// One object's row.
    pub fn row(&self, object: &Value, now: Timestamp) -> Value {
        let cells = match &self.cells {
            Cells::Builtin(cells) => cells(object, now),
            Cells::Paths(paths) => {
                let name = object["metadata"]["name"].clone();
                let kinds = self.columns.iter().skip(1).map(|column| &*column.kind);
                let values = paths.iter().zip(kinds).map(|(path, kind)| {
                    let found = path
                        .as_ref()
                        .map(|path| path.find(object))
                        .unwrap_or_default();
                    cell(&found, kind, now)
                });
                std::iter::once(name).chain(values).collect()
            }
        };
        let mut row = json!({"cells": cells});
        match self.include {
            Include::None => {}
            Include::Object => row["object"] = object.clone(),
            Include::Metadata => {
                row["object"] = json!({
                    "kind": "PartialObjectMetadata",
                    "apiVersion": format!("meta.k8s.io/{}", self.version),
                    "metadata": object["metadata"],
                });
            }
        }
        row
    }

    /// The table of an event: one row, or none. The first one brings the columns.
    pub fn event(&mut self, object: Option<&Value>, now: Timestamp) -> Value {
        let metadata = object.map_or_else(
            || json!({}),
            |object| json!({"resourceVersion": object["metadata"]["resourceVersion"]}),
        );
        let mut table = self.head(&metadata);
        if !self.describes {
            table["columnDefinitions"] = Value::Null;
        }
        let rows: Vec<Value> = object
            .map(|object| self.row(object, now))
            .into_iter()
            .collect();
        self.describes &= rows.is_empty();
        table["rows"] = rows.into();
        table
    }

    fn definitions(&self) -> Vec<Value> {
        let columns = self.columns.iter();
        columns
            .map(|column| {
                json!({
                    "name": column.name,
                    "type": column.kind,
                    "format": column.format,
                    "description": column.description,
                    "priority": column.priority,
                })
            })
            .collect()
    }
}

fn custom(resource: &Resource) -> (Arc<[Column]>, Cells) {
    let mut columns = vec![builtin::column("Name", "string", "name", 0)];
    let mut paths = Vec::new();
    if resource.columns.is_empty() {
        columns.push(builtin::column("Age", "date", "", 0));
        paths.push(Path::parse(".metadata.creationTimestamp"));
    }
    for column in &resource.columns {
        columns.push(column.clone());
        paths.push(Path::parse(&column.path));
    }
    (columns.into(), Cells::Paths(paths.into()))
}

/// A cell of what a path has found: the first value, as the column's type says.
fn cell(found: &[&Value], kind: &str, now: Timestamp) -> Value {
    let Some(first) = found.first() else {
        return Value::Null;
    };
    match (kind, first) {
        ("integer" | "number", Value::Number(_)) | ("boolean", Value::Bool(_)) => {
            Value::clone(first)
        }
        ("date", Value::String(text)) => time::since(text, now).into(),
        ("string", first) => plain(first).into(),
        _ => Value::Null,
    }
}

/// A value as text, strings without quotes.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
