//! What an API server with these CRDs takes, what it refuses, and what it says.

#[path = "schema/rules.rs"]
mod rules;
#[path = "schema/sail.rs"]
mod sail;

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::{Value, json};
use testkit_kube::schema::Schema;

/// The schema of the stored version. Reading one takes long enough to do it once.
fn schema(kind: &str) -> &'static Schema {
    static SCHEMAS: LazyLock<BTreeMap<String, Schema>> = LazyLock::new(schemas);
    &SCHEMAS[kind]
}

fn schemas() -> BTreeMap<String, Schema> {
    let crds = mesh_api::crds().into_iter();
    let schemas = crds.filter_map(|crd| {
        let schema = crd.spec.versions.first()?.schema.as_ref()?;
        let schema = serde_json::to_value(schema.open_api_v3_schema.as_ref()?).ok()?;
        Some((crd.spec.names.kind, Schema::from_openapi(&schema).ok()?))
    });
    schemas.collect()
}

fn object(kind: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "x/v1", "kind": kind, "metadata": { "name": "x", "namespace": "y" }, "spec": spec })
}

/// The fields that are refused, and why.
fn refusals(kind: &str, spec: &Value) -> Vec<String> {
    let mut object = object(kind, spec);
    let schema = schema(kind);
    schema.apply_defaults(&mut object);
    let causes = schema.validate(&object, None).into_iter();
    causes
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect()
}

fn is_taken(kind: &str, spec: &Value) {
    assert_eq!(refusals(kind, spec), Vec::<String>::new(), "{spec}");
    let mut pruned = object(kind, spec);
    assert_eq!(
        schema(kind).prune(&mut pruned),
        Vec::<String>::new(),
        "{spec}"
    );
}

fn is_refused(kind: &str, spec: &Value, field: &str, message: &str) {
    let found = refusals(kind, spec);
    let expected =
        |text: &String| text.starts_with(&format!("{field}: ")) && text.contains(message);
    assert!(
        found.iter().any(expected),
        "{kind} {spec}\nwanted {field}: {message}\ngot {found:#?}"
    );
}

fn from(source: &Value) -> Value {
    json!({ "rules": [{ "from": [{ "source": source }] }] })
}

fn to(operation: &Value) -> Value {
    json!({ "rules": [{ "to": [{ "operation": operation }] }] })
}

#[test]
fn good_authorization_policies_are_taken_whole() {
    for spec in [
        json!({}),
        json!({ "rules": [{}] }),
        json!({ "action": "DENY", "selector": { "matchLabels": { "app": "pay", "x/y": "" } } }),
        json!({ "action": "CUSTOM", "provider": { "name": "opa" }, "rules": [{}] }),
        json!({ "targetRefs": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "w" }] }),
        json!({ "targetRef": { "kind": "Service", "group": "", "name": "pay" } }),
        from(&json!({ "principals": ["*", "td/ns/a/sa/b", "*/sa/b"], "notNamespaces": ["a*"] })),
        from(
            &json!({ "serviceAccounts": ["a/b", "b.c"], "ipBlocks": ["10.0.0.1", "::1/128", "0.0.0.0/0"] }),
        ),
        from(
            &json!({ "requestPrincipals": ["*"], "remoteIpBlocks": ["fe80::/10"], "trustDomains": ["x"] }),
        ),
        to(
            &json!({ "ports": ["1", "80", "65535"], "paths": ["/a*"], "methods": ["GET"], "hosts": ["*.x"] }),
        ),
        json!({ "rules": [{ "when": [
            { "key": "request.headers[x-y]", "values": ["1"] },
            { "key": "request.auth.claims[a][b]", "notValues": ["1"] },
            { "key": "source.ip", "values": ["10.0.0.0/8"], "notValues": ["10.0.0.1"] },
        ]}]}),
    ] {
        is_taken("AuthorizationPolicy", &spec);
    }
}

#[test]
fn bad_authorization_policies_are_refused() {
    let refused = |spec: &Value, field: &str, message: &str| {
        is_refused("AuthorizationPolicy", spec, field, message);
    };
    let target = json!({ "kind": "Service", "name": "pay" });
    let one_of = "set only one of selector and targetRefs";
    refused(
        &json!({ "selector": {}, "targetRefs": [target] }),
        "spec",
        one_of,
    );
    refused(
        &json!({ "action": "ALOW" }),
        "spec.action",
        "supported values: \"ALLOW\"",
    );
    refused(
        &json!({ "action": "CUSTOM" }),
        "spec",
        "provider is needed with action CUSTOM",
    );
    refused(
        &json!({ "provider": { "name": "x" } }),
        "spec",
        "and only then",
    );
    let labels = json!({ "selector": { "matchLabels": { "app": "*" } } });
    refused(&labels, "spec.selector.matchLabels.app", "should match");
    let labels = json!({ "selector": { "matchLabels": { "a*": "b" } } });
    refused(&labels, "spec.selector.matchLabels", "without wildcards");
    let target = json!({ "kind": "Service", "name": "pay", "namespace": "other" });
    refused(
        &json!({ "targetRefs": [target] }),
        "spec.targetRefs[0].namespace",
        "Too long",
    );
    let nothing = json!({ "rules": [{ "from": [] }] });
    refused(
        &nothing,
        "spec.rules[0].from",
        "should have at least 1 items",
    );
    refused(
        &json!({ "rules": [{ "from": [{}] }] }),
        "spec.rules[0].from[0].source",
        "Required value",
    );
    refused(
        &json!({ "rules": [{ "to": [{}] }] }),
        "spec.rules[0].to[0].operation",
        "Required value",
    );
    refused(
        &from(&json!({})),
        "spec.rules[0].from[0].source",
        "should have at least 1 properties",
    );
    let condition = json!({ "rules": [{ "when": [{ "key": "source.ip" }] }] });
    refused(
        &condition,
        "spec.rules[0].when[0]",
        "set values or notValues",
    );
    let condition = json!({ "rules": [{ "when": [{ "key": "source.port", "values": ["1"] }] }] });
    refused(&condition, "spec.rules[0].when[0].key", "should match");
}

