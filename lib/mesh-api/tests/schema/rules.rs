//! Every rule of every CRD, broken once: a rule that nothing breaks may as well not be there.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testkit_kube::schema::Schema;

/// An object that breaks one rule.
struct Breach {
    kind: &'static str,
    name: &'static str,
    spec: Value,
    /// What it was before, if that matters.
    old: Option<Value>,
}

/// A rule of one version: where it stands, and what it says.
type Rule = (String, String);

fn breach(kind: &'static str, spec: Value) -> Breach {
    Breach {
        kind,
        name: "default",
        spec,
        old: None,
    }
}

/// Breaches of the rules of Istio's kinds. A list has one element where a rule is broken, and a map one of the
/// name `n`.
fn of_istios_kinds() -> Vec<Breach> {
    let policy = |spec| breach("AuthorizationPolicy", spec);
    let peers = |spec| breach("PeerAuthentication", spec);
    let workload = |spec| breach("WorkloadEntry", spec);
    let service = |spec: Value| {
        let mut spec = spec;
        if spec["hosts"].is_null() {
            spec["hosts"] = json!(["a.example"]);
        }
        breach("ServiceEntry", spec)
    };
    let with_endpoint =
        |endpoint: Value| service(json!({"resolution": "STATIC", "endpoints": [endpoint]}));
    let source = json!({"serviceAccounts": ["a"], "namespaces": ["b"]});
    let ends = json!([{"address": "10.0.0.1"}, {"address": "10.0.0.2"}]);
    let ports = json!([{"number": 1, "name": "a"}, {"number": 1, "name": "b"}]);
    let labels = json!({"*": "a"});
    vec![
        policy(json!({"selector": {}, "targetRef": {"kind": "Service", "name": "a"}})),
        policy(json!({"action": "CUSTOM"})),
        policy(json!({"rules": [{"from": [{"source": source}]}]})),
        policy(json!({"rules": [{"when": [{"key": "source.ip"}]}]})),
        policy(json!({"selector": {"matchLabels": labels}})),
        peers(json!({"portLevelMtls": {"80": {}}})),
        peers(json!({"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"0": {}}})),
        peers(json!({"selector": {"matchLabels": labels}})),
        service(json!({"resolution": "STATIC", "endpoints": [], "workloadSelector": {}})),
        service(json!({"endpoints": [{"address": "10.0.0.1"}]})),
        service(json!({"resolution": "DNS", "addresses": ["10.0.0.0/8"]})),
        service(json!({"resolution": "DNS_ROUND_ROBIN", "endpoints": ends})),
        service(json!({"resolution": "DNS", "hosts": ["*.example"]})),
        service(json!({"ports": ports})),
        service(json!({"workloadSelector": {"labels": labels}})),
        with_endpoint(json!({})),
        with_endpoint(json!({"address": "unix:///a", "ports": {"a": 1}})),
        with_endpoint(json!({"address": "unix://a"})),
        with_endpoint(json!({"address": "10.0.0.1", "ports": {"-": 1}})),
        workload(json!({})),
        workload(json!({"address": "unix:///a", "ports": {"a": 1}})),
        workload(json!({"address": "unix://a"})),
        workload(json!({"address": "10.0.0.1", "ports": {"-": 1}})),
    ]
}

/// A whole spec of one of the operator's kinds.
fn complete(kind: &str) -> Value {
    let mut spec = json!({"version": "v1.30.3", "namespace": "one", "values": {}});
    if kind == "IstioRevision" {
        spec["values"] = json!({"global": {"istioNamespace": "one"}});
    }
    spec
}

/// Breaches of the rules of the operator's kinds, in the same way.
fn of_the_operators_kinds() -> Vec<Breach> {
    let mut breaches = Vec::new();
    for kind in ["Istio", "IstioRevision", "IstioCNI", "ZTunnel"] {
        let changed = |path: &str, value: Value| {
            let mut spec = complete(kind);
            let values = &mut spec["values"];
            let place = path.split('.').fold(values, |at, name| &mut at[name]);
            *place = value;
            breach(kind, spec)
        };
        let mut moved = complete(kind);
        moved["namespace"] = "two".into();
        if kind == "IstioRevision" {
            moved["values"]["global"]["istioNamespace"] = "two".into();
        }
        breaches.push(Breach {
            old: Some(complete(kind)),
            ..breach(kind, moved)
        });
        let ends = json!([{"fromCidr": "10.0.0.0/8", "fromRegistry": "a"}]);
        breaches.push(changed("global.meshNetworks.n.endpoints", ends));
        let gateways = json!([{"registryServiceName": "a", "address": "b", "port": 1}]);
        breaches.push(changed("global.meshNetworks.n.gateways", gateways));
        if matches!(kind, "IstioCNI" | "ZTunnel") {
            breaches.push(Breach {
                name: "other",
                ..breach(kind, complete(kind))
            });
            continue;
        }
        breaches.push(changed("global.istioNamespace", "two".into()));
        let roots = json!([{"pem": "a", "spiffeBundleUrl": "b"}]);
        breaches.push(changed("meshConfig.caCertificates", roots));
        let proxy = json!({"serviceCluster": "a", "tracingServiceName": "CANONICAL_NAME_ONLY"});
        breaches.push(changed("meshConfig.defaultConfig", proxy));
    }
    breaches.push(Breach {
        name: "canary",
        ..breach("IstioRevision", complete("IstioRevision"))
    });
    breaches
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    let metadata = json!({"name": name, "namespace": "x"});
    json!({"apiVersion": "x/v1", "kind": kind, "metadata": metadata, "spec": spec})
}

/// The rules within a schema, with their places in an object.
fn rules(schema: &Value, place: &str, found: &mut BTreeSet<Rule>) {
    let here = schema["x-kubernetes-validations"].as_array();
    for rule in here.into_iter().flatten() {
        let message = rule["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "{place}: {rule} says nothing");
        found.insert((place.to_owned(), message.to_owned()));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let dot = if place.is_empty() { "" } else { "." };
        rules(property, &format!("{place}{dot}{name}"), found);
    }
    for (inner, name) in [("items", "[0]"), ("additionalProperties", ".n")] {
        if schema[inner].is_object() {
            rules(&schema[inner], &format!("{place}{name}"), found);
        }
    }
}

/// What a breach breaks, in the form of rules.
fn broken(breach: &Breach, schema: &Schema) -> Vec<Rule> {
    let stored = |spec| {
        let mut object = object(breach.kind, breach.name, spec);
        schema.apply_defaults(&mut object);
        object
    };
    let old = breach.old.as_ref().map(stored);
    let causes = schema.validate(&stored(&breach.spec), old.as_ref());
    let broken = causes.into_iter().map(|cause| {
        // The value stands before the message.
        let (_, message) = cause.message.rsplit_once("\": ").unwrap_or_default();
        (cause.field, message.to_owned())
    });
    broken.collect()
}

#[test]
fn every_rule_is_broken_by_something() {
    let mut breaches = of_istios_kinds();
    breaches.extend(of_the_operators_kinds());
    for crd in mesh_api::crds().into_iter().chain(mesh_api::sail::crds()) {
        let kind = crd.spec.names.kind;
        for version in crd.spec.versions {
            let schema = version.schema.unwrap().open_api_v3_schema.unwrap();
            let schema = serde_json::to_value(schema).unwrap();
            let mut unbroken = BTreeSet::new();
            rules(&schema, "", &mut unbroken);
            let schema = Schema::from_openapi(&schema).unwrap();
            for breach in breaches.iter().filter(|breach| breach.kind == kind) {
                let broken = broken(breach, &schema);
                assert_eq!(broken.len(), 1, "{kind} {}: {broken:?}", breach.spec);
                let rule = &broken[0];
                assert!(unbroken.remove(rule), "{kind} {}: {rule:?}", breach.spec);
            }
            let none = BTreeSet::new();
            assert_eq!(
                unbroken, none,
                "{kind} {}: nothing breaks these",
                version.name
            );
        }
    }
}
