//! What the CRDs take and keep. That the API server enforces them is tested against one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::security::AuthorizationPolicySpec;

/// A larger CRD could not be applied by `kubectl apply`, which keeps a copy in an annotation.
const MAX_SIZE: usize = 256 << 10;

fn all() -> Vec<CustomResourceDefinition> {
    [crds(), gateway_stand_ins()].concat()
}

fn schema(kind: &str) -> Value {
    let crd = all()
        .into_iter()
        .find(|crd| crd.spec.names.kind == kind)
        .unwrap();
    let schema = crd.spec.versions[0].schema.clone().unwrap();
    serde_json::to_value(schema.open_api_v3_schema.unwrap()).unwrap()
}

fn each(schema: &Value, path: &str, seen: &mut impl FnMut(&str, &Value)) {
    seen(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        each(property, &format!("{path}.{name}"), seen);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            each(&schema[inner], &format!("{path}[]"), seen);
        }
    }
}

#[test]
fn every_crd_is_small_enough_for_kubectl_apply() {
    for crd in all() {
        let size = serde_json::to_vec(&crd).unwrap().len();
        assert!(size < MAX_SIZE, "{:?}: {size}", crd.metadata.name);
    }
}

#[test]
fn each_crd_has_the_names_and_versions_that_users_of_istio_know() {
    let facts = |crd: CustomResourceDefinition| {
        let spec = crd.spec;
        let versions = spec.versions.iter().map(|v| v.name.clone());
        assert!(
            spec.versions
                .iter()
                .all(|v| v.served && v.subresources.is_some())
        );
        let stored: Vec<_> = spec.versions.iter().filter(|v| v.storage).collect();
        assert_eq!((stored.len(), &*stored[0].name), (1, "v1"));
        let short = spec.names.short_names.unwrap().join(",");
        let versions = versions.collect::<Vec<_>>().join(",");
        format!(
            "{} {short} {versions} {}",
            crd.metadata.name.unwrap(),
            spec.names.categories.unwrap().join(",")
        )
    };
    assert_eq!(
        crds().into_iter().map(facts).collect::<Vec<_>>(),
        [
            "authorizationpolicies.security.istio.io ap v1,v1beta1 istio-io,security-istio-io",
            "peerauthentications.security.istio.io pa v1,v1beta1 istio-io,security-istio-io",
            "serviceentries.networking.istio.io se v1,v1beta1,v1alpha3 istio-io,networking-istio-io",
            "workloadentries.networking.istio.io we v1,v1beta1,v1alpha3 istio-io,networking-istio-io",
        ]
    );
}

#[test]
fn every_schema_is_structural() {
    for crd in all() {
        let kind = &crd.spec.names.kind;
        each(&schema(kind), kind, &mut |path, schema| {
            let typed = schema["type"].is_string() || schema["x-kubernetes-int-or-string"] == true;
            assert!(typed, "{path} has no type: {schema}");
            for word in [
                "$ref",
                "nullable",
                "oneOf",
                "anyOf",
                "allOf",
                "definitions",
                "title",
            ] {
                assert!(schema.get(word).is_none(), "{path} has {word}");
            }
            let format = schema["format"].as_str().unwrap_or("date-time");
            assert!(
                ["int32", "int64", "date-time"].contains(&format),
                "{path}: {format}"
            );
            assert!(
                schema.get("default").is_none() || path == format!("{kind}.spec"),
                "{path}"
            );
        });
    }
}

