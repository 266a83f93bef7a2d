//! Objects seen as sets of fields: which fields there are, what differs, merging and removing.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::{Element, Entry, Scalar, Set};
use crate::schema::node::{ListType, Node};

/// What differs between two objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) added: Set,
    pub(super) modified: Set,
    pub(super) removed: Set,
}

/// How the parts of a value are told apart.
enum Parts<'a> {
    /// Not at all: one value with one owner.
    Leaf,
    /// By name.
    Fields(&'a Map<String, Value>),
    /// By their keys, or by themselves.
    Items(&'a [Value]),
}

/// A list that breaks the rules of its type.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Two items are the same; one has to go.
    #[error("{path}: duplicate entries for key {element}")]
    Duplicate {
        /// The list.
        path: String,
        /// What stands there twice.
        element: Element,
    },
    /// An item cannot be told apart; it needs a key.
    #[error(
        "{path}: element {index}: associative list with keys has an element that omits all keys {keys:?}"
    )]
    NoKey {
        /// The list.
        path: String,
        /// The place of the item.
        index: usize,
        /// The fields that are keys.
        keys: Vec<String>,
    },
}

fn parts<'a>(node: &Node, value: &'a Value) -> Parts<'a> {
    match value {
        Value::Object(fields) if !node.atomic => Parts::Fields(fields),
        Value::Array(items) if node.list != ListType::Atomic => Parts::Items(items),
        _ => Parts::Leaf,
    }
}

/// The element of an item, `None` if it has no key at all. A key that is missing has its default.
fn element(node: &Node, item: &Value) -> Option<Element> {
    let ListType::Map(keys) = &node.list else {
        return Some(Element::Value(Scalar::of(item)));
    };
    let mut found = BTreeMap::new();
    for key in keys {
        let default = || node.item().properties.get(key)?.default.as_ref();
        if let Some(value) = item
            .get(key.as_ref())
            .filter(|value| !value.is_null())
            .or_else(default)
        {
            found.insert(key.to_string(), Scalar::of(value));
        }
    }
    (!found.is_empty()).then_some(Element::Key(found))
}

/// The items of a list by their elements, as far as they have any; of two that are the same the last.
fn by_element<'a>(node: &Node, items: &'a [Value]) -> BTreeMap<Element, &'a Value> {
    items
        .iter()
        .filter_map(|item| Some((element(node, item)?, item)))
        .collect()
}

/// The fields of an object that is applied. Its lists are checked.
pub(super) fn fields_of(node: &Node, value: &Value, path: &str) -> Result<Entry, Error> {
    let mut below = Set::default();
    match parts(node, value) {
        Parts::Leaf | Parts::Items([]) => return Ok(leaf()),
        Parts::Fields(fields) => {
            for (name, value) in fields {
                let mut entry = fields_of(node.child(name), value, &format!("{path}.{name}"))?;
                // The entries of a map have owners of their own, unlike the fields of a struct.
                entry.member |= !node.names(name) || value.as_object().is_some_and(Map::is_empty);
                below.put(Element::field(name), entry);
            }
        }
        Parts::Items(items) => {
            for (index, item) in items.iter().enumerate() {
                let Some(element) = element(node, item) else {
                    return Err(no_key(node, path, index));
                };
                if below.entry(&element).is_some() {
                    let path = path.to_owned();
                    return Err(Error::Duplicate { path, element });
                }
                let mut entry = fields_of(node.item(), item, &format!("{path}[{index}]"))?;
                entry.member = true;
                below.put(element, entry);
            }
        }
    }
    Ok(Entry {
        member: false,
        below,
    })
}

fn no_key(node: &Node, path: &str, index: usize) -> Error {
    let keys = match &node.list {
        ListType::Map(keys) => keys.iter().map(ToString::to_string).collect(),
        ListType::Set | ListType::Atomic => Vec::new(),
    };
    let path = path.to_owned();
    Error::NoKey { path, index, keys }
}

fn leaf() -> Entry {
    Entry {
        member: true,
        below: Set::default(),
    }
}

/// All of an object, as what an earlier owner without a name holds.
pub(super) fn all_of(node: &Node, value: &Value) -> Set {
    difference(node, &Value::Object(Map::new()), value).added
}

/// What differs between two objects.
pub(super) fn difference(node: &Node, old: &Value, new: &Value) -> Difference {
    let (mut all, element) = (Difference::default(), Element::field(""));
    compare(node, Some(old), Some(new), (&element, &mut all));
    let below = |set: Set| {
        set.entry(&element)
            .map(|entry| entry.below.clone())
            .unwrap_or_default()
    };
    Difference {
        added: below(all.added),
        modified: below(all.modified),
        removed: below(all.removed),
    }
}

/// Compares what stands at one element and notes it there.
fn compare(
    node: &Node,
    old: Option<&Value>,
    new: Option<&Value>,
    (element, found): (&Element, &mut Difference),
) {
    if old == new {
        return;
    }
    let empty = Value::Object(Map::new());
    let parts_of = |value: Option<&'_ Value>| {
        value.is_some_and(|value| !matches!(parts(node, value), Parts::Leaf))
    };
    let same_kind = match (old, new) {
        (Some(old), Some(new)) => old.is_object() == new.is_object(),
        _ => true,
    };
    let divisible =
        same_kind && (old.is_none() || parts_of(old)) && (new.is_none() || parts_of(new));
    let hollow = |value: Option<&Value>| {
        value.is_none_or(|value| *value == empty || *value == Value::Array(Vec::new()))
    };
    if !divisible || hollow(old) && hollow(new) {
        return note(old.is_some(), new.is_some(), leaf(), (element, found));
    }
    let mut inner = Difference::default();
    match old.or(new) {
        Some(Value::Object(_)) => compare_fields(node, old, new, &mut inner),
        _ => compare_items(node, old, new, &mut inner),
    }
    // A map or an item that appears or goes does so as a whole.
    let whole = |present: bool, below: Set| Entry {
        member: !present,
        below,
    };
    found
        .added
        .put(element.clone(), whole(old.is_some(), inner.added));
    found
        .removed
        .put(element.clone(), whole(new.is_some(), inner.removed));
    found
        .modified
        .put(element.clone(), whole(true, inner.modified));
}

