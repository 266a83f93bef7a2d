//! The operator's resources: the messages are those that a user sees.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::{Value, json};
use testkit_kube::schema::Schema;

/// The schemas by kind and version.
fn schema(kind: &str, version: &str) -> &'static Schema {
    static SCHEMAS: LazyLock<BTreeMap<(String, String), Schema>> = LazyLock::new(schemas);
    &SCHEMAS[&(kind.to_owned(), version.to_owned())]
}

fn schemas() -> BTreeMap<(String, String), Schema> {
    let mut schemas = BTreeMap::new();
    for crd in mesh_api::sail::crds() {
        for version in crd.spec.versions {
            let schema = version.schema.unwrap().open_api_v3_schema.unwrap();
            let schema = Schema::from_openapi(&serde_json::to_value(schema).unwrap()).unwrap();
            schemas.insert((crd.spec.names.kind.clone(), version.name), schema);
        }
    }
    schemas
}

fn object(kind: &str, version: &str, name: &str, spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": format!("sailoperator.io/{version}"), "kind": kind, "metadata": { "name": name },
    });
    if !spec.is_null() {
        object["spec"] = spec.clone();
    }
    object
}

/// What is stored, and the complaints.
fn admit(kind: &str, name: &str, spec: &Value, old: Option<&Value>) -> (Value, Vec<String>) {
    let schema = schema(kind, "v1");
    let mut object = object(kind, "v1", name, spec);
    let pruned = schema.prune(&mut object);
    schema.apply_defaults(&mut object);
    let causes = schema.validate(&object, old).into_iter();
    let mut complaints: Vec<_> = causes
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    complaints.extend(pruned.into_iter().map(|path| format!("{path}: unknown")));
    (object, complaints)
}

#[track_caller]
fn is_taken(kind: &str, name: &str, spec: &Value) -> Value {
    let (stored, complaints) = admit(kind, name, spec, None);
    assert_eq!(complaints, Vec::<String>::new(), "{kind} {spec}");
    stored
}

#[track_caller]
fn is_refused(kind: &str, name: &str, spec: &Value, field: &str, message: &str) {
    let (_, complaints) = admit(kind, name, spec, None);
    has_complaint(&complaints, field, message);
}

#[track_caller]
fn has_complaint(complaints: &[String], field: &str, message: &str) {
    let expected =
        |text: &String| text.starts_with(&format!("{field}: ")) && text.contains(message);
    assert!(
        complaints.iter().any(expected),
        "wanted {field}: {message}\ngot {complaints:#?}"
    );
}

/// A spec of the kind that is complete.
fn spec(kind: &str, namespace: &str) -> Value {
    json!({ "version": "v1.30.3", "namespace": namespace, "values": values_for(kind, namespace) })
}

fn values_for(kind: &str, namespace: &str) -> Value {
    match kind {
        "IstioRevision" => json!({ "global": { "istioNamespace": namespace } }),
        _ => json!({}),
    }
}

#[test]
fn a_resource_without_a_spec_or_with_an_empty_one_is_a_default_mesh() {
    let specs = |kind| {
        let [absent, empty] =
            [Value::Null, json!({})].map(|spec| is_taken(kind, "default", &spec)["spec"].take());
        assert_eq!(absent, empty, "{kind}");
        absent
    };
    let in_place = json!({ "type": "InPlace" });
    let version = "v1.30.3";
    assert_eq!(
        specs("Istio"),
        json!({ "version": version, "namespace": "istio-system", "updateStrategy": in_place })
    );
    assert_eq!(
        specs("IstioCNI"),
        json!({ "version": version, "namespace": "istio-cni" })
    );
    assert_eq!(
        specs("ZTunnel"),
        json!({ "version": version, "namespace": "ztunnel" })
    );
    let empty = is_taken("Istio", "a", &json!({ "updateStrategy": {} }));
    assert_eq!(empty["spec"]["updateStrategy"], in_place);
}

#[test]
fn what_has_no_default_is_required() {
    is_refused(
        "IstioRevision",
        "default",
        &Value::Null,
        "spec",
        "Required value",
    );
    is_refused(
        "IstioRevision",
        "default",
        &json!({ "namespace": "a" }),
        "spec.version",
        "Required value",
    );
    is_refused(
        "IstioRevision",
        "default",
        &json!({ "version": "v1.30.3" }),
        "spec.namespace",
        "Required value",
    );
    is_refused(
        "IstioRevisionTag",
        "a",
        &Value::Null,
        "spec",
        "Required value",
    );
    is_refused(
        "IstioRevisionTag",
        "a",
        &json!({}),
        "spec.targetRef",
        "Required value",
    );
    let target = json!({ "targetRef": { "kind": "Istio" } });
    is_refused(
        "IstioRevisionTag",
        "a",
        &target,
        "spec.targetRef.name",
        "Required value",
    );
    is_refused(
        "ZTunnel",
        "default",
        &target,
        "spec.targetRef.name",
        "Required value",
    );
}

