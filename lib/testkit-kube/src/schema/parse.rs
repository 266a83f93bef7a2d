//! Reading a schema from JSON into [`Node`]s.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use regex::Regex;
use serde_json::{Map, Value};

use super::{
    Error, builtin,
    cel::Rule,
    node::{Checks, Kind, ListType, Node, Strategy},
    path::Path,
    structural,
};

/// Deepest schema that is read. A real one of a large CRD is some 30 deep.
const MAX_DEPTH: usize = 100;

/// The JSON of one node of a schema.
pub(super) type Text = Map<String, Value>;

/// Reads schemas; one instance per schema.
#[derive(Debug)]
pub(super) struct Parser<'a> {
    flavour: Flavour<'a>,
    /// Definitions that have been read.
    known: HashMap<&'a str, Arc<Node>>,
    /// Definitions that are being read.
    open: Vec<&'a str>,
    depth: usize,
}

/// Whose rules hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flavour<'a> {
    /// A CRD: structural, without references.
    Custom,
    /// Built-in kinds: references into these definitions, decoded into typed structs.
    Builtin(&'a Text),
}

// === impl Parser ===

impl<'a> Parser<'a> {
    pub(super) fn new(flavour: Flavour<'a>) -> Self {
        Self {
            flavour,
            known: HashMap::new(),
            open: Vec::new(),
            depth: 0,
        }
    }

    /// Reads a whole object: a CRD's schema, or a definition.
    pub(super) fn root(&mut self, text: &'a Value, name: &'a str) -> Result<Arc<Node>, Error> {
        match self.flavour {
            Flavour::Builtin(definitions) => self.definition(definitions, name, Path::Root),
            Flavour::Custom => self.node(text, Path::Root),
        }
    }

    /// Reads a node that gives structure.
    pub(super) fn node(&mut self, text: &'a Value, path: Path<'_>) -> Result<Arc<Node>, Error> {
        let text = object(text, path)?;
        if let Some(reference) = text.get("$ref").and_then(Value::as_str)
            && let Flavour::Builtin(definitions) = self.flavour
        {
            return self.referenced(definitions, reference, text, path);
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(fault(
                path,
                format!("nests more than {MAX_DEPTH} levels deep"),
            ));
        }
        let node = self.inline(text, path)?;
        self.depth -= 1;
        Ok(Arc::new(node))
    }

    /// A definition that is referred to, with what stands beside the reference.
    fn referenced(
        &mut self,
        definitions: &'a Text,
        reference: &'a str,
        beside: &'a Text,
        path: Path<'_>,
    ) -> Result<Arc<Node>, Error> {
        let name = builtin::definition_name(reference);
        let target = self.definition(definitions, name, path)?;
        let own = strategy(beside);
        let default = beside.get("default").cloned();
        if own == Strategy::default() && default.is_none() {
            return Ok(target);
        }
        // What stands beside the reference holds at this place only, so this place gets its own copy.
        self.known.remove(name);
        let copy = self.definition(definitions, name, path)?;
        self.known.insert(name, target);
        let node = Arc::into_inner(copy).map(|node| Node {
            strategy: own,
            default,
            ..node
        });
        Ok(Arc::new(node.unwrap_or_else(Node::open)))
    }

    fn definition(
        &mut self,
        definitions: &'a Text,
        name: &'a str,
        path: Path<'_>,
    ) -> Result<Arc<Node>, Error> {
        if let Some(node) = self.known.get(name) {
            return Ok(node.clone());
        }
        let text = definitions.get_key_value(name);
        let Some((name, text)) = text.filter(|_| !self.open.contains(&name)) else {
            // A type that contains itself, as JSONSchemaProps does: below the first turn all is taken.
            return Ok(Arc::new(Node::open()));
        };
        if builtin::is_quantity(name) {
            let kind = Kind::Quantity;
            return Ok(Arc::new(Node {
                kind,
                ..Node::default()
            }));
        }
        self.open.push(name);
        let mut node = self.inline(object(text, path)?, path)?;
        self.open.pop();
        builtin::relax(name, &mut node);
        let node = Arc::new(node);
        self.known.insert(name, node.clone());
        Ok(node)
    }

