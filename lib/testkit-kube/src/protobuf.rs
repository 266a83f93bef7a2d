//! Reading objects in Kubernetes' protobuf encoding.
//!
//! Some clients, kubectl since 1.32 among them, send what they create in protobuf and leave no choice. All
//! accept JSON in answer, so nothing is written. What is read becomes the JSON that the client might have
//! sent instead.
//!
//! `messages.txt` lists the messages, one per line: its name and its fields as `NUMBER:NAME:TYPE`. The
//! facts are those of k8s.io/api: the field numbers and names of the API's types. A `?` after the number
//! marks what may be absent: elsewhere a zero on the wire means that nobody set the field. A field without
//! name is part of the object around it.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::LazyLock};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::store::timestamp;

/// The media type of the encoding.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Why bytes are no object. The client is at fault in all but [`Error::UnknownKind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The four bytes that every object starts with are missing.
    #[error("the body does not start as Kubernetes' protobuf does")]
    NoMagic,
    /// The bytes are no protobuf, or end in the middle.
    #[error("the protobuf of a {0} is broken")]
    Broken(&'static str),
    /// This server knows the kind in JSON only, or not at all.
    #[error("the protobuf of {kind:?} in version {api_version:?} is not known here")]
    UnknownKind {
        /// Group and version as the client says them.
        api_version: String,
        /// The kind.
        kind: String,
    },
    /// Messages are nested deeper than any object is.
    #[error("the protobuf of a {0} is nested too deeply")]
    TooDeep(&'static str),
}

/// What every object starts with.
const MAGIC: &[u8] = b"k8s\0";

/// More than any object is nested; schemas of CRDs do not come in protobuf.
const MAX_DEPTH: usize = 32;

static MESSAGES: LazyLock<HashMap<&'static str, Message>> =
    LazyLock::new(|| parse(include_str!("protobuf/messages.txt")));

/// How a message is called and what it consists of.
#[derive(Debug)]
struct Message {
    name: &'static str,
    fields: HashMap<u32, Field>,
}

#[derive(Debug)]
struct Field {
    /// In JSON; empty for what is part of the object around it.
    name: &'static str,
    /// Whether a zero is something else than nothing.
    optional: bool,
    shape: Shape,
    of: Type,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    One,
    Many,
    /// By text.
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Text,
    Bool,
    Integer,
    Double,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// JSON inside.
    Json,
    /// A list of texts in a message of its own.
    Texts,
    Message(&'static str),
}

/// A value as it is on the wire.
#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads the fields of one message.
struct Reader<'a>(&'a [u8]);

/// The object in `body`, as JSON.
pub fn decode(body: &[u8]) -> Result<Value, Error> {
    let body = body.strip_prefix(MAGIC).ok_or(Error::NoMagic)?;
    let envelope = Fields::of(body, "Unknown")?;
    let kinds = Fields::of(envelope.bytes(1), "TypeMeta")?;
    let (api_version, kind) = (kinds.text(1), kinds.text(2));
    let message = message_of(&api_version, &kind).ok_or_else(|| Error::UnknownKind {
        api_version: api_version.clone(),
        kind: kind.clone(),
    })?;
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    message.read(envelope.bytes(2), 0, &mut object)?;
    Ok(Value::Object(object))
}

/// The message of a kind.
fn message_of(api_version: &str, kind: &str) -> Option<&'static Message> {
    if kind == "DeleteOptions" {
        return MESSAGES.get("meta.DeleteOptions");
    }
    let package = match api_version {
        "v1" => "core",
        "apps/v1" => "apps",
        "batch/v1" => "batch",
        "rbac.authorization.k8s.io/v1" => "rbac",
        "authentication.k8s.io/v1" => "authn",
        "authorization.k8s.io/v1" => "authz",
        "networking.k8s.io/v1" => "net",
        "policy/v1" => "policy",
        "autoscaling/v1" => "as1",
        "autoscaling/v2" => "as2",
        "scheduling.k8s.io/v1" => "sched",
        "coordination.k8s.io/v1" => "coord",
        "discovery.k8s.io/v1" => "disc",
        "events.k8s.io/v1" => "ev",
        _ => return None,
    };
    MESSAGES.get(format!("{package}.{kind}").as_str())
}

// === impl Message ===

