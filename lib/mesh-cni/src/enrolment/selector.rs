//! Kubernetes' label selectors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap as _};
use serde_json::{Map, Value};

use super::{Belongs, Labels};

/// Pods by their own labels and by those of their namespace; both must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Selector {
    /// By their own. Empty: all.
    #[serde(rename = "podSelector")]
    pub pod: LabelSelector,
    /// By their namespace's. Empty: all.
    #[serde(rename = "namespaceSelector")]
    pub namespace: LabelSelector,
}

/// A conjunction of requirements; without any, everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

/// What must hold of the label with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
}

/// Of which kind it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label is there with one of these values; there is at least one.
    In(BTreeSet<String>),
    /// The label is missing, or has none of these values; there is at least one.
    NotIn(BTreeSet<String>),
    /// The label is there.
    Exists,
    /// The label is missing.
    DoesNotExist,
}

/// What is wrong in a list of selectors, and where. Whoever wrote it must correct it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    path: String,
    fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Type(&'static str),
    Unknown(&'static [&'static str]),
    Key(String),
    Value(String),
    Operator(String),
    NoValues,
    Values,
}

// === impl Selector ===

impl Selector {
    /// What Istio's chart asks for: pods that say so themselves, and pods of namespaces that say so unless they
    /// themselves say no.
    pub fn defaults() -> Vec<Self> {
        const MODE: &str = "istio.io/dataplane-mode";
        let is = |operator: fn(BTreeSet<String>) -> Operator, value: &str| {
            LabelSelector(vec![Requirement {
                key: MODE.to_owned(),
                operator: operator([value.to_owned()].into()),
            }])
        };
        vec![
            Self {
                pod: is(Operator::In, "ambient"),
                namespace: LabelSelector::default(),
            },
            Self {
                pod: is(Operator::NotIn, "none"),
                namespace: is(Operator::In, "ambient"),
            },
        ]
    }

    /// Reads a list of selectors, as in `AMBIENT_ENABLEMENT_SELECTOR`. Nothing is an empty list.
    pub fn parse_list(value: &Value) -> Result<Vec<Self>, Invalid> {
        match value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => (0..)
                .zip(items)
                .map(|(index, item): (usize, _)| Self::parse(item).map_err(|e| e.at(index)))
                .collect(),
            _ => Err(Invalid::new("", Fault::Type("a list of selectors"))),
        }
    }

    fn parse(value: &Value) -> Result<Self, Invalid> {
        let fields = object(value, &["podSelector", "namespaceSelector"])?;
        let part = |name| match fields.get(name) {
            None | Some(Value::Null) => Ok(LabelSelector::default()),
            Some(value) => LabelSelector::parse(value).map_err(|error| error.within(name)),
        };
        Ok(Self {
            pod: part("podSelector")?,
            namespace: part("namespaceSelector")?,
        })
    }

    /// Whether a pod with these labels in a namespace with those matches; labels that are not given are not
    /// known.
    pub fn matches(&self, pod: Option<&Labels>, namespace: Option<&Labels>) -> Belongs {
        self.pod.matches(pod).and(self.namespace.matches(namespace))
    }
}

impl TryFrom<Value> for Selector {
    type Error = Invalid;

    fn try_from(value: Value) -> Result<Self, Invalid> {
        Self::parse(&value)
    }
}

// === impl LabelSelector ===

impl LabelSelector {
    /// All of these must hold.
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        Self(requirements.into_iter().collect())
    }

    /// Reads one, as Kubernetes writes it.
    pub fn parse(value: &Value) -> Result<Self, Invalid> {
        let fields = object(value, &["matchLabels", "matchExpressions"])?;
        let mut requirements = Vec::new();
        if let Some(labels) = fields.get("matchLabels").filter(|v| !v.is_null()) {
            requirements.extend(labels_of(labels).map_err(|e| e.within("matchLabels"))?);
        }
        if let Some(list) = fields.get("matchExpressions").filter(|v| !v.is_null()) {
            requirements.extend(expressions(list).map_err(|e| e.within("matchExpressions"))?);
        }
        Ok(Self(requirements))
    }

    /// What must hold.
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }

    /// Whether it matches these labels; only a selector that matches everything matches labels that are not
    /// known.
    pub fn matches(&self, labels: Option<&Labels>) -> Belongs {
        match labels {
            Some(labels) => self.0.iter().all(|r| r.holds(labels)).into(),
            None if self.0.is_empty() => Belongs::Yes,
            None => Belongs::Perhaps,
        }
    }
}

impl Serialize for LabelSelector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.0.is_empty() {
            map.serialize_entry("matchExpressions", &self.0)?;
        }
        map.end()
    }
}

// === impl Requirement ===

