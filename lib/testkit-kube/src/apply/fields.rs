//! Sets of fields, and `FieldsV1`, in which they are written.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    /// A field of an object.
    Field(String),
    /// An object of a list, by its keys.
    Key(BTreeMap<String, Scalar>),
    /// A scalar of a list, by itself.
    Value(Scalar),
    /// An item of a list, by its place. We read these but do not make them.
    Index(i64),
}

/// A JSON value in a form that has an order: its text, with the fields of objects sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scalar(String);

/// A set of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Set {
    entries: BTreeMap<Element, Entry>,
}

/// What a set has at and below one element. One of the two is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Whether the path that ends here is in the set.
    pub(super) member: bool,
    pub(super) below: Set,
}

/// A `FieldsV1` that cannot be read; whoever wrote it is at fault.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no path element of FieldsV1")]
pub(super) struct Undecodable(String);

// === impl Scalar ===

impl Scalar {
    pub(super) fn of(value: &Value) -> Self {
        let mut text = String::new();
        write_sorted(value, &mut text);
        Self(text)
    }
}

fn write_sorted(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            text.push('{');
            for (index, (name, value)) in sorted.into_iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write_sorted(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                write_sorted(item, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

// === impl Element ===

impl Element {
    pub(super) fn field(name: &str) -> Self {
        Self::Field(name.to_owned())
    }

    fn decode(text: &str) -> Result<Self, Undecodable> {
        let wrong = || Undecodable(text.to_owned());
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        let json = |text: &str| serde_json::from_str::<Value>(text).ok();
        match kind {
            "f" => Ok(Self::field(rest)),
            "k" => {
                let Some(Value::Object(keys)) = json(rest) else {
                    return Err(wrong());
                };
                let keys = keys
                    .iter()
                    .map(|(name, value)| (name.clone(), Scalar::of(value)));
                Ok(Self::Key(keys.collect()))
            }
            "v" => Ok(Self::Value(Scalar::of(&json(rest).ok_or_else(wrong)?))),
            "i" => rest.parse().map(Self::Index).ok().ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }

    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => {
                let keys = keys
                    .iter()
                    .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), value.0));
                format!("k:{{{}}}", keys.collect::<Vec<_>>().join(","))
            }
            Self::Value(value) => format!("v:{}", value.0),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                let keys = keys
                    .iter()
                    .map(|(name, value)| format!("{name}={}", value.0));
                write!(f, "[{}]", keys.collect::<Vec<_>>().join(","))
            }
            Self::Value(value) => write!(f, "[={}]", value.0),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

// === impl Set ===

impl Set {
    /// Reads a `fieldsV1`.
    pub(super) fn decode(fields: &Value) -> Result<Self, Undecodable> {
        let Value::Object(fields) = fields else {
            return Err(Undecodable(fields.to_string()));
        };
        let mut set = Self::default();
        for (name, below) in fields.iter().filter(|(name, _)| *name != ".") {
            let entry = Entry {
                member: below.get(".").is_some() || below.as_object().is_some_and(Map::is_empty),
                below: Self::decode(below)?,
            };
            set.put(Element::decode(name)?, entry);
        }
        Ok(set)
    }

    /// Writes a `fieldsV1`.
    pub(super) fn encode(&self) -> Value {
        let entry = |(element, entry): (&Element, &Entry)| {
            let mut below = entry.below.encode();
            if entry.member && !entry.below.is_empty() {
                below["."] = Value::Object(Map::new());
            }
            (element.encode(), below)
        };
        Value::Object(self.entries.iter().map(entry).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&Element, &Entry)> {
        self.entries.iter()
    }

    pub(super) fn entry(&self, element: &Element) -> Option<&Entry> {
        self.entries.get(element)
    }

    /// Adds what stands at and below an element. An entry without anything is not kept.
    pub(super) fn put(&mut self, element: Element, entry: Entry) {
        if entry.member || !entry.below.is_empty() {
            let mine = self.entries.entry(element).or_default();
            mine.member |= entry.member;
            mine.below.add(entry.below);
        }
    }

    /// Takes an element out, with all below it.
    pub(super) fn remove(&mut self, element: &Element) {
        self.entries.remove(element);
    }

    /// What is below an element, to be changed. Call [`Self::trim`] afterwards.
    pub(super) fn below(&mut self, element: &Element) -> Option<&mut Self> {
        self.entries.get_mut(element).map(|entry| &mut entry.below)
    }

    /// Drops entries that have become empty.
    pub(super) fn trim(&mut self) {
        self.entries
            .retain(|_, entry| entry.member || !entry.below.is_empty());
    }

    /// Adds the paths of another set.
    pub(super) fn add(&mut self, other: Self) {
        for (element, entry) in other.entries {
            self.put(element, entry);
        }
    }

    /// The paths that both have.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (element, mine) in &self.entries {
            if let Some(theirs) = other.entries.get(element) {
                let entry = Entry {
                    member: mine.member && theirs.member,
                    below: mine.below.intersection(&theirs.below),
                };
                both.put(element.clone(), entry);
            }
        }
        both
    }

    /// The paths that the other does not have.
    pub(super) fn difference(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        for (element, mine) in &self.entries {
            let entry = match other.entries.get(element) {
                None => mine.clone(),
                Some(theirs) => Entry {
                    member: mine.member && !theirs.member,
                    below: mine.below.difference(&theirs.below),
                },
            };
            rest.put(element.clone(), entry);
        }
        rest
    }

    /// The paths as text: `.spec.replicas`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, prefix: &str, paths: &mut Vec<String>) {
        for (element, entry) in &self.entries {
            let path = format!("{prefix}{element}");
            entry.below.collect(&path, paths);
            if entry.member {
                paths.push(path);
            }
        }
    }
}
