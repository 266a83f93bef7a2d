//! Version 2 as protobuf: the messages of gnostic's `openapi.v2` package, with the fields that we fill.

use prost::{Message, Oneof};
use serde_json::{Map, Value};

/// Encodes a document whose parts are given as JSON.
pub(super) fn encode(
    info: &Value,
    paths: &Map<String, Value>,
    definitions: &Map<String, Value>,
) -> Vec<u8> {
    let text = |name: &str| text(info, name);
    let document = Document {
        swagger: "2.0".to_owned(),
        info: Some(Info {
            title: text("title"),
            version: text("version"),
        }),
        paths: Some(Paths {
            path: paths
                .iter()
                .map(|(name, item)| NamedPathItem {
                    name: name.clone(),
                    value: Some(PathItem::of(item)),
                })
                .collect(),
        }),
        definitions: Some(Definitions {
            additional_properties: named(definitions),
        }),
    };
    document.encode_to_vec()
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Document {
    #[prost(string, tag = "1")]
    pub(super) swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    pub(super) paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    pub(super) definitions: Option<Definitions>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Paths {
    #[prost(message, repeated, tag = "2")]
    pub(super) path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedPathItem {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PathItem {
    #[prost(message, optional, tag = "2")]
    get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    pub(super) patch: Option<Operation>,
    #[prost(message, repeated, tag = "9")]
    parameters: Vec<ParametersItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Operation {
    #[prost(string, repeated, tag = "7")]
    consumes: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParametersItem>,
    #[prost(message, optional, tag = "9")]
    responses: Option<Responses>,
    #[prost(message, repeated, tag = "13")]
    pub(super) vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(message, optional, tag = "1")]
    body: Option<BodyParameter>,
    #[prost(message, optional, tag = "2")]
    other: Option<NonBodyParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct BodyParameter {
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    place: String,
    #[prost(bool, tag = "4")]
    required: bool,
    #[prost(message, optional, tag = "5")]
    schema: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct NonBodyParameter {
    #[prost(message, optional, tag = "3")]
    query: Option<QueryParameter>,
    #[prost(message, optional, tag = "4")]
    path: Option<PathParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct PathParameter {
    #[prost(bool, tag = "1")]
    required: bool,
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "5")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct Responses {
    #[prost(message, repeated, tag = "1")]
    response_code: Vec<NamedResponse>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedResponse {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<ResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseValue {
    #[prost(message, optional, tag = "1")]
    response: Option<Response>,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(string, tag = "1")]
    description: String,
    #[prost(message, optional, tag = "2")]
    schema: Option<SchemaItem>,
}

#[derive(Clone, PartialEq, Message)]
struct SchemaItem {
    #[prost(message, optional, tag = "1")]
    schema: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Definitions {
    #[prost(message, repeated, tag = "1")]
    pub(super) additional_properties: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedSchema {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Schema {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    format: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(string, repeated, tag = "19")]
    required: Vec<String>,
    #[prost(message, repeated, tag = "20")]
    options: Vec<Any>,
    #[prost(message, optional, boxed, tag = "21")]
    additional_properties: Option<Box<AdditionalProperties>>,
    #[prost(message, optional, tag = "22")]
    kind: Option<TypeItem>,
    #[prost(message, optional, tag = "23")]
    items: Option<ItemsItem>,
    #[prost(message, optional, tag = "25")]
    pub(super) properties: Option<Definitions>,
    #[prost(message, repeated, tag = "31")]
    pub(super) vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct AdditionalProperties {
    #[prost(oneof = "SchemaOrBool", tags = "1, 2")]
    value: Option<SchemaOrBool>,
}

#[derive(Clone, PartialEq, Oneof)]
enum SchemaOrBool {
    #[prost(message, tag = "1")]
    Schema(Box<Schema>),
    #[prost(bool, tag = "2")]
    Bool(bool),
}

#[derive(Clone, PartialEq, Message)]
struct TypeItem {
    #[prost(string, repeated, tag = "1")]
    value: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ItemsItem {
    #[prost(message, repeated, tag = "1")]
    schema: Vec<Schema>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedAny {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<Any>,
}

/// A value as YAML, of which JSON is a part.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "2")]
    pub(super) yaml: String,
}

// === impl PathItem ===

impl PathItem {
    fn of(item: &Value) -> Self {
        let operation = |method: &str| item.get(method).map(Operation::of);
        Self {
            get: operation("get"),
            put: operation("put"),
            post: operation("post"),
            delete: operation("delete"),
            patch: operation("patch"),
            parameters: list(item, "parameters", ParametersItem::of),
        }
    }
}

// === impl Operation ===

impl Operation {
    fn of(operation: &Value) -> Self {
        let responses = operation
            .get("responses")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        let response = |(name, response): (&String, &Value)| {
            let schema = response.get("schema").map(Schema::of);
            let response = Response {
                description: text(response, "description"),
                schema: schema.map(|schema| SchemaItem {
                    schema: Some(schema),
                }),
            };
            NamedResponse {
                name: name.clone(),
                value: Some(ResponseValue {
                    response: Some(response),
                }),
            }
        };
        Self {
            consumes: list(operation, "consumes", string),
            parameters: list(operation, "parameters", ParametersItem::of),
            responses: Some(Responses {
                response_code: responses.map(response).collect(),
            }),
            vendor_extension: extensions(operation),
        }
    }
}

// === impl ParametersItem ===

impl ParametersItem {
    fn of(parameter: &Value) -> Self {
        let (name, place, kind) = (
            text(parameter, "name"),
            text(parameter, "in"),
            text(parameter, "type"),
        );
        let required = parameter.get("required") == Some(&Value::Bool(true));
        let parameter = match place.as_str() {
            "body" => Parameter {
                body: Some(BodyParameter {
                    name,
                    place,
                    required,
                    schema: parameter.get("schema").map(Schema::of),
                }),
                other: None,
            },
            "path" => Parameter {
                body: None,
                other: Some(NonBodyParameter {
                    query: None,
                    path: Some(PathParameter {
                        required,
                        place,
                        name,
                        kind,
                    }),
                }),
            },
            _ => Parameter {
                body: None,
                other: Some(NonBodyParameter {
                    query: Some(QueryParameter {
                        place,
                        description: text(parameter, "description"),
                        name,
                        kind,
                    }),
                    path: None,
                }),
            },
        };
        Self {
            parameter: Some(parameter),
        }
    }
}

// === impl Schema ===

impl Schema {
    fn of(schema: &Value) -> Self {
        let additional = match schema.get("additionalProperties") {
            Some(Value::Bool(flag)) => Some(SchemaOrBool::Bool(*flag)),
            Some(schema) => Some(SchemaOrBool::Schema(Box::new(Self::of(schema)))),
            None => None,
        };
        Self {
            reference: text(schema, "$ref"),
            format: text(schema, "format"),
            description: text(schema, "description"),
            required: list(schema, "required", string),
            options: list(schema, "enum", Any::of),
            additional_properties: additional
                .map(|value| Box::new(AdditionalProperties { value: Some(value) })),
            kind: schema
                .get("type")
                .and_then(Value::as_str)
                .map(|kind| TypeItem {
                    value: vec![kind.to_owned()],
                }),
            items: schema.get("items").map(|items| ItemsItem {
                schema: vec![Self::of(items)],
            }),
            properties: schema
                .get("properties")
                .and_then(Value::as_object)
                .map(|properties| Definitions {
                    additional_properties: named(properties),
                }),
            vendor_extension: extensions(schema),
        }
    }
}

// === impl Any ===

impl Any {
    fn of(value: &Value) -> Self {
        Self {
            yaml: value.to_string(),
        }
    }
}

fn named(schemas: &Map<String, Value>) -> Vec<NamedSchema> {
    let one = |(name, schema): (&String, &Value)| NamedSchema {
        name: name.clone(),
        value: Some(Schema::of(schema)),
    };
    schemas.iter().map(one).collect()
}

fn extensions(value: &Value) -> Vec<NamedAny> {
    let fields = value.as_object().into_iter().flatten();
    let extension = |(name, value): (&String, &Value)| NamedAny {
        name: name.clone(),
        value: Some(Any::of(value)),
    };
    fields
        .filter(|(name, _)| name.starts_with("x-"))
        .map(extension)
        .collect()
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).map_or_else(String::new, string)
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list<T>(value: &Value, name: &str, read: impl Fn(&Value) -> T) -> Vec<T> {
    let items = value
        .get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    items.map(read).collect()
}
