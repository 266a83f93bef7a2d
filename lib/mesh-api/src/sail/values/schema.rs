//! Parts of the schema of values that their types do not say by themselves.
//!
//! Lists and maps are bounded: the API server estimates the cost of rules for the longest ones.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::schema::rule;

/// More of anything than a mesh can use.
const MANY: usize = 256;

/// A text; a whole number is taken for one. A fraction is not: YAML has lost the zero of `1.30`.
pub(super) fn text_or_number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 1024 })
}

/// A whole number, or a text.
pub(super) fn number_or_text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 64 })
}

/// A number of something.
pub(super) fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 0 })
}

/// Texts by name.
pub(super) fn texts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": MANY,
        "additionalProperties": { "x-kubernetes-int-or-string": true },
    })
}

/// Names of something.
pub(super) fn names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MANY,
        "items": { "type": "string", "minLength": 1, "maxLength": 253 },
    })
}

/// Arguments of a program.
pub(super) fn arguments(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": MANY, "items": { "type": "string" } })
}

/// A type of Kubernetes.
pub(super) fn open_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// A list of a type of Kubernetes. The items may be texts in some.
pub(super) fn open_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MANY,
        "items": { "x-kubernetes-preserve-unknown-fields": true },
    })
}

/// IP families of a service.
pub(super) fn ip_families(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 2,
        "items": { "type": "string", "enum": ["IPv4", "IPv6"] },
    })
}

/// How many IP families a service has.
pub(super) fn ip_family_policy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "enum": ["SingleStack", "PreferDualStack", "RequireDualStack"],
    })
}

/// Networks of the mesh.
pub(super) fn mesh_networks(_: &mut SchemaGenerator) -> Schema {
    let entries = |fields: &[&str; 2]| {
        let text = || text("");
        let mut entry = open(&json!({ fields[0]: text(), fields[1]: text() }));
        entry["x-kubernetes-validations"] = json!([at_most_one_of(fields)]);
        json!({ "type": "array", "maxItems": 64, "items": entry })
    };
    let network = open(&json!({
        "endpoints": entries(&["fromCidr", "fromRegistry"]),
        "gateways": entries(&["registryServiceName", "address"]),
    }));
    json_schema!({ "type": "object", "maxProperties": 64, "additionalProperties": network })
}

/// The mesh configuration: what an ambient mesh reads of it, and the words that some of the rest takes.
pub(super) fn mesh_config(_: &mut SchemaGenerator) -> Schema {
    let mode = |modes: &[&str]| {
        part(
            "Of proxies.",
            &json!({ "mode": choice("The mode.", modes) }),
        )
    };
    let tls = || {
        let oldest = choice("The oldest version of TLS.", TLS);
        part("TLS of proxies.", &json!({ "minProtocolVersion": oldest }))
    };
    let paths = choice("How paths are compared.", PATHS);
    let mut schema = open(&json!({
        "trustDomain": trust_domain("The trust domain of the mesh's identities."),
        "trustDomainAliases": list("Trust domains that are taken for it.", &trust_domain("")),
        "rootNamespace": { "type": "string", "maxLength": 63, "description": "The namespace whose policies concern all of the mesh." },
        "discoverySelectors": list("The namespaces that the mesh has: those that any of these selects, all if there are none.", &selector()),
        "caCertificates": list("Further roots to trust.", &ca_certificate()),
        "serviceScopeConfigs": list("Which services other clusters see; the first that fits decides.", &service_scope()),
        "serviceEntryVisibility": service_entry_visibility(),
        "defaultConfig": proxy_config(),
        "accessLogEncoding": choice("Of proxies.", &["TEXT", "JSON"]),
        "h2UpgradePolicy": choice("Of proxies.", &["DO_NOT_UPGRADE", "UPGRADE"]),
        "ingressControllerMode": choice("Of gateways.", &["UNSPECIFIED", "OFF", "DEFAULT", "STRICT"]),
        "inboundTrafficPolicy": mode(&["PASSTHROUGH", "LOCALHOST"]),
        "outboundTrafficPolicy": mode(&["REGISTRY_ONLY", "ALLOW_ANY", "ALLOW_ANY_DYNAMIC_DNS"]),
        "pathNormalization": part("Of waypoints.", &json!({ "normalization": paths })),
        "tlsDefaults": tls(),
        "meshMTLS": tls(),
    }));
    schema["description"] = json!("The mesh configuration: key `mesh` of the ConfigMap `istio`.");
    Schema::try_from(schema).unwrap_or_default()
}