impl Message {
    /// Adds the fields of `bytes` to an object. What the table does not know, a newer client means for a
    /// newer server; the real one passes over it too.
    fn read(
        &self,
        bytes: &[u8],
        depth: usize,
        object: &mut Map<String, Value>,
    ) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep(self.name));
        }
        let mut reader = Reader(bytes);
        while let Some((number, wire)) = reader.next().map_err(|Broken| Error::Broken(self.name))? {
            if let Some(field) = self.fields.get(&number) {
                self.read_field(field, wire, depth, object)?;
            }
        }
        Ok(())
    }

    fn read_field(
        &self,
        field: &Field,
        wire: Wire<'_>,
        depth: usize,
        object: &mut Map<String, Value>,
    ) -> Result<(), Error> {
        if field.name.is_empty() {
            let (Type::Message(inner), Wire::Bytes(bytes)) = (field.of, wire) else {
                return Err(Error::Broken(self.name));
            };
            return find(inner)?.read(bytes, depth + 1, object);
        }
        match field.shape {
            Shape::One => {
                let value = self.value(field.of, wire, depth)?;
                if !value.is_null() && (field.optional || !is_zero(&value)) {
                    object.insert(field.name.to_owned(), value);
                }
            }
            Shape::Many => {
                let value = self.value(field.of, wire, depth)?;
                let list = object.entry(field.name).or_insert_with(|| json!([]));
                if let Value::Array(list) = list {
                    list.push(value);
                }
            }
            Shape::Map => {
                let (key, value) = self.entry(field.of, wire, depth)?;
                let map = object.entry(field.name).or_insert_with(|| json!({}));
                if let Value::Object(map) = map {
                    map.insert(key, value);
                }
            }
        }
        Ok(())
    }

    /// An entry of a map is a message: the key is field 1, the value field 2. Zero values may be left out.
    fn entry(&self, of: Type, wire: Wire<'_>, depth: usize) -> Result<(String, Value), Error> {
        let Wire::Bytes(bytes) = wire else {
            return Err(Error::Broken(self.name));
        };
        let fields = Fields::of(bytes, self.name)?;
        let value = match fields.0.get(&2) {
            Some(wire) => self.value(of, *wire, depth)?,
            None => self.value(of, Wire::Bytes(&[]), depth)?,
        };
        Ok((fields.text(1), value))
    }

    fn value(&self, of: Type, wire: Wire<'_>, depth: usize) -> Result<Value, Error> {
        let value = match (of, wire) {
            (Type::Bool, Wire::Number(number)) => Value::Bool(number != 0),
            (Type::Integer, Wire::Number(number)) => number.cast_signed().into(),
            (Type::Double, Wire::Number(number)) => f64::from_bits(number).into(),
            (Type::Text, Wire::Bytes(bytes)) => text(bytes).into(),
            (Type::Bytes, Wire::Bytes(bytes)) => BASE64_STANDARD.encode(bytes).into(),
            (Type::Message(name), Wire::Bytes(bytes)) => {
                let mut inner = Map::new();
                find(name)?.read(bytes, depth + 1, &mut inner)?;
                Value::Object(inner)
            }
            (Type::Texts, Wire::Bytes(bytes)) => texts(bytes, self.name)?,
            (_, Wire::Bytes(bytes)) => self.special(of, &Fields::of(bytes, self.name)?)?,
            (_, Wire::Number(_)) => return Err(Error::Broken(self.name)),
        };
        Ok(value)
    }

    /// The messages that JSON has a shorter form for.
    fn special(&self, of: Type, fields: &Fields<'_>) -> Result<Value, Error> {
        Ok(match of {
            Type::Time | Type::MicroTime => time(of, fields).unwrap_or(Value::Null),
            Type::Quantity => fields.text(1).into(),
            Type::IntOrString if fields.number(1) == 0 => fields.number(2).into(),
            Type::IntOrString => fields.text(3).into(),
            Type::Json => match fields.bytes(1) {
                [] => Value::Null,
                json => serde_json::from_slice(json).map_err(|_json| Error::Broken(self.name))?,
            },
            _ => return Err(Error::Broken(self.name)),
        })
    }
}

