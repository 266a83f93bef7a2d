//! `metadata.managedFields`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    Writer,
    fields::{Element, Set, Undecodable},
};

/// Entries of operation `Update` that are kept apart; the oldest beyond these become one.
const MAX_UPDATES: usize = 10;
/// The manager of what the oldest updates wrote.
const ANCIENT: &str = "ancient-changes";

/// Who owns what.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Managers {
    pub(super) entries: BTreeMap<Manager, Owned>,
}

/// One manager. The same name is another manager with another operation or below another subresource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    pub(super) operation: Operation,
    pub(super) name: String,
    /// The version in which it writes. One that applies is the same in all versions: then it is empty.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

/// How a manager writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    /// By server-side apply: what it leaves out goes.
    Apply,
    /// By everything else.
    Update,
}

/// What a manager owns.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Owned {
    pub(super) set: Set,
    /// The version in which the set is written.
    pub(super) api_version: String,
    /// When it last changed.
    pub(super) time: Option<String>,
}

// === impl Manager ===

impl Manager {
    pub(super) fn new(writer: &Writer<'_>, operation: Operation) -> Self {
        let api_version = match operation {
            Operation::Apply => "",
            Operation::Update => writer.api_version,
        };
        Self {
            operation,
            name: writer.manager.to_owned(),
            api_version: api_version.to_owned(),
            subresource: writer.subresource.unwrap_or_default().to_owned(),
        }
    }

    /// The words of a conflict with it.
    pub(super) fn conflict(&self) -> String {
        let mut words = format!("conflict with {:?}", self.name);
        if !self.subresource.is_empty() {
            words = format!("{words} with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            words = format!("{words} using {}", self.api_version);
        }
        words
    }
}

// === impl Managers ===

impl Managers {
    /// Reads the managers of an object.
    pub(super) fn of(object: &Value) -> Result<Self, Undecodable> {
        let mut managers = Self::default();
        let entries = object
            .pointer("/metadata/managedFields")
            .and_then(Value::as_array);
        for entry in entries.into_iter().flatten() {
            let text = |name: &str| {
                entry
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            let operation = match entry.get("operation").and_then(Value::as_str) {
                Some("Apply") => Operation::Apply,
                _ => Operation::Update,
            };
            let api_version = text("apiVersion");
            let manager = Manager {
                operation,
                name: text("manager"),
                api_version: match operation {
                    Operation::Apply => String::new(),
                    Operation::Update => api_version.clone(),
                },
                subresource: text("subresource"),
            };
            let set = match entry.get("fieldsV1") {
                Some(fields) => Set::decode(fields)?,
                None => Set::default(),
            };
            let owned = managers.entries.entry(manager).or_default();
            owned.set.add(set);
            owned.api_version = api_version;
            owned.time = Some(text("time"))
                .filter(|time| !time.is_empty())
                .max(owned.time.take());
        }
        Ok(managers)
    }

    /// Writes the managers into an object.
    pub(super) fn write(mut self, object: &mut Value) {
        self.entries.retain(|_, owned| !owned.set.is_empty());
        self.join_oldest();
        let mut entries: Vec<(&Manager, &Owned)> = self.entries.iter().collect();
        entries.sort_by_key(|(manager, owned)| (manager.operation, owned.time.clone(), *manager));
        let entries: Vec<Value> = entries
            .into_iter()
            .map(|(manager, owned)| encode(manager, owned))
            .collect();
        let Some(fields) = object.as_object_mut() else {
            return;
        };
        let metadata = fields
            .entry("metadata")
            .or_insert_with(|| Value::Object(Map::new()));
        let Some(metadata) = metadata.as_object_mut() else {
            return;
        };
        if entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), entries.into());
        }
    }

    /// Joins the oldest updates, so that an object that many write does not grow for ever.
    fn join_oldest(&mut self) {
        let updates = self
            .entries
            .iter()
            .filter(|(manager, _)| manager.operation == Operation::Update);
        let mut updates: Vec<(Option<String>, Manager)> = updates
            .map(|(manager, owned)| (owned.time.clone(), manager.clone()))
            .collect();
        if updates.len() <= MAX_UPDATES {
            return;
        }
        updates.sort();
        for (_, manager) in updates.drain(..=updates.len() - MAX_UPDATES) {
            let Some(owned) = self.entries.remove(&manager) else {
                continue;
            };
            let ancient = Manager {
                name: ANCIENT.to_owned(),
                subresource: String::new(),
                ..manager
            };
            let joined = self.entries.entry(ancient).or_default();
            joined.set.add(owned.set);
            joined.api_version = owned.api_version;
            joined.time = joined.time.take().max(owned.time);
        }
    }

    /// What all own together.
    pub(super) fn all(&self) -> Set {
        let mut all = Set::default();
        for owned in self.entries.values() {
            all.add(owned.set.clone());
        }
        all
    }
}

fn encode(manager: &Manager, owned: &Owned) -> Value {
    let operation = match manager.operation {
        Operation::Apply => "Apply",
        Operation::Update => "Update",
    };
    let mut entry = json!({
        "manager": manager.name,
        "operation": operation,
        "apiVersion": owned.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": owned.set.encode(),
    });
    if let Some(time) = &owned.time {
        entry["time"] = json!(time);
    }
    if !manager.subresource.is_empty() {
        entry["subresource"] = json!(manager.subresource);
    }
    entry
}

/// A time as entries show it, to the second.
pub(super) fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Takes out of a set what nobody owns: what the server keeps for itself, and what the endpoint does not
/// store.
pub(super) fn strip(writer: &Writer<'_>, set: &mut Set) {
    for name in ["apiVersion", "kind"] {
        set.remove(&Element::field(name));
    }
    let metadata = Element::field("metadata");
    if let Some(below) = set.below(&metadata) {
        for name in [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        ] {
            below.remove(&Element::field(name));
        }
    }
    match writer.subresource {
        None if writer.status_apart => set.remove(&Element::field("status")),
        Some("status") => set.remove(&Element::field("spec")),
        _ => {}
    }
    // `metadata` itself is nobody's.
    let below = set.below(&metadata).map(std::mem::take).unwrap_or_default();
    set.remove(&metadata);
    set.put(
        metadata,
        super::fields::Entry {
            member: false,
            below,
        },
    );
    set.trim();
}
