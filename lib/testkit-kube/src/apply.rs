//! Server-side apply: field ownership, conflicts and `metadata.managedFields`.
//!
//! An object is seen as a set of fields. Each writer owns the fields that it wrote; [`apply`] refuses to
//! change what others own, and removes what its manager applied before and nobody owns any more.

mod fields;
mod managed;
mod walk;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::schema::Schema;
use fields::{Element, Entry, Set};
use managed::{Manager, Managers, Operation, Owned};

/// Who writes, and in whose terms.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The schema of the version that is written.
    pub schema: &'a Schema,
    /// The field manager.
    pub manager: &'a str,
    /// The `apiVersion` that is written.
    pub api_version: &'a str,
    /// `status`, `scale`, or none for the object itself. Fields that this endpoint does not store (the
    /// status of the object itself; all but the status below `status`) are neither changed nor owned.
    pub subresource: Option<&'a str>,
    /// Whether the status is a subresource, so that the object's own endpoint does not write it.
    pub status_apart: bool,
    /// The time of the entry.
    pub now: Timestamp,
}

/// One apply.
#[derive(Debug, Clone, Copy)]
pub struct ApplyRequest<'a> {
    /// Who applies.
    pub writer: Writer<'a>,
    /// What is there, in the version that is written; `None` creates.
    pub live: Option<&'a Value>,
    /// What is applied.
    pub config: &'a Value,
    /// Take fields from their owners.
    pub force: bool,
}

/// One field that somebody else owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The path of the field: `.spec.replicas`.
    pub field: String,
    /// What the answer says of it: `conflict with "kubectl" using apps/v1`.
    pub message: String,
}

/// Why an apply is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others own fields: the caller may force, or leave the fields out. Answered with 409.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The applied object is not one: answered with 400.
    #[error("{0}")]
    Malformed(String),
}

/// The manager of what was there before anybody was noted.
const BEFORE: &str = "before-first-apply";
/// Longest name of a manager.
const MAX_MANAGER: usize = 128;

/// The object that the apply makes, with its `managedFields`. An apply that changes nothing gives the live
/// object as it is, to the last timestamp.
pub fn apply(request: &ApplyRequest<'_>) -> Result<Value, Error> {
    let writer = &request.writer;
    let node = writer.schema.root();
    let config = config(request)?;
    let none = Value::Object(Map::new());
    let live = bare(request.live.unwrap_or(&none));
    let mut managers = known(request, &live)?;
    let before = managers.clone();

    let mut set = walk::fields_of(node, &config, "").map_err(malformed)?.below;
    managed::strip(writer, &mut set);
    let manager = Manager::new(writer, Operation::Apply);
    let owned = Owned {
        set,
        api_version: writer.api_version.to_owned(),
        time: Some(managed::time(writer.now)),
    };
    let last = managers.entries.insert(manager.clone(), owned);

    let mut object = walk::merge(node, &live, &config);
    if let Some(last) = &last {
        let mut owned = managers.all();
        owned.put(
            Element::field("metadata"),
            Entry {
                member: true,
                below: Set::default(),
            },
        );
        walk::prune(node, &mut object, &last.set, &owned);
    }
    let conflicts = settle(writer, (&live, &object), &manager, &mut managers);
    if !conflicts.is_empty() && !request.force {
        return Err(Error::Conflicts(conflicts));
    }
    if let Some(unchanged) = request
        .live
        .filter(|_| object == live && same_owners(&before, &managers))
    {
        return Ok(unchanged.clone());
    }
    managers.write(&mut object);
    Ok(object)
}

/// Notes in `new`'s `managedFields` what an update, patch or creation changed from `old`.
///
/// What `new` brings as `managedFields` counts if it can be read, else what `old` has; a list with one
/// empty entry forgets all owners.
pub fn track_update(writer: &Writer<'_>, old: Option<&Value>, new: &mut Value) {
    let none = Value::Object(Map::new());
    let brought = new
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    let forget = brought
        .is_some_and(|entries| entries.len() == 1 && entries.iter().all(|entry| *entry == none));
    let brought = Managers::of(new)
        .ok()
        .filter(|managers| !managers.entries.is_empty());
    let inherited = || {
        old.and_then(|old| Managers::of(old).ok())
            .unwrap_or_default()
    };
    let live = bare(old.unwrap_or(&none));
    let bare_new = bare(new);
    if forget {
        return Managers::default().write(new);
    }
    let mut managers = brought.unwrap_or_else(inherited);
    let manager = Manager::new(writer, Operation::Update);
    let mine = managers.entries.remove(&manager).unwrap_or_default();
    // No manager is exempt: what changed hands is taken, also from its own earlier entry.
    settle(writer, (&live, &bare_new), &manager, &mut managers);
    let changed = walk::difference(writer.schema.root(), &live, &bare_new);
    let mut taken = changed.added;
    taken.add(changed.modified);
    managed::strip(writer, &mut taken);
    let mut owned = Owned {
        set: mine.set.difference(&changed.removed),
        ..mine
    };
    if !taken.is_empty() {
        owned.set.add(taken);
        writer.api_version.clone_into(&mut owned.api_version);
        owned.time = Some(managed::time(writer.now));
    }
    managers.entries.insert(manager, owned);
    managers.write(new);
}