#[test]
fn there_is_one_istiocni_and_one_ztunnel() {
    for kind in ["IstioCNI", "ZTunnel"] {
        is_refused(
            kind,
            "mine",
            &json!({}),
            "",
            "metadata.name must be 'default'",
        );
        is_taken(kind, "default", &json!({}));
    }
    is_taken("Istio", "mine", &json!({}));
}

#[test]
fn a_namespace_cannot_be_changed() {
    for kind in ["Istio", "IstioRevision", "IstioCNI", "ZTunnel"] {
        let old = is_taken(kind, "default", &spec(kind, "one"));
        let (_, complaints) = admit(kind, "default", &spec(kind, "other"), Some(&old));
        has_complaint(&complaints, "spec.namespace", "Value is immutable");
        let mut newer = spec(kind, "one");
        newer["version"] = json!("v1.30.2");
        assert_eq!(
            admit(kind, "default", &newer, Some(&old)).1,
            Vec::<String>::new(),
            "{kind}"
        );
        is_refused(
            kind,
            "default",
            &spec(kind, "No_Name"),
            "spec.namespace",
            "should match",
        );
    }
}

#[test]
fn a_version_is_one_that_there_is() {
    let with = |kind, version: &str| {
        let mut spec = spec(kind, "one");
        spec["version"] = json!(version);
        spec
    };
    for kind in ["Istio", "IstioCNI", "ZTunnel"] {
        for version in ["v1.24.0", "v1.30-latest", "master"] {
            is_taken(kind, "default", &with(kind, version));
        }
        is_refused(
            kind,
            "default",
            &with(kind, "v9.9.9"),
            "spec.version",
            "Unsupported value: \"v9.9.9\"",
        );
        is_refused(
            kind,
            "default",
            &with(kind, "1.30.3"),
            "spec.version",
            "supported values",
        );
    }
    // What is end-of-life is stored, and refused by the operator.
    is_taken("Istio", "default", &with("Istio", "v1.23.6"));
    is_refused(
        "ZTunnel",
        "default",
        &with("ZTunnel", "v1.23.6"),
        "spec.version",
        "Unsupported value",
    );
    let revision = with("IstioRevision", "v1.30-latest");
    is_refused(
        "IstioRevision",
        "default",
        &revision,
        "spec.version",
        "Unsupported value",
    );
}

#[test]
fn words_are_those_that_there_are() {
    let refused =
        |kind, spec: &Value, field| is_refused(kind, "default", spec, field, "Unsupported value");
    refused("Istio", &json!({ "profile": "ambiant" }), "spec.profile");
    refused("IstioCNI", &json!({ "profile": "x" }), "spec.profile");
    refused(
        "Istio",
        &json!({ "updateStrategy": { "type": "Canary" } }),
        "spec.updateStrategy.type",
    );
    let target = json!({ "targetRef": { "kind": "Deployment", "name": "a" } });
    refused("IstioRevisionTag", &target, "spec.targetRef.kind");
    refused("ZTunnel", &target, "spec.targetRef.kind");
    let grace = json!({ "updateStrategy": { "inactiveRevisionDeletionGracePeriodSeconds": -1 } });
    let field = "spec.updateStrategy.inactiveRevisionDeletionGracePeriodSeconds";
    is_refused(
        "Istio",
        "a",
        &grace,
        field,
        "should be greater than or equal to 0",
    );
    let unnamed = json!({ "targetRef": { "kind": "Istio", "name": "" } });
    is_refused(
        "IstioRevisionTag",
        "a",
        &unnamed,
        "spec.targetRef.name",
        "should be at least 1 chars long",
    );
}

#[test]
fn the_namespace_in_the_values_is_that_of_the_spec() {
    let message = "spec.values.global.istioNamespace must match spec.namespace";
    let with = |namespace: &str| json!({ "version": "v1.30.3", "namespace": "one", "values": { "global": { "istioNamespace": namespace } } });
    for kind in ["Istio", "IstioRevision"] {
        is_refused(kind, "default", &with("other"), "spec", message);
        is_taken(kind, "default", &with("one"));
    }
    let without = json!({ "version": "v1.30.3", "namespace": "one" });
    is_refused("IstioRevision", "default", &without, "spec", message);
    is_taken("Istio", "default", &without);
}