const TLS: &[&str] = &["TLS_AUTO", "TLSV1_2", "TLSV1_3"];
const PATHS: &[&str] = &[
    "DEFAULT",
    "NONE",
    "BASE",
    "MERGE_SLASHES",
    "DECODE_AND_MERGE_SLASHES",
];
const VISIBILITY: &[&str] = &["VISIBILITY_UNSPECIFIED", "NONE", "NAMESPACE", "PUBLIC"];
const TRACING_NAMES: &[&str] = &[
    "APP_LABEL_AND_NAMESPACE",
    "CANONICAL_NAME_ONLY",
    "CANONICAL_NAME_AND_NAMESPACE",
];

fn ca_certificate() -> Value {
    let mut schema = open(&json!({
        "pem": { "type": "string", "maxLength": 1_048_576, "description": "The certificates in PEM." },
        "spiffeBundleUrl": text("Not supported: give the certificates as `pem`."),
        "certSigners": list("Not supported.", &text("")),
        "trustDomains": list("The trust domains they are for; the mesh's if there are none.", &trust_domain("")),
    }));
    schema["x-kubernetes-validations"] = json!([at_most_one_of(&["pem", "spiffeBundleUrl"])]);
    schema
}

fn service_scope() -> Value {
    open(&json!({
        "servicesSelector": selector(),
        "namespaceSelector": selector(),
        "scope": choice("Whether they are seen by this cluster or by all.", &["LOCAL", "GLOBAL"]),
    }))
}

fn service_entry_visibility() -> Value {
    let visibility = || choice("How far ServiceEntries are seen.", VISIBILITY);
    let rule = open(&json!({ "namespaceSelector": selector() }));
    let policy = open(&json!({
        "visibility": visibility(),
        "matchingRules": list("Rules that must all fit the namespace.", &rule),
    }));
    part(
        "How far ServiceEntries are seen.",
        &json!({
            "defaultVisibility": visibility(),
            "policies": list("The first that fits decides.", &policy),
        }),
    )
}

fn proxy_config() -> Value {
    let mut schema = part(
        "Settings of proxies.",
        &json!({
            "discoveryAddress": text("Where proxies find the control plane, `host:port`."),
            "proxyMetadata": {
                "type": "object",
                "description": "Environment variables of proxies, ztunnel included.",
                "maxProperties": MANY,
                "additionalProperties": { "type": "string" },
            },
            "interceptionMode": choice("Of sidecars.", &["REDIRECT", "TPROXY", "NONE"]),
            "controlPlaneAuthPolicy": choice("Of sidecars.", &["NONE", "MUTUAL_TLS", "INHERIT"]),
            "serviceCluster": text("Of sidecars."),
            "tracingServiceName": choice("Of sidecars.", TRACING_NAMES),
        }),
    );
    schema["x-kubernetes-validations"] =
        json!([at_most_one_of(&["serviceCluster", "tracingServiceName"])]);
    schema
}

/// A label selector of Kubernetes.
fn selector() -> Value {
    let operators = ["In", "NotIn", "Exists", "DoesNotExist"];
    let expression = json!({
        "type": "object",
        "required": ["key", "operator"],
        "properties": {
            "key": { "type": "string", "maxLength": 317 },
            "operator": { "type": "string", "enum": operators },
            "values": { "type": "array", "maxItems": MANY, "items": { "type": "string", "maxLength": 63 } },
        },
    });
    json!({
        "type": "object",
        "properties": {
            "matchLabels": { "type": "object", "maxProperties": MANY, "additionalProperties": { "type": "string", "maxLength": 63 } },
            "matchExpressions": { "type": "array", "maxItems": 64, "items": expression },
        },
    })
}

fn trust_domain(description: &str) -> Value {
    json!({ "type": "string", "maxLength": 255, "pattern": "^[A-Za-z0-9._-]*$", "description": description })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "maxLength": 1024, "description": description })
}

fn choice(description: &str, words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words, "description": description })
}

fn list(description: &str, item: &Value) -> Value {
    json!({ "type": "array", "maxItems": 64, "items": item, "description": description })
}

/// An object with these and other fields, explained.
fn part(description: &str, properties: &Value) -> Value {
    let mut schema = open(properties);
    schema["description"] = json!(description);
    schema
}

/// An object with these and other fields.
fn open(properties: &Value) -> Value {
    json!({ "type": "object", "properties": properties, "x-kubernetes-preserve-unknown-fields": true })
}

/// At most one of some fields, in the words of the Sail operator.
fn at_most_one_of(fields: &[&str; 2]) -> Value {
    let [one, other] = fields;
    rule(
        &format!("!has(self.{one}) || !has(self.{other})"),
        &format!("At most one of [{one} {other}] should be set"),
    )
}