#[test]
fn bad_values_of_rules_are_refused_where_they_stand() {
    let refused = |spec: &Value, field: &str, message: &str| {
        is_refused(
            "AuthorizationPolicy",
            spec,
            &format!("spec.rules[0].{field}"),
            message,
        );
    };
    let source = "from[0].source";
    for port in ["0", "65536", "http", "", "08", "-1"] {
        refused(
            &to(&json!({ "ports": ["80", port] })),
            "to[0].operation.ports[1]",
            "should match",
        );
    }
    for block in ["10.0.0.0/33", "10.0.0", "256.1.1.1", "x", "", "::1/129"] {
        refused(
            &from(&json!({ "ipBlocks": [block] })),
            &format!("{source}.ipBlocks[0]"),
            "should match",
        );
    }
    for account in ["a/b/c", "A/b", "*", "/b", ""] {
        let spec = from(&json!({ "notServiceAccounts": [account] }));
        refused(
            &spec,
            &format!("{source}.notServiceAccounts[0]"),
            "should match",
        );
    }
    let spec = from(&json!({ "principals": [""] }));
    refused(
        &spec,
        &format!("{source}.principals[0]"),
        "should be at least 1 chars long",
    );
    let spec = from(&json!({ "principals": [] }));
    refused(
        &spec,
        &format!("{source}.principals"),
        "should have at least 1 items",
    );
    let spec = from(&json!({ "serviceAccounts": ["a"], "notPrincipals": ["*"] }));
    refused(
        &spec,
        source,
        "serviceAccounts cannot stand beside principals or namespaces",
    );
    let spec = from(&json!({ "serviceAccounts": vec!["a"; 17] }));
    refused(
        &spec,
        &format!("{source}.serviceAccounts"),
        "must have at most 16 items",
    );
}

#[test]
fn a_misspelt_field_is_not_kept() {
    let mut spec = object(
        "AuthorizationPolicy",
        &from(&json!({ "principalz": ["a"], "ipBlocks": ["::1"] })),
    );
    let unknown = schema("AuthorizationPolicy").prune(&mut spec);
    assert_eq!(unknown, ["spec.rules[0].from[0].source.principalz"]);
    // Without strict validation it is dropped, and what is left says nothing.
    let mut spec = object(
        "AuthorizationPolicy",
        &from(&json!({ "principalz": ["a"] })),
    );
    let schema = schema("AuthorizationPolicy");
    schema.prune(&mut spec);
    assert_eq!(schema.validate(&spec, None).len(), 1);
}

#[test]
fn peer_authentications_are_checked() {
    let selector = json!({ "matchLabels": { "app": "pay" } });
    for spec in [
        json!({}),
        json!({ "mtls": { "mode": "STRICT" } }),
        json!({ "selector": selector, "portLevelMtls": { "80": { "mode": "DISABLE" }, "65535": {} } }),
    ] {
        is_taken("PeerAuthentication", &spec);
    }
    let refused = |spec: &Value, field: &str, message: &str| {
        is_refused("PeerAuthentication", spec, field, message);
    };
    refused(
        &json!({ "mtls": { "mode": "STRIKT" } }),
        "spec.mtls.mode",
        "supported values",
    );
    for spec in [
        json!({ "portLevelMtls": { "80": {} } }),
        json!({ "selector": {}, "portLevelMtls": { "80": {} } }),
    ] {
        refused(&spec, "spec", "portLevelMtls needs a selector with labels");
    }
    let ports = |port: &str| json!({ "selector": selector, "portLevelMtls": { port: {} } });
    refused(
        &ports("0"),
        "spec.portLevelMtls",
        "a port is a number from 1 to 65535",
    );
    refused(
        &ports("65536"),
        "spec.portLevelMtls",
        "a port is a number from 1 to 65535",
    );
    assert!(!refusals("PeerAuthentication", &ports("http")).is_empty());
}