#[test]
fn every_field_is_explained() {
    for crd in crds() {
        let kind = &crd.spec.names.kind;
        each(&schema(kind), kind, &mut |path, schema| {
            let explained = schema["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty());
            assert!(
                explained || path.ends_with("[]"),
                "{path} has no description"
            );
        });
    }
}

/// CEL is costed for the longest lists that the schema allows, so a rule within lists without bounds
/// makes the API server refuse the CRD.
#[test]
fn every_list_around_a_rule_is_bounded() {
    for crd in all() {
        let kind = &crd.spec.names.kind;
        let mut lists = BTreeSet::new();
        let mut rules = Vec::new();
        each(&schema(kind), kind, &mut |path, schema| {
            let bounded = schema
                .get("maxItems")
                .or_else(|| schema.get("maxProperties"))
                .is_some();
            let list = schema["type"] == "array" || schema["additionalProperties"].is_object();
            if list && !bounded {
                lists.insert(path.to_owned());
            }
            if schema.get("x-kubernetes-validations").is_some() {
                rules.push(path.to_owned());
            }
        });
        for (rule, list) in rules
            .iter()
            .flat_map(|rule| lists.iter().map(move |list| (rule, list)))
        {
            assert!(!rule.starts_with(list.as_str()), "{rule} stands in {list}");
        }
    }
}

#[test]
fn the_schema_holds_every_field_of_the_types() {
    let source = &schema("AuthorizationPolicy")["properties"]["spec"]["properties"]["rules"]["items"]
        ["properties"]["from"]["items"]["properties"]["source"]["properties"];
    let names: Vec<_> = source
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        names,
        [
            "ipBlocks",
            "namespaces",
            "notIpBlocks",
            "notNamespaces",
            "notPrincipals",
            "notRemoteIpBlocks",
            "notRequestPrincipals",
            "notServiceAccounts",
            "notTrustDomains",
            "principals",
            "remoteIpBlocks",
            "requestPrincipals",
            "serviceAccounts",
            "trustDomains",
        ]
    );
}

#[test]
fn a_policy_for_a_waypoint_is_kept_whole() {
    let spec = json!({
        "targetRefs": [{ "kind": "Service", "name": "pay" }],
        "action": "CUSTOM",
        "provider": { "name": "opa" },
        "rules": [{
            "from": [{ "source": { "requestPrincipals": ["*"], "notRemoteIpBlocks": ["10.0.0.0/8"] } }],
            "to": [{ "operation": { "hosts": ["a"], "notMethods": ["PUT"], "paths": ["/x*"] } }],
            "when": [{ "key": "request.headers[x]", "notValues": ["y"] }],
            "fromTheFuture": [{ "a": 1 }],
        }],
    });
    let decoded: AuthorizationPolicySpec = serde_json::from_value(spec.clone()).unwrap();
    assert_eq!(serde_json::to_value(decoded).unwrap(), spec);
}

#[test]
fn a_policy_without_a_spec_gets_an_empty_one() {
    for kind in ["AuthorizationPolicy", "PeerAuthentication"] {
        let schema = schema(kind);
        assert_eq!(schema["properties"]["spec"]["default"], json!({}));
        assert_eq!(schema.get("required"), None);
    }
    assert_eq!(schema("ServiceEntry")["required"], json!(["spec"]));
}

#[test]
fn objects_that_the_schema_would_refuse_still_decode() {
    for (kind, spec) in [
        (
            "AuthorizationPolicy",
            json!({ "action": "SHRUG", "rules": [{ "to": [{}], "when": [{}] }] }),
        ),
        (
            "PeerAuthentication",
            json!({ "mtls": {}, "portLevelMtls": { "http": { "mode": "?" } } }),
        ),
        (
            "ServiceEntry",
            json!({ "ports": [{ "number": -1 }], "resolution": "MAYBE" }),
        ),
        (
            "WorkloadEntry",
            json!({ "ports": { "": 99999 }, "weight": -4 }),
        ),
        (
            "Gateway",
            json!({ "listeners": [{ "port": 0, "allowedRoutes": { "namespaces": {} } }] }),
        ),
    ] {
        let object =
            json!({ "metadata": { "name": "x" }, "spec": spec, "status": { "conditions": [{}] } });
        let decoded = match kind {
            "AuthorizationPolicy" => serde_json::from_value::<AuthorizationPolicy>(object).err(),
            "PeerAuthentication" => serde_json::from_value::<PeerAuthentication>(object).err(),
            "ServiceEntry" => serde_json::from_value::<ServiceEntry>(object).err(),
            "WorkloadEntry" => serde_json::from_value::<WorkloadEntry>(object).err(),
            _ => serde_json::from_value::<Gateway>(object).err(),
        };
        assert!(decoded.is_none(), "{kind}: {decoded:?}");
    }
}

#[test]
fn the_stand_ins_keep_what_they_do_not_know() {
    let listener = &schema("Gateway")["properties"]["spec"]["properties"]["listeners"]["items"];
    assert_eq!(listener["x-kubernetes-preserve-unknown-fields"], true);
}