fn note(old: bool, new: bool, entry: Entry, (element, found): (&Element, &mut Difference)) {
    let set = match (old, new) {
        (false, _) => &mut found.added,
        (true, false) => &mut found.removed,
        (true, true) => &mut found.modified,
    };
    set.put(element.clone(), entry);
}

fn compare_fields(node: &Node, old: Option<&Value>, new: Option<&Value>, found: &mut Difference) {
    let fields = |value: Option<&Value>| -> Vec<String> {
        let fields = value.and_then(Value::as_object).into_iter();
        fields.flat_map(|fields| fields.keys().cloned()).collect()
    };
    let mut names = fields(old);
    names.extend(fields(new));
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (old, new) = (
            old.and_then(|old| old.get(&name)),
            new.and_then(|new| new.get(&name)),
        );
        compare(node.child(&name), old, new, (&Element::field(&name), found));
    }
}

fn compare_items(node: &Node, old: Option<&Value>, new: Option<&Value>, found: &mut Difference) {
    let (old, new) = (by_element(node, items(old)), by_element(node, items(new)));
    let gone = old.keys().filter(|element| !new.contains_key(*element));
    for element in new.keys().chain(gone) {
        let (old, new) = (old.get(element).copied(), new.get(element).copied());
        compare(node.item(), old, new, (element, found));
    }
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Lays an object over another one.
pub(super) fn merge(node: &Node, live: &Value, config: &Value) -> Value {
    match (parts(node, live), parts(node, config)) {
        (Parts::Fields(live), Parts::Fields(config)) => {
            let mut merged = live.clone();
            for (name, value) in config {
                let value = match live.get(name) {
                    Some(live) => merge(node.child(name), live, value),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Parts::Items(live), Parts::Items(config)) => Value::Array(merge_items(node, live, config)),
        _ => config.clone(),
    }
}

/// Merges two lists: what both have stands in the order of the second, what one alone has stays between
/// its neighbours.
fn merge_items(node: &Node, live: &[Value], config: &[Value]) -> Vec<Value> {
    let ours = by_element(node, config);
    let theirs = by_element(node, live);
    let shared = |item: &Value, others: &BTreeMap<Element, &Value>| {
        element(node, item).is_some_and(|element| others.contains_key(&element))
    };
    let mut merged = Vec::with_capacity(live.len().max(config.len()));
    let (mut live, mut config) = (live.iter().peekable(), config.iter().peekable());
    loop {
        if let Some(item) = live.next_if(|item| !shared(item, &ours)) {
            merged.push(item.clone());
        } else if let Some(item) = config.next() {
            let old = element(node, item).and_then(|element| theirs.get(&element).copied());
            merged.push(old.map_or_else(|| item.clone(), |old| merge(node.item(), old, item)));
            if old.is_some() {
                // Its counterpart, or that of another shared item, is taken.
                live.next_if(|item| shared(item, &ours));
            }
        } else if live.next().is_none() {
            return merged;
        }
    }
}

/// Removes what a manager applied before and nobody owns any more.
///
/// `last` is what it applied, `owned` what anybody owns now. A field of a struct stays while somebody owns
/// anything in it; an entry of a map and an item of a list stay while somebody owns the entry as such.
pub(super) fn prune(node: &Node, value: &mut Value, last: &Set, owned: &Set) {
    let nothing = Set::default();
    for (element, entry) in last.entries() {
        let own = owned.entry(element);
        let named = matches!(element, Element::Field(name) if node.names(name));
        let kept = own.is_some_and(|own| own.member || named && !own.below.is_empty());
        let below = own.map_or(&nothing, |own| &own.below);
        if !kept && (entry.member || named) {
            remove(node, value, element);
        } else if let Some((node, inner)) = locate(node, value, element) {
            let before = is_hollow(inner);
            prune(node, inner, &entry.below, below);
            if !before && is_hollow(inner) && !own.is_some_and(|own| own.member) {
                remove_hollow(value, element);
            }
        }
    }
}

fn is_hollow(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

fn remove_hollow(value: &mut Value, element: &Element) {
    if let (Value::Object(fields), Element::Field(name)) = (value, element) {
        fields.remove(name);
    }
}

fn locate<'a>(
    node: &'a Node,
    value: &'a mut Value,
    wanted: &Element,
) -> Option<(&'a Node, &'a mut Value)> {
    match (value, wanted) {
        (Value::Object(fields), Element::Field(name)) if !node.atomic => {
            fields.get_mut(name).map(|value| (node.child(name), value))
        }
        (Value::Array(items), _) if node.list != ListType::Atomic => {
            let mut items = items.iter_mut();
            let found = items.find(|item| element(node, item).as_ref() == Some(wanted));
            found.map(|item| (node.item(), item))
        }
        _ => None,
    }
}

fn remove(node: &Node, value: &mut Value, wanted: &Element) {
    match (value, wanted) {
        (Value::Object(fields), Element::Field(name)) if !node.atomic => {
            fields.remove(name);
        }
        (Value::Array(items), _) if node.list != ListType::Atomic => {
            items.retain(|item| element(node, item).as_ref() != Some(wanted));
        }
        _ => {}
    }
}
