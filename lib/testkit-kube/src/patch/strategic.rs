//! Strategic merge patches.

use serde_json::{Map, Value};

use super::Error;
use crate::schema::node::Node;

/// What is done with the map or the item that says so: `replace`, `merge` or `delete`.
const DIRECTIVE: &str = "$patch";
/// The fields of the live map that stay.
const RETAIN: &str = "$retainKeys";
/// Scalars that go from the list which the rest of the name says.
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
/// The order of the list which the rest of the name says, by keys or scalars.
const ORDER: &str = "$setElementOrder/";

type Fields = Map<String, Value>;

/// Merges a patch into the fields of an object.
pub(super) fn merge_fields(node: &Node, live: &mut Fields, patch: &Fields) -> Result<(), Error> {
    match patch
        .get(DIRECTIVE)
        .map(|directive| directive.as_str().unwrap_or_default())
    {
        None | Some("merge") => {}
        Some("replace") => {
            *live = stripped_fields(patch);
            return Ok(());
        }
        Some("delete") => {
            live.clear();
            return Ok(());
        }
        Some(other) => {
            return Err(Error::Malformed(format!(
                "unknown directive $patch: {other:?}"
            )));
        }
    }
    retain(live, patch)?;
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM) {
            delete_from(live, list, value)?;
        }
    }
    for (name, value) in patch {
        if name.starts_with('$') {
            continue;
        }
        let order = patch.get(&format!("{ORDER}{name}"));
        merge_field(node, live, name, Change { value, order })?;
    }
    for (name, order) in patch {
        if let Some(list) = name
            .strip_prefix(ORDER)
            .filter(|list| !patch.contains_key(*list))
        {
            let child = node.child(list);
            let order = elements(order, name)?;
            if let Some(Value::Array(items)) = live.get_mut(list) {
                let server = items.clone();
                sort(child, items, &server, order);
            }
        }
    }
    Ok(())
}

/// What a patch says of one field.
#[derive(Clone, Copy)]
struct Change<'a> {
    value: &'a Value,
    order: Option<&'a Value>,
}

fn merge_field(
    node: &Node,
    live: &mut Fields,
    name: &str,
    change: Change<'_>,
) -> Result<(), Error> {
    let child = node.child(name);
    match (live.get_mut(name), change.value) {
        (_, Value::Null) => {
            live.remove(name);
        }
        (Some(Value::Object(live)), Value::Object(patch)) => merge_fields(child, live, patch)?,
        (Some(Value::Array(live)), Value::Array(patch)) if child.strategy.merge => {
            let server = live.clone();
            merge_items(child, live, patch)?;
            if let Some(order) = change.order {
                sort(child, live, &server, elements(order, name)?);
            }
        }
        (_, value) => {
            live.insert(name.to_owned(), stripped(value));
        }
    }
    Ok(())
}

/// Keeps of a live map what the patch's `$retainKeys` names.
fn retain(live: &mut Fields, patch: &Fields) -> Result<(), Error> {
    let Some(keys) = patch.get(RETAIN) else {
        return Ok(());
    };
    let keys = elements(keys, RETAIN)?;
    let listed = |name: &str| keys.iter().any(|key| key == name);
    if let Some(name) = patch
        .keys()
        .find(|name| !name.starts_with('$') && !listed(name))
    {
        let message = format!("$retainKeys does not list {name:?}, which the patch sets");
        return Err(Error::Malformed(message));
    }
    live.retain(|name, _| listed(name));
    Ok(())
}

fn delete_from(live: &mut Fields, list: &str, values: &Value) -> Result<(), Error> {
    let values = elements(values, DELETE_FROM)?;
    if let Some(Value::Array(items)) = live.get_mut(list) {
        items.retain(|item| !values.contains(item));
    }
    Ok(())
}

fn merge_items(node: &Node, live: &mut Vec<Value>, patch: &[Value]) -> Result<(), Error> {
    let Some(key) = &node.strategy.merge_key else {
        for item in patch {
            if !live.contains(item) {
                live.push(item.clone());
            }
        }
        return Ok(());
    };
    if patch.iter().any(|item| {
        item.get(DIRECTIVE)
            .is_some_and(|directive| directive == "replace")
    }) {
        live.clear();
    }
    for item in patch {
        let Value::Object(fields) = item else {
            let message = format!("{item} stands in a list that is merged by {key}");
            return Err(Error::DoesNotFit(message));
        };
        let directive = fields
            .get(DIRECTIVE)
            .and_then(Value::as_str)
            .unwrap_or("merge");
        let Some(value) = fields.get(key.as_ref()) else {
            if directive == "replace" {
                continue;
            }
            let message = format!("{item} does not contain the merge key {key}");
            return Err(Error::DoesNotFit(message));
        };
        let same = |live: &Value| live.get(key.as_ref()) == Some(value);
        match directive {
            "delete" => live.retain(|item| !same(item)),
            "merge" | "replace" => match live.iter_mut().find(|item| same(item)) {
                Some(Value::Object(live)) => {
                    merge_fields(node.item(), live, fields)?;
                }
                _ => live.push(Value::Object(stripped_fields(fields))),
            },
            other => {
                return Err(Error::Malformed(format!(
                    "unknown directive $patch: {other:?}"
                )));
            }
        }
    }
    Ok(())
}

/// Sorts a list: what the order names stands in that order, and what the server alone has keeps its place
/// among them as far as that can be told.
fn sort(node: &Node, items: &mut Vec<Value>, server: &[Value], order: &[Value]) {
    let key = node.strategy.merge_key.as_deref();
    let identity = |item: &Value| match key {
        Some(key) => item.get(key).cloned().unwrap_or_default(),
        None => item.clone(),
    };
    let rank = |item: &Value| {
        order
            .iter()
            .position(|wanted| identity(wanted) == identity(item))
    };
    let (mut named, rest): (Vec<Value>, Vec<Value>) =
        items.drain(..).partition(|item| rank(item).is_some());
    named.sort_by_key(rank);
    let place = |item: &Value| {
        server
            .iter()
            .position(|known| identity(known) == identity(item))
    };
    let mut named = named.into_iter().peekable();
    for item in rest {
        while let Some(next) = named.next_if(|next| match (place(next), place(&item)) {
            (Some(next), Some(item)) => next < item,
            _ => false,
        }) {
            items.push(next);
        }
        items.push(item);
    }
    items.extend(named);
}

fn elements<'a>(value: &'a Value, name: &str) -> Result<&'a [Value], Error> {
    let items = value.as_array().map(Vec::as_slice);
    items.ok_or_else(|| Error::Malformed(format!("{name} is no list")))
}

/// A value without directives, nulls and items that were to be deleted, for a place where there is nothing
/// to merge with.
fn stripped(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(stripped_fields(fields)),
        Value::Array(items) => {
            let kept = items.iter().filter(|item| match item.get(DIRECTIVE) {
                Some(directive) => {
                    directive != "delete" && item.as_object().is_some_and(|item| item.len() > 1)
                }
                None => true,
            });
            Value::Array(kept.map(stripped).collect())
        }
        scalar => scalar.clone(),
    }
}

fn stripped_fields(fields: &Fields) -> Fields {
    let is_directive = |name: &str| {
        [DIRECTIVE, RETAIN].contains(&name)
            || name.starts_with(DELETE_FROM)
            || name.starts_with(ORDER)
    };
    let kept = fields
        .iter()
        .filter(|(name, value)| !value.is_null() && !is_directive(name));
    kept.map(|(name, value)| (name.clone(), stripped(value)))
        .collect()
}