    fn inline(&mut self, text: &'a Text, path: Path<'_>) -> Result<Node, Error> {
        if matches!(self.flavour, Flavour::Custom) {
            structural::check(text, path)?;
        }
        let mut node = self.shape(text, path)?;
        for (name, child) in map(text, "properties", path)? {
            let place = path.field("properties");
            let child = self.node(child, place.key(name))?;
            node.properties.insert(name.as_str().into(), child);
        }
        match text.get("additionalProperties") {
            Some(child @ Value::Object(_)) => {
                let child = self.node(child, path.field("additionalProperties"))?;
                node.additional = Some(child);
            }
            Some(Value::Bool(true)) => node.preserve = true,
            _ => {}
        }
        if let Some(items) = text.get("items") {
            node.items = Some(self.node(items, path.field("items"))?);
        }
        let custom_root = matches!((self.flavour, path), (Flavour::Custom, Path::Root));
        if node.embedded || custom_root {
            builtin::embed(&mut node);
        }
        node.checks = self.checks(text, path, node.kind == Kind::IntOrString)?;
        if let Flavour::Custom = self.flavour {
            structural::check_completeness(&node, path)?;
            structural::check_items(&node, path)?;
            structural::check_default(&node, path)?;
            node.rules = Rule::all(text, &node, path)?;
            let mut children = node
                .properties
                .values()
                .chain(&node.additional)
                .chain(&node.items);
            node.ruled = !node.rules.is_empty() || children.any(|child| child.ruled);
        } else {
            node.terse = terse(&node);
        }
        if matches!(self.flavour, Flavour::Builtin(_))
            && node.kind == Kind::Object
            && node.properties.is_empty()
            && node.additional.is_none()
        {
            node.preserve = true;
        }
        Ok(node)
    }

    /// What a node says of itself alone.
    fn shape(&self, text: &'a Text, path: Path<'_>) -> Result<Node, Error> {
        let kind = kind(text, path)?;
        let untyped = kind == Kind::Any && matches!(self.flavour, Flavour::Builtin(_));
        Ok(Node {
            kind,
            nullable: flag(text, "nullable"),
            default: text.get("default").cloned(),
            required: strings(text, "required", path)?,
            preserve: flag(text, "x-kubernetes-preserve-unknown-fields") || untyped,
            embedded: flag(text, "x-kubernetes-embedded-resource"),
            list: list_type(text, path)?,
            atomic: text
                .get("x-kubernetes-map-type")
                .is_some_and(|kind| kind == "atomic"),
            strategy: strategy(text),
            ..Node::default()
        })
    }

    /// Value validation. `mixed` says that integers and strings may stand here, which is the one case in
    /// which junctors may speak of types.
    fn checks(
        &mut self,
        text: &'a Text,
        path: Path<'_>,
        mixed: bool,
    ) -> Result<Option<Box<Checks>>, Error> {
        const NAMES: [&str; 18] = [
            "format",
            "enum",
            "minimum",
            "exclusiveMinimum",
            "maximum",
            "exclusiveMaximum",
            "multipleOf",
            "minLength",
            "maxLength",
            "pattern",
            "minItems",
            "maxItems",
            "uniqueItems",
            "minProperties",
            "maxProperties",
            "allOf",
            "anyOf",
            "oneOf",
        ];
        if !text.contains_key("not") && !NAMES.iter().any(|name| text.contains_key(*name)) {
            return Ok(None);
        }
        let checks = Checks {
            format: text.get("format").and_then(Value::as_str).map(Into::into),
            options: list(text, "enum", path)?.to_vec(),
            minimum: number(text, "minimum", path)?,
            exclusive_minimum: flag(text, "exclusiveMinimum"),
            maximum: number(text, "maximum", path)?,
            exclusive_maximum: flag(text, "exclusiveMaximum"),
            multiple_of: number(text, "multipleOf", path)?,
            min_length: count(text, "minLength", path)?,
            max_length: count(text, "maxLength", path)?,
            pattern: pattern(text, path)?,
            min_items: count(text, "minItems", path)?,
            max_items: count(text, "maxItems", path)?,
            unique_items: flag(text, "uniqueItems"),
            min_properties: count(text, "minProperties", path)?,
            max_properties: count(text, "maxProperties", path)?,
            all_of: self.judges(text, "allOf", path, mixed)?,
            any_of: self.judges(text, "anyOf", path, mixed)?,
            one_of: self.judges(text, "oneOf", path, mixed)?,
            not: match text.get("not") {
                Some(not) => Some(self.judge(not, path.field("not"), mixed)?),
                None => None,
            },
        };
        Ok(Some(Box::new(checks)))
    }

    fn judges(
        &mut self,
        text: &'a Text,
        name: &'static str,
        path: Path<'_>,
        mixed: bool,
    ) -> Result<Vec<Node>, Error> {
        let place = path.field(name);
        let texts = list(text, name, path)?.iter().enumerate();
        texts
            .map(|(index, text)| self.judge(text, place.index(index), mixed))
            .collect()
    }

    /// Reads a node below a junctor, which only judges.
    fn judge(&mut self, text: &'a Value, path: Path<'_>, mixed: bool) -> Result<Node, Error> {
        let text = object(text, path)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(fault(
                path,
                format!("nests more than {MAX_DEPTH} levels deep"),
            ));
        }
        if matches!(self.flavour, Flavour::Custom) {
            structural::check_judge(text, path, mixed)?;
        }
        let mut properties = BTreeMap::new();
        for (name, child) in map(text, "properties", path)? {
            let place = path.field("properties");
            let child = self.judge(child, place.key(name), false)?;
            properties.insert(name.as_str().into(), Arc::new(child));
        }
        let items = match text.get("items") {
            Some(items) => Some(Arc::new(self.judge(items, path.field("items"), false)?)),
            None => None,
        };
        let node = Node {
            kind: kind(text, path)?,
            required: strings(text, "required", path)?,
            preserve: true,
            properties,
            items,
            checks: self.checks(text, path, mixed)?,
            ..Node::default()
        };
        self.depth -= 1;
        Ok(node)
    }
}