#[test]
fn the_revision_in_the_values_is_the_name() {
    let message =
        "spec.values.revision must match metadata.name or be empty when the name is 'default'";
    let with = |revision: Value| {
        let mut spec = spec("IstioRevision", "one");
        spec["values"]["revision"] = revision;
        spec
    };
    is_taken("IstioRevision", "default", &with(json!("")));
    is_taken("IstioRevision", "canary", &with(json!("canary")));
    is_refused(
        "IstioRevision",
        "default",
        &with(json!("default")),
        "",
        message,
    );
    is_refused(
        "IstioRevision",
        "canary",
        &with(json!("other")),
        "",
        message,
    );
    is_refused(
        "IstioRevision",
        "canary",
        &spec("IstioRevision", "one"),
        "",
        message,
    );
}

#[test]
fn values_that_are_not_known_are_kept() {
    let values = json!({
        "pilot": { "replicas": 3, "resources": { "limits": { "cpu": 1 } }, "tolerations": [{ "operator": "Exists" }] },
        "meshConfig": { "accessLogFile": "/dev/stdout", "newThing": { "a": [1] }, "defaultConfig": { "x": 1 } },
        "gateways": { "a": { "b": true } },
        "global": { "multiCluster": { "more": 1 }, "waypoint": { "resources": {} } },
    });
    for kind in ["Istio", "IstioCNI", "ZTunnel"] {
        assert_eq!(
            is_taken(kind, "default", &json!({ "values": values }))["spec"]["values"],
            values
        );
    }
}

#[track_caller]
fn values_are_refused(kind: &str, values: &Value, field: &str, message: &str) {
    let field = format!("spec.values.{field}");
    is_refused(
        kind,
        "default",
        &json!({ "values": values }),
        &field,
        message,
    );
}

#[test]
fn values_of_the_control_plane_are_checked() {
    let cases = [
        (
            json!({ "pilot": { "replicaCount": -1 } }),
            "pilot.replicaCount",
            "greater than or equal to 0",
        ),
        (
            json!({ "pilot": { "replicaCount": "2" } }),
            "pilot.replicaCount",
            "must be of type integer",
        ),
        (
            json!({ "pilot": { "autoscaleEnabled": "yes" } }),
            "pilot.autoscaleEnabled",
            "must be of type boolean",
        ),
        (
            json!({ "pilot": { "env": { "A": true } } }),
            "pilot.env.A",
            "must be of type",
        ),
        (
            json!({ "pilot": { "ipFamilies": ["IPv5"] } }),
            "pilot.ipFamilies[0]",
            "Unsupported value",
        ),
        (
            json!({ "pilot": { "ipFamilyPolicy": "Dual" } }),
            "pilot.ipFamilyPolicy",
            "Unsupported value",
        ),
        (
            json!({ "pilot": { "tolerations": {} } }),
            "pilot.tolerations",
            "must be of type array",
        ),
        (
            json!({ "global": { "tag": 1.30 } }),
            "global.tag",
            "must be of type",
        ),
        (
            json!({ "global": { "imagePullPolicy": "always" } }),
            "global.imagePullPolicy",
            "Unsupported value",
        ),
        (
            json!({ "global": { "distribution": "x" } }),
            "global.distribution",
            "\"lateen\", \"istio\"",
        ),
        (
            json!({ "global": { "resourceScope": "pod" } }),
            "global.resourceScope",
            "Unsupported value",
        ),
    ];
    for (values, field, message) in cases {
        values_are_refused("Istio", &values, field, message);
    }
    for values in [
        json!({ "global": { "tag": "1.30.3" }, "pilot": { "env": { "A": 1, "B": "true" }, "tag": 130 } }),
        json!({ "pilot": { "rollingMaxSurge": "50%", "rollingMaxUnavailable": 1 } }),
    ] {
        is_taken("Istio", "default", &json!({ "values": values }));
    }
}

#[test]
fn values_of_the_node_agents_are_checked() {
    let cni = |values, field, message| values_are_refused("IstioCNI", &values, field, message);
    let excluded = json!({ "cni": { "excludeNamespaces": [""] } });
    cni(excluded, "cni.excludeNamespaces[0]", "at least 1 chars");
    cni(
        json!({ "cni": { "pullPolicy": "x" } }),
        "cni.pullPolicy",
        "Unsupported value",
    );
    let ztunnel = |values, field, message| values_are_refused("ZTunnel", &values, field, message);
    let policy = json!({ "ztunnel": { "imagePullPolicy": "x" } });
    ztunnel(policy, "ztunnel.imagePullPolicy", "Unsupported value");
    let grace = json!({ "ztunnel": { "terminationGracePeriodSeconds": -1 } });
    ztunnel(
        grace,
        "ztunnel.terminationGracePeriodSeconds",
        "greater than or equal to 0",
    );
}

