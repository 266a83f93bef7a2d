//! The node's CNI configuration as data: what other plugins' installers wrote, with our entry put in, kept as
//! it should be, and taken out again.
//!
//! Everything that is not ours stays as it is, also what we do not know. What is written depends only on what
//! is in it: keys are sorted, so that two agents write the same bytes.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::{PLUGIN, PluginConfig};

/// Most bytes of a configuration file. Real ones have a few thousand.
pub const MAX_BYTES: usize = 1 << 20;

/// What a list made of a single plugin is called if the plugin's network has no name.
const UNNAMED: &str = "k8s-pod-network";

/// The version of a list made of a single plugin: the oldest in which results are passed along with all they
/// say. Istio writes it too.
const OLDEST: &str = "0.3.1";

/// What a configuration file's name says of its contents. Runtimes read no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.conf` and `.json`: one plugin.
    Single,
    /// `.conflist`: a list of plugins.
    List,
}

/// A list of plugins, called one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigList {
    fields: Map<String, Value>,
    plugins: Vec<Plugin>,
}

/// One plugin's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    kind: String,
    fields: Map<String, Value>,
}

/// How our entry in a list compares with what it should be. Everything but [`Verdict::Current`] is repaired by
/// [`ConfigList::insert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Current,
    /// There is none: pods would start outside the mesh.
    Absent,
    /// It differs in some field.
    Outdated,
    /// It comes before the plugin that makes the pod's network.
    Misplaced,
    /// There is more than one.
    Repeated,
}

/// Why a file is not a configuration. It is its writer's fault; runtimes skip such a file as we do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is longer than [`MAX_BYTES`].
    #[error("read a CNI configuration of {length} bytes, which is more than {MAX_BYTES}")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// It is not a JSON object.
    #[error("read a CNI configuration: not a JSON object")]
    Malformed(#[source] serde_json::Error),
    /// A field is missing, empty or of another type.
    #[error("read a CNI configuration: {field} must be {wanted}")]
    Field {
        /// Where.
        field: String,
        /// What it must be.
        wanted: &'static str,
    },
}

// === impl Format ===

impl Format {
    /// What this file would hold; none if runtimes do not read it.
    pub fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "conf" | "json" => Some(Self::Single),
            "conflist" => Some(Self::List),
            _ => None,
        }
    }
}

// === impl ConfigList ===

impl ConfigList {
    /// Reads a file's contents; a single plugin becomes a list of one.
    pub fn parse(bytes: &[u8], format: Format) -> Result<Self, Error> {
        match format {
            Format::Single => Plugin::parse(bytes).map(Self::from),
            Format::List => Self::from_fields(object(bytes)?),
        }
    }

    fn from_fields(mut fields: Map<String, Value>) -> Result<Self, Error> {
        text(&fields, "name")?;
        if fields.get("cniVersion").is_some_and(|v| !v.is_string()) {
            return Err(field("cniVersion", "a text"));
        }
        let Some(Value::Array(items)) = fields.remove("plugins") else {
            return Err(field("plugins", "a list of plugins"));
        };
        if items.is_empty() {
            return Err(field("plugins", "a list with at least one plugin"));
        }
        let plugin = |(index, item): (usize, Value)| match item {
            Value::Object(fields) => {
                Plugin::from_fields(fields).map_err(|error| error.within(index))
            }
            _ => Err(field(&format!("plugins[{index}]"), "an object")),
        };
        let plugins = (0..).zip(items).map(plugin).collect::<Result<_, _>>()?;
        Ok(Self { fields, plugins })
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        self.text("name")
    }

    /// The version of CNI that its plugins are called in; empty if it does not say.
    pub fn cni_version(&self) -> &str {
        self.text("cniVersion")
    }

    /// The plugins, in the order in which a pod is added.
    pub fn plugins(&self) -> &[Plugin] {
        &self.plugins
    }

    /// How our entry compares with this one.
    pub fn verdict(&self, wanted: &PluginConfig) -> Verdict {
        let ours: Vec<_> = (0..)
            .zip(&self.plugins)
            .filter(|(_, plugin)| plugin.is_ours())
            .collect();
        match *ours.as_slice() {
            [] => Verdict::Absent,
            [(_, entry)] if entry.fields != fields_of(wanted) => Verdict::Outdated,
            // What others append after ours is their business: to move ours again and again would be a fight.
            [(0, _)] if self.plugins.len() > 1 => Verdict::Misplaced,
            [_] => Verdict::Current,
            _ => Verdict::Repeated,
        }
    }

    /// Makes this our only entry, and the last one. The rest is not touched.
    pub fn insert(&mut self, entry: &PluginConfig) {
        self.plugins.retain(|plugin| !plugin.is_ours());
        let fields = fields_of(entry);
        let kind = PLUGIN.to_owned();
        self.plugins.push(Plugin { kind, fields });
    }

    /// Takes our entry out, and tells whether there was one. A list that held nothing else is empty then, and
    /// its file must go: no runtime accepts it.
    pub fn remove(&mut self) -> bool {
        let before = self.plugins.len();
        self.plugins.retain(|plugin| !plugin.is_ours());
        self.plugins.len() != before
    }