/// The fields of a struct that are left out when they are empty.
fn terse(node: &Node) -> Vec<Box<str>> {
    let is_map = |child: &Node| child.additional.is_some() && child.properties.is_empty();
    let optional = node.properties.iter().filter(|(name, child)| {
        !node.required.contains(name) && (child.kind == Kind::Array || is_map(child))
    });
    optional.map(|(name, _)| name.clone()).collect()
}

/// Refuses a schema.
pub(super) fn fault(path: Path<'_>, message: impl Into<String>) -> Error {
    let path = match path {
        Path::Root => "openAPIV3Schema".to_owned(),
        path => format!("openAPIV3Schema.{path}"),
    };
    let message = message.into();
    Error::NotStructural { path, message }
}

fn object<'a>(text: &'a Value, path: Path<'_>) -> Result<&'a Text, Error> {
    text.as_object()
        .ok_or_else(|| fault(path, format!("Invalid value: {text}: must be an object")))
}

fn kind(text: &Text, path: Path<'_>) -> Result<Kind, Error> {
    if flag(text, "x-kubernetes-int-or-string") {
        return Ok(Kind::IntOrString);
    }
    let kinds = [
        Kind::Object,
        Kind::Array,
        Kind::String,
        Kind::Integer,
        Kind::Number,
        Kind::Boolean,
    ];
    match text.get("type") {
        None => Ok(Kind::Any),
        Some(Value::String(name)) if name.is_empty() => Ok(Kind::Any),
        Some(name) => kinds.into_iter().find(|kind| name == kind.name()).ok_or_else(|| {
            let supported = r#"supported values: "array", "boolean", "integer", "number", "object", "string""#;
            fault(path.field("type"), format!("Unsupported value: {name}: {supported}"))
        }),
    }
}

fn list_type(text: &Text, path: Path<'_>) -> Result<ListType, Error> {
    match text.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => Ok(ListType::Set),
        Some("map") => strings(text, "x-kubernetes-list-map-keys", path).map(ListType::Map),
        _ => Ok(ListType::Atomic),
    }
}

fn strategy(text: &Text) -> Strategy {
    let word = |name| text.get(name).and_then(Value::as_str);
    let mut strategies = word("x-kubernetes-patch-strategy")
        .into_iter()
        .flat_map(|all| all.split(','));
    let mut found = Strategy {
        merge_key: word("x-kubernetes-patch-merge-key").map(Into::into),
        ..Strategy::default()
    };
    for strategy in strategies.by_ref() {
        found.merge |= strategy == "merge";
        found.retain_keys |= strategy == "retainKeys";
    }
    found
}

pub(super) fn flag(text: &Text, name: &str) -> bool {
    text.get(name).is_some_and(|value| value == true)
}

fn pattern(text: &Text, path: Path<'_>) -> Result<Option<Regex>, Error> {
    let Some(pattern) = text
        .get("pattern")
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    Regex::new(pattern).map(Some).map_err(|error| {
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        fault(
            path.field("pattern"),
            format!("Invalid value: {pattern:?}: {detail}"),
        )
    })
}

fn number(text: &Text, name: &'static str, path: Path<'_>) -> Result<Option<f64>, Error> {
    typed(text, name, path, "number", Value::as_f64)
}

fn count(text: &Text, name: &'static str, path: Path<'_>) -> Result<Option<u64>, Error> {
    typed(text, name, path, "non-negative integer", Value::as_u64)
}

fn list<'a>(text: &'a Text, name: &'static str, path: Path<'_>) -> Result<&'a [Value], Error> {
    let list = typed(text, name, path, "list", |value| {
        value.as_array().map(Vec::as_slice)
    })?;
    Ok(list.unwrap_or_default())
}

fn map<'a>(
    text: &'a Text,
    name: &'static str,
    path: Path<'_>,
) -> Result<impl Iterator<Item = (&'a String, &'a Value)> + use<'a>, Error> {
    let map = typed(text, name, path, "object", Value::as_object)?;
    Ok(map.into_iter().flatten())
}

fn strings(text: &Text, name: &'static str, path: Path<'_>) -> Result<Vec<Box<str>>, Error> {
    let wrong = || fault(path.field(name), "Invalid value: must be a list of strings");
    let all = list(text, name, path)?.iter();
    all.map(|item| item.as_str().map(Into::into).ok_or_else(wrong))
        .collect()
}

fn typed<'a, T>(
    text: &'a Text,
    name: &'static str,
    path: Path<'_>,
    what: &str,
    read: impl Fn(&'a Value) -> Option<T>,
) -> Result<Option<T>, Error> {
    match text.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value).map(Some).ok_or_else(|| {
            fault(
                path.field(name),
                format!("Invalid value: {value}: must be a {what}"),
            )
        }),
    }
}