/// What is applied, without what the endpoint does not store.
fn config(request: &ApplyRequest<'_>) -> Result<Value, Error> {
    let writer = &request.writer;
    if writer.manager.is_empty() || writer.manager.len() > MAX_MANAGER {
        let message = format!("fieldManager must have 1 to {MAX_MANAGER} characters");
        return Err(Error::Malformed(message));
    }
    let Value::Object(fields) = request.config else {
        return Err(Error::Malformed(
            "the applied configuration is no object".to_owned(),
        ));
    };
    let managed = request.config.pointer("/metadata/managedFields");
    if managed.is_some_and(|managed| !managed.is_null()) {
        return Err(Error::Malformed(
            "metadata.managedFields must be nil".to_owned(),
        ));
    }
    let mut fields = fields.clone();
    match writer.subresource {
        None if writer.status_apart => {
            fields.remove("status");
        }
        Some("status") => fields.retain(|name, _| {
            ["apiVersion", "kind", "metadata", "status"].contains(&name.as_str())
        }),
        _ => {}
    }
    // The version that is asked for is a precondition, not a field.
    if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
        metadata.remove("managedFields");
        metadata.remove("resourceVersion");
    }
    Ok(Value::Object(fields))
}

/// Who owns the live object. One that nobody was ever noted for gets an owner of all it has.
fn known(request: &ApplyRequest<'_>, live: &Value) -> Result<Managers, Error> {
    let writer = &request.writer;
    let Some(object) = request.live else {
        return Ok(Managers::default());
    };
    let mut managers = Managers::of(object).map_err(malformed)?;
    if managers.entries.is_empty() {
        let mut set = walk::all_of(writer.schema.root(), live);
        managed::strip(
            &Writer {
                subresource: None,
                ..*writer
            },
            &mut set,
        );
        let before = Writer {
            manager: BEFORE,
            subresource: None,
            ..*writer
        };
        let owned = Owned {
            set,
            api_version: writer.api_version.to_owned(),
            time: Some(managed::time(writer.now)),
        };
        managers
            .entries
            .insert(Manager::new(&before, Operation::Update), owned);
    }
    Ok(managers)
}

/// Takes from all managers but one what changes between two objects, and says what that was.
fn settle(
    writer: &Writer<'_>,
    (old, new): (&Value, &Value),
    exempt: &Manager,
    managers: &mut Managers,
) -> Vec<Conflict> {
    let mut difference = walk::difference(writer.schema.root(), old, new);
    let mut taken = difference.modified;
    taken.add(std::mem::take(&mut difference.added));
    let mut conflicts = Vec::new();
    for (manager, owned) in &mut managers.entries {
        if manager == exempt {
            continue;
        }
        let lost = owned.set.intersection(&taken);
        conflicts.extend(lost.paths().into_iter().map(|field| Conflict {
            field,
            message: manager.conflict(),
        }));
        owned.set = owned.set.difference(&lost).difference(&difference.removed);
    }
    managers
        .entries
        .retain(|manager, owned| manager == exempt || !owned.set.is_empty());
    conflicts
}

fn same_owners(before: &Managers, after: &Managers) -> bool {
    let sets = |managers: &Managers| {
        let sets = managers
            .entries
            .iter()
            .filter(|(_, owned)| !owned.set.is_empty());
        let sets = sets.map(|(manager, owned)| {
            (
                manager.clone(),
                owned.set.clone(),
                owned.api_version.clone(),
            )
        });
        sets.collect::<Vec<_>>()
    };
    sets(before) == sets(after)
}

/// An object without its `managedFields`.
fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.remove("managedFields");
    }
    object
}

fn malformed(error: impl std::fmt::Display) -> Error {
    Error::Malformed(error.to_string())
}

/// The message of a refusal, in the API server's words.
fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!(
            "Apply failed with 1 conflict: {}: {}",
            one.message, one.field
        );
    }
    let mut lines = Vec::new();
    let mut current = "";
    for conflict in conflicts {
        if conflict.message != current {
            current = &conflict.message;
            lines.push(format!("{}:", current.replacen("conflict", "conflicts", 1)));
        }
        lines.push(format!("- {}", conflict.field));
    }
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests;