    /// What a file of our own holds that takes this one's place: the same plugins and fields, and our entry.
    /// When this one changes, so does its copy: compare the whole.
    #[must_use]
    pub fn owned_copy(&self, entry: &PluginConfig) -> Self {
        let mut copy = self.clone();
        copy.insert(entry);
        copy
    }

    /// The file's contents: keys sorted, indented by two, with a newline at the end, as Istio writes them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let plugins: Vec<_> = self
            .plugins
            .iter()
            .map(|p| Sorted::object(&p.fields))
            .collect();
        let mut fields: BTreeMap<_, _> = self.fields.iter().map(Sorted::field).collect();
        fields.insert("plugins", Sorted::List(plugins));
        pretty(&Sorted::Object(fields))
    }

    fn text(&self, name: &str) -> &str {
        self.fields
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

impl From<Plugin> for ConfigList {
    /// A list of this plugin alone. It keeps the network's name: plugins find by it what they stored of the pods
    /// that run. (Istio gives every such list the same name; addresses are then given out twice.)
    fn from(mut plugin: Plugin) -> Self {
        let version = plugin.fields.remove("cniVersion");
        let version = version.filter(|v| v.as_str().is_some_and(passes_results));
        let name = plugin.fields.get("name").and_then(Value::as_str);
        let name = name.filter(|name| !name.is_empty()).unwrap_or(UNNAMED);
        let fields = [
            ("name".to_owned(), Value::from(name)),
            (
                "cniVersion".to_owned(),
                version.unwrap_or_else(|| Value::from(OLDEST)),
            ),
        ];
        Self {
            fields: fields.into_iter().collect(),
            plugins: vec![plugin],
        }
    }
}

// === impl Plugin ===

impl Plugin {
    /// Reads the contents of a file with one plugin.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::from_fields(object(bytes)?)
    }

    fn from_fields(fields: Map<String, Value>) -> Result<Self, Error> {
        let kind = text(&fields, "type")?.to_owned();
        Ok(Self { kind, fields })
    }

    /// Which program is called.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// All that is said of it.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// Whether it is our plugin's entry.
    pub fn is_ours(&self) -> bool {
        self.kind == PLUGIN
    }

    /// Whether a file with this one plugin is what [`standalone`] writes.
    pub fn is_standalone(&self, wanted: &PluginConfig) -> bool {
        self.fields == fields_of(&alone(wanted))
    }
}

/// The contents of a file with our plugin alone, as another plugin such as Multus calls it.
pub fn standalone(entry: &PluginConfig) -> Vec<u8> {
    pretty(&Sorted::object(&fields_of(&alone(entry))))
}

fn alone(entry: &PluginConfig) -> PluginConfig {
    PluginConfig {
        cni_version: Some(OLDEST.to_owned()),
        ..entry.clone()
    }
}

/// Whether plugins of this version tell the ones after them all that they did.
fn passes_results(version: &str) -> bool {
    crate::spec::Version::parse(version)
        .is_some_and(|version| version >= crate::spec::Version::V0_3_1)
}

fn fields_of(entry: &PluginConfig) -> Map<String, Value> {
    match serde_json::to_value(entry) {
        Ok(Value::Object(fields)) => fields,
        // It has named fields, and no keys that are not texts.
        _ => Map::new(),
    }
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    if bytes.len() > MAX_BYTES {
        let length = bytes.len();
        return Err(Error::TooLong { length });
    }
    serde_json::from_slice(bytes).map_err(Error::Malformed)
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str, Error> {
    match fields.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(field(name, "a text that is not empty")),
    }
}

fn field(field: &str, wanted: &'static str) -> Error {
    let field = field.to_owned();
    Error::Field { field, wanted }
}

// === impl Error ===

impl Error {
    fn within(self, index: usize) -> Self {
        match self {
            Self::Field { field, wanted } => Self::Field {
                field: format!("plugins[{index}].{field}"),
                wanted,
            },
            other => other,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Current => "as it should be",
            Self::Absent => "has no entry of ours",
            Self::Outdated => "has another entry of ours",
            Self::Misplaced => "has our entry before the plugin that makes the network",
            Self::Repeated => "has our entry more than once",
        })
    }
}

/// A value whose keys are written in order, whatever order the parser was built to keep.
#[derive(Serialize)]
#[serde(untagged)]
enum Sorted<'a> {
    Object(BTreeMap<&'a str, Self>),
    List(Vec<Self>),
    Plain(&'a Value),
}

// === impl Sorted ===

impl<'a> Sorted<'a> {
    fn of(value: &'a Value) -> Self {
        match value {
            Value::Object(fields) => Self::object(fields),
            Value::Array(items) => Self::List(items.iter().map(Self::of).collect()),
            plain => Self::Plain(plain),
        }
    }

    fn object(fields: &'a Map<String, Value>) -> Self {
        Self::Object(fields.iter().map(Self::field).collect())
    }

    fn field((name, value): (&'a String, &'a Value)) -> (&'a str, Self) {
        (name, Self::of(value))
    }
}

fn pretty(value: &Sorted<'_>) -> Vec<u8> {
    // Writing JSON to memory fails only for keys that are not texts; ours are.
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests;