#[test]
fn the_mesh_configuration_is_checked_where_it_is_read() {
    let refused = |config: Value, field: &str, message| {
        let spec = json!({ "values": { "meshConfig": config } });
        is_refused(
            "Istio",
            "a",
            &spec,
            &format!("spec.values.meshConfig.{field}"),
            message,
        );
    };
    refused(
        json!({ "trustDomain": "a b" }),
        "trustDomain",
        "should match",
    );
    refused(
        json!({ "discoverySelectors": {} }),
        "discoverySelectors",
        "must be of type array",
    );
    let selector = json!({ "discoverySelectors": [{ "matchExpressions": [{ "key": "a", "operator": "Is" }] }] });
    refused(
        selector,
        "discoverySelectors[0].matchExpressions[0].operator",
        "Unsupported value",
    );
    let root = json!({ "caCertificates": [{ "pem": "x", "spiffeBundleUrl": "y" }] });
    refused(
        root,
        "caCertificates[0]",
        "At most one of [pem spiffeBundleUrl] should be set",
    );
    let proxy = json!({ "defaultConfig": { "serviceCluster": "a", "tracingServiceName": "CANONICAL_NAME_ONLY" } });
    refused(
        proxy,
        "defaultConfig",
        "At most one of [serviceCluster tracingServiceName] should be set",
    );
    refused(
        json!({ "serviceScopeConfigs": [{ "scope": "MESH" }] }),
        "serviceScopeConfigs[0].scope",
        "Unsupported value",
    );
    let visibility = json!({ "serviceEntryVisibility": { "defaultVisibility": "x" } });
    refused(
        visibility,
        "serviceEntryVisibility.defaultVisibility",
        "Unsupported value",
    );
    refused(
        json!({ "tlsDefaults": { "minProtocolVersion": "TLSV1_1" } }),
        "tlsDefaults.minProtocolVersion",
        "Unsupported value",
    );
    refused(
        json!({ "outboundTrafficPolicy": { "mode": "x" } }),
        "outboundTrafficPolicy.mode",
        "Unsupported value",
    );
}

#[test]
fn networks_are_entered_in_one_way_each() {
    let networks = |part: &str, entry: Value| json!({ "values": { "global": { "meshNetworks": { "n": { part: [entry] } } } } });
    let refused = |part: &str, entry: Value, message| {
        let field = format!("spec.values.global.meshNetworks.n.{part}[0]");
        is_refused("Istio", "a", &networks(part, entry), &field, message);
    };
    let both = json!({ "fromCidr": "10.0.0.0/8", "fromRegistry": "a" });
    refused(
        "endpoints",
        both,
        "At most one of [fromCidr fromRegistry] should be set",
    );
    let both = json!({ "registryServiceName": "a", "address": "b", "port": 15443 });
    refused(
        "gateways",
        both,
        "At most one of [registryServiceName address] should be set",
    );
    is_taken(
        "Istio",
        "a",
        &networks("gateways", json!({ "address": "b", "port": 15443 })),
    );
}

#[test]
fn a_ztunnel_of_v1alpha1_has_its_profile_and_keeps_it_in_v1() {
    let older = schema("ZTunnel", "v1alpha1");
    let mut object = object("ZTunnel", "v1alpha1", "default", &Value::Null);
    older.apply_defaults(&mut object);
    assert_eq!(
        object["spec"],
        json!({ "version": "v1.30.3", "namespace": "ztunnel", "profile": "ambient" })
    );
    object["spec"]["targetRef"] = json!({ "kind": "Istio", "name": "default" });
    assert_eq!(older.validate(&object, None).len(), 0);
    for version in ["v1", "v1alpha1"] {
        let mut stored = object.clone();
        assert_eq!(
            schema("ZTunnel", version).prune(&mut stored),
            Vec::<String>::new()
        );
        assert_eq!(stored, object);
    }
}

#[test]
fn a_status_has_one_condition_of_a_type() {
    let mut object = object("ZTunnel", "v1", "default", &json!({}));
    let condition =
        json!({ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    object["status"] = json!({ "conditions": [condition, condition], "state": "Healthy" });
    let schema = schema("ZTunnel", "v1");
    schema.apply_defaults(&mut object);
    let causes = schema.validate(&object, None);
    assert_eq!(
        (causes.len(), &*causes[0].field),
        (1, "status.conditions[1]")
    );
    object["status"]["conditions"] = json!([condition]);
    assert_eq!(schema.validate(&object, None).len(), 0);
}