impl Requirement {
    /// Checks the key and, as Kubernetes does, the values.
    pub fn try_new(key: &str, operator: Operator) -> Result<Self, Invalid> {
        if !is_key(key) {
            return Err(Invalid::new("key", Fault::Key(key.to_owned())));
        }
        if let Operator::In(values) | Operator::NotIn(values) = &operator {
            if values.is_empty() {
                return Err(Invalid::new("values", Fault::NoValues));
            }
            if let Some(bad) = values.iter().find(|value| !is_value(value)) {
                return Err(Invalid::new("values", Fault::Value(bad.clone())));
            }
        }
        let key = key.to_owned();
        Ok(Self { key, operator })
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What must hold of it.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl Serialize for Requirement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("key", &self.key)?;
        map.serialize_entry("operator", self.operator.name())?;
        if let Operator::In(values) | Operator::NotIn(values) = &self.operator {
            map.serialize_entry("values", values)?;
        }
        map.end()
    }
}

// === impl Operator ===

impl Operator {
    fn name(&self) -> &'static str {
        match self {
            Self::In(_) => "In",
            Self::NotIn(_) => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
        }
    }

    fn parse(name: &str, values: BTreeSet<String>) -> Result<Self, Invalid> {
        let without = |operator| {
            if values.is_empty() {
                Ok(operator)
            } else {
                Err(Invalid::new("values", Fault::Values))
            }
        };
        match name {
            "In" => Ok(Self::In(values)),
            "NotIn" => Ok(Self::NotIn(values)),
            "Exists" => without(Self::Exists),
            "DoesNotExist" => without(Self::DoesNotExist),
            other => Err(Invalid::new("operator", Fault::Operator(other.to_owned()))),
        }
    }
}

// === impl Invalid ===

impl Invalid {
    fn new(field: &str, fault: Fault) -> Self {
        let path = field.to_owned();
        Self { path, fault }
    }

    /// In this field of something larger.
    fn within(mut self, field: &str) -> Self {
        let separator = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path = format!("{field}{separator}{}", self.path);
        self
    }

    /// In this item of a list.
    fn at(self, index: usize) -> Self {
        self.within(&format!("[{index}]"))
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "selectors{}: ", self.path)?;
        match &self.fault {
            Fault::Type(wanted) => write!(f, "must be {wanted}"),
            Fault::Unknown(known) => write!(f, "is not a field; there are: {}", known.join(", ")),
            Fault::Key(key) => write!(
                f,
                "`{key}` is no label key: an optional prefix that is a DNS name and `/`, then 1 to 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends"
            ),
            Fault::Value(value) => write!(
                f,
                "`{value}` is no label value: at most 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends"
            ),
            Fault::Operator(name) => {
                write!(f, "`{name}` is not one of In, NotIn, Exists, DoesNotExist")
            }
            Fault::NoValues => f.write_str("In and NotIn need at least one value"),
            Fault::Values => f.write_str("Exists and DoesNotExist take no values"),
        }
    }
}

impl std::error::Error for Invalid {}

/// The fields of an object that has no others than these: a misspelt selector would match everything.
fn object<'a>(
    value: &'a Value,
    known: &'static [&'static str],
) -> Result<&'a Map<String, Value>, Invalid> {
    let fields = value
        .as_object()
        .ok_or_else(|| Invalid::new("", Fault::Type("an object")))?;
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(Invalid::new(unknown, Fault::Unknown(known))),
        None => Ok(fields),
    }
}

fn labels_of(value: &Value) -> Result<Vec<Requirement>, Invalid> {
    let of_strings = || Fault::Type("an object with a text for each key");
    let fields = value
        .as_object()
        .ok_or_else(|| Invalid::new("", of_strings()))?;
    // By key, whatever order the parser keeps.
    let sorted: BTreeMap<_, _> = fields.iter().collect();
    let requirement = |(key, value): (&String, &Value)| {
        let value = value
            .as_str()
            .ok_or_else(|| Invalid::new(key, of_strings()))?;
        let operator = Operator::In([value.to_owned()].into());
        Requirement::try_new(key, operator).map_err(|error| Invalid::new(key, error.fault))
    };
    sorted.into_iter().map(requirement).collect()
}

fn expressions(value: &Value) -> Result<Vec<Requirement>, Invalid> {
    let items = value
        .as_array()
        .ok_or_else(|| Invalid::new("", Fault::Type("a list")))?;
    (0..)
        .zip(items)
        .map(|(index, item): (usize, _)| expression(item).map_err(|error| error.at(index)))
        .collect()
}

fn expression(value: &Value) -> Result<Requirement, Invalid> {
    let fields = object(value, &["key", "operator", "values"])?;
    let text = |name| match fields.get(name) {
        Some(Value::String(text)) => Ok(text.as_str()),
        _ => Err(Invalid::new(name, Fault::Type("a text"))),
    };
    let of_strings = || Invalid::new("values", Fault::Type("a list of texts"));
    let values = match fields.get("values") {
        None | Some(Value::Null) => BTreeSet::new(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(of_strings))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(of_strings()),
    };
    let operator = Operator::parse(text("operator")?, values)?;
    Requirement::try_new(text("key")?, operator)
}

/// Letters, digits, `-`, `_` and `.`, at most 63, with a letter or digit at both ends.
fn is_name(text: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(inner)
}

fn is_value(text: &str) -> bool {
    text.is_empty() || is_name(text)
}

fn is_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name(name),
        None => is_name(text),
    }
}

fn is_subdomain(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(inner)
    };
    text.len() <= 253 && text.split('.').all(label)
}