#[test]
fn good_service_entries_are_taken() {
    let port = json!({ "number": 443, "name": "tls", "protocol": "TLS", "targetPort": 8443 });
    let endpoint = json!({ "address": "10.0.0.1", "ports": { "tls": 8443 }, "locality": "a/b/c", "weight": 3 });
    for spec in [
        json!({ "hosts": ["a.example"] }),
        json!({ "hosts": ["*.example"], "ports": [port], "resolution": "DYNAMIC_DNS", "location": "MESH_EXTERNAL" }),
        json!({ "hosts": ["a"], "resolution": "STATIC", "addresses": ["10.0.0.0/8"], "endpoints": [endpoint] }),
        json!({ "hosts": ["*.b"], "resolution": "DNS", "endpoints": [{ "address": "c.d" }] }),
        json!({ "hosts": ["a"], "workloadSelector": { "labels": { "app": "x" } }, "exportTo": ["."] }),
        json!({ "hosts": ["a"], "resolution": "STATIC", "endpoints": [{ "address": "unix:///a/b" }] }),
        json!({ "hosts": ["a"], "resolution": "STATIC", "endpoints": [{ "network": "n" }], "subjectAltNames": ["x"] }),
    ] {
        is_taken("ServiceEntry", &spec);
    }
}

#[test]
fn bad_service_entries_are_refused() {
    let port = json!({ "number": 443, "name": "tls" });
    let endpoint = json!({ "address": "10.0.0.1" });
    let refused =
        |spec: &Value, field: &str, message: &str| is_refused("ServiceEntry", spec, field, message);
    refused(&json!({}), "spec.hosts", "Required value");
    refused(
        &json!({ "hosts": [] }),
        "spec.hosts",
        "should have at least 1 items",
    );
    refused(&json!({ "hosts": ["*"] }), "spec.hosts[0]", "should match");
    let with = |mut spec: Value, name: &str, value: Value| {
        spec[name] = value;
        spec
    };
    let host = || json!({ "hosts": ["a.example"] });
    let no_endpoints = "resolution NONE takes connections as they are and cannot have endpoints";
    refused(
        &with(host(), "endpoints", json!([endpoint])),
        "spec",
        no_endpoints,
    );
    let both = with(
        with(host(), "endpoints", json!([endpoint])),
        "workloadSelector",
        json!({}),
    );
    refused(
        &both,
        "spec",
        "set only one of workloadSelector and endpoints",
    );
    let prefix = with(
        with(host(), "addresses", json!(["10.0.0.0/8"])),
        "resolution",
        json!("DNS"),
    );
    refused(
        &prefix,
        "spec",
        "addresses may be prefixes with resolution NONE or STATIC only",
    );
    let two = with(
        with(host(), "endpoints", json!([endpoint, endpoint])),
        "resolution",
        json!("DNS_ROUND_ROBIN"),
    );
    refused(
        &two,
        "spec",
        "resolution DNS_ROUND_ROBIN can have one endpoint at most",
    );
    let wildcard = json!({ "hosts": ["*.example"], "resolution": "DNS" });
    refused(&wildcard, "spec", "a wildcard host cannot be resolved");
    let twice = with(
        host(),
        "ports",
        json!([port, { "number": 443, "name": "other" }]),
    );
    refused(&twice, "spec.ports", "a port number can stand here once");
    let named_twice = with(
        host(),
        "ports",
        json!([port, { "number": 444, "name": "tls" }]),
    );
    refused(&named_twice, "spec.ports[1]", "Duplicate value");
    let zero = with(host(), "ports", json!([{ "number": 0, "name": "x" }]));
    refused(
        &zero,
        "spec.ports[0].number",
        "should be greater than or equal to 1",
    );
}

#[test]
fn workload_entries_are_checked() {
    is_taken(
        "WorkloadEntry",
        &json!({ "address": "vm.example", "serviceAccount": "vm", "labels": { "a": "b" } }),
    );
    is_taken("WorkloadEntry", &json!({ "network": "far" }));
    let refused = |spec: &Value, field: &str, message: &str| {
        is_refused("WorkloadEntry", spec, field, message);
    };
    refused(
        &json!({}),
        "spec",
        "set address, or network for one behind a gateway",
    );
    refused(
        &json!({ "address": "unix://a" }),
        "spec.address",
        "a Unix socket is an absolute path",
    );
    refused(
        &json!({ "address": "unix:///a", "ports": { "x": 1 } }),
        "spec",
        "a Unix socket has no ports",
    );
    let port = |name: &str, port: i64| json!({ "address": "a", "ports": { name: port } });
    refused(
        &port("x", 0),
        "spec.ports.x",
        "should be greater than or equal to 1",
    );
    refused(
        &port("x", 65536),
        "spec.ports.x",
        "should be less than or equal to 65535",
    );
    refused(
        &port("-x", 1),
        "spec.ports",
        "the name of a port has letters, digits",
    );
    refused(
        &json!({ "address": "a", "weight": -1 }),
        "spec.weight",
        "greater than or equal to 0",
    );
}
