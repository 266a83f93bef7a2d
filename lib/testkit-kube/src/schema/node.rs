//! A structural schema as a typed tree.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use regex::Regex;
use serde_json::Value;

use super::cel::Rule;

/// One node: what may stand at one place of an object.
///
/// Nodes below `allOf`, `anyOf`, `oneOf` and `not` have the same form, but only judge: they neither name
/// fields nor give defaults.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the schema language, and all combinations occur"
)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Null is a value here; otherwise a null field is as good as absent.
    pub(crate) nullable: bool,
    pub(crate) default: Option<Value>,
    pub(crate) properties: BTreeMap<Box<str>, Arc<Self>>,
    pub(crate) required: Vec<Box<str>>,
    /// Fields that are left out when they are empty: lists and maps of structs that the API server decodes
    /// into.
    pub(crate) terse: Vec<Box<str>>,
    /// What the values of a map look like.
    pub(crate) additional: Option<Arc<Self>>,
    pub(crate) items: Option<Arc<Self>>,
    /// Fields that are not named stay.
    pub(crate) preserve: bool,
    /// A whole object with `apiVersion`, `kind` and `metadata`.
    pub(crate) embedded: bool,
    pub(crate) list: ListType,
    /// The map is one value with one owner.
    pub(crate) atomic: bool,
    /// How a strategic merge patch treats it; built-in kinds only.
    pub(crate) strategy: Strategy,
    pub(crate) checks: Option<Box<Checks>>,
    pub(crate) rules: Vec<Rule>,
    /// Whether there are rules here or anywhere below.
    pub(crate) ruled: bool,
}

/// The JSON type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    /// Whatever there is.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    /// A `resource.Quantity`: a string, or a number that becomes one.
    Quantity,
}

/// How items of a list relate to each other and to their owners.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ListType {
    /// The list is one value with one owner.
    #[default]
    Atomic,
    /// Scalars, each of which stands once and has its own owners.
    Set,
    /// Objects, told apart by these fields.
    Map(Vec<Box<str>>),
}

/// `x-kubernetes-patch-strategy` and `x-kubernetes-patch-merge-key`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Strategy {
    /// Lists are merged rather than replaced.
    pub(crate) merge: bool,
    /// Fields of the live object that the patch does not list in `$retainKeys` go.
    pub(crate) retain_keys: bool,
    /// Which field tells the objects of a merged list apart; none for scalars.
    pub(crate) merge_key: Option<Box<str>>,
}

/// Value validation.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) format: Option<Box<str>>,
    pub(crate) options: Vec<Value>,
    pub(crate) minimum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) all_of: Vec<Node>,
    pub(crate) any_of: Vec<Node>,
    pub(crate) one_of: Vec<Node>,
    pub(crate) not: Option<Node>,
}

// === impl Node ===

impl Node {
    /// A place where anything may stand.
    pub(crate) fn open() -> Self {
        Self {
            preserve: true,
            ..Self::default()
        }
    }

    /// What stands below a key of an object.
    pub(crate) fn field(&self, name: &str) -> Option<&Arc<Self>> {
        self.properties.get(name).or(self.additional.as_ref())
    }

    /// What stands below a key, or anything if the schema does not say.
    pub(crate) fn child(&self, name: &str) -> &Self {
        match self.field(name) {
            Some(child) => child,
            None => anything(),
        }
    }

    /// What the items of a list look like, or anything if the schema does not say.
    pub(crate) fn item(&self) -> &Self {
        match &self.items {
            Some(item) => item,
            None => anything(),
        }
    }

    /// Whether the fields of an object are named one by one: a struct rather than a map.
    pub(crate) fn names(&self, field: &str) -> bool {
        self.properties.contains_key(field)
    }
}

fn anything() -> &'static Node {
    static ANYTHING: LazyLock<Node> = LazyLock::new(Node::open);
    &ANYTHING
}

// === impl Kind ===

impl Kind {
    /// The name in schemas and messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString => "integer,string",
            Self::Quantity => "string,number",
        }
    }

    /// Whether a value has this type. Null is decided by `nullable`.
    pub(crate) fn admits(self, value: &Value) -> bool {
        match self {
            Self::Any => true,
            Self::Object => value.is_object(),
            Self::Array => value.is_array(),
            Self::String => value.is_string(),
            Self::Integer => is_integer(value),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::IntOrString => value.is_string() || is_integer(value),
            Self::Quantity => value.is_string() || value.is_number(),
        }
    }
}

/// `1.0` is an integer, as in the API server.
fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}