/// A message by its name, which a field of the table names.
fn find(name: &'static str) -> Result<&'static Message, Error> {
    MESSAGES.get(name).ok_or(Error::Broken(name))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(value) => value.is_empty(),
        Value::Object(value) => value.is_empty(),
    }
}

/// Seconds and nanoseconds since 1970; both are missing from a time that nobody set.
fn time(of: Type, fields: &Fields<'_>) -> Option<Value> {
    if fields.0.is_empty() {
        return None;
    }
    let nanoseconds = i32::try_from(fields.number(2)).ok()?;
    let time = Timestamp::new(fields.number(1), nanoseconds).ok()?;
    Some(match of {
        Type::MicroTime => time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into(),
        _ => timestamp(time).into(),
    })
}

/// All texts of a message that has nothing else.
fn texts(bytes: &[u8], name: &'static str) -> Result<Value, Error> {
    let mut texts = Vec::new();
    let mut reader = Reader(bytes);
    while let Some((_, wire)) = reader.next().map_err(|Broken| Error::Broken(name))? {
        if let Wire::Bytes(bytes) = wire {
            texts.push(Value::from(text(bytes)));
        }
    }
    Ok(Value::Array(texts))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The fields of a small message, the last of each number.
struct Fields<'a>(HashMap<u32, Wire<'a>>);

// === impl Fields ===

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8], name: &'static str) -> Result<Self, Error> {
        let mut fields = HashMap::new();
        let mut reader = Reader(bytes);
        while let Some((number, wire)) = reader.next().map_err(|Broken| Error::Broken(name))? {
            fields.insert(number, wire);
        }
        Ok(Self(fields))
    }

    fn bytes(&self, number: u32) -> &'a [u8] {
        match self.0.get(&number) {
            Some(Wire::Bytes(bytes)) => bytes,
            _ => &[],
        }
    }

    fn text(&self, number: u32) -> String {
        text(self.bytes(number))
    }

    fn number(&self, number: u32) -> i64 {
        match self.0.get(&number) {
            Some(Wire::Number(value)) => value.cast_signed(),
            _ => 0,
        }
    }
}

/// Not what protobuf looks like.
struct Broken;

// === impl Reader ===

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, Broken> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_large| Broken)?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Number(self.fixed::<8>().map(u64::from_le_bytes)?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_large| Broken)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Number(self.fixed::<4>().map(u32::from_le_bytes)?.into()),
            _ => return Err(Broken),
        };
        Ok(Some((number, wire)))
    }

    fn varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.fixed::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Broken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Broken)?;
        self.0 = rest;
        Ok(*first)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let (first, rest) = self.0.split_at_checked(length).ok_or(Broken)?;
        self.0 = rest;
        Ok(first)
    }
}

/// Reads the table; a test holds every line to its form.
fn parse(table: &'static str) -> HashMap<&'static str, Message> {
    let messages = table.lines().map(|line| {
        let (name, fields) = line.split_once(' ').unwrap_or((line, ""));
        let fields = fields
            .split_ascii_whitespace()
            .filter_map(parse_field)
            .collect();
        (name, Message { name, fields })
    });
    messages.collect()
}

/// One `NUMBER[?]:NAME:TYPE`, where the type may have `*` (a list) or `%` (a map) before it.
fn parse_field(field: &'static str) -> Option<(u32, Field)> {
    let mut parts = field.splitn(3, ':');
    let (number, name, of) = (parts.next()?, parts.next()?, parts.next()?);
    let (number, optional) = match number.strip_suffix('?') {
        Some(number) => (number, true),
        None => (number, false),
    };
    let (shape, of) = match (of.strip_prefix('*'), of.strip_prefix('%')) {
        (Some(of), _) => (Shape::Many, of),
        (_, Some(of)) => (Shape::Map, of),
        (None, None) => (Shape::One, of),
    };
    let of = match of {
        "s" => Type::Text,
        "b" => Type::Bool,
        "i" => Type::Integer,
        "d" => Type::Double,
        "y" => Type::Bytes,
        "T" => Type::Time,
        "M" => Type::MicroTime,
        "q" => Type::Quantity,
        "n" => Type::IntOrString,
        "R" => Type::Json,
        "L" => Type::Texts,
        message => Type::Message(message),
    };
    let field = Field {
        name,
        optional,
        shape,
        of,
    };
    Some((number.parse().ok()?, field))
}
