use std::sync::Arc;

use prost::Message as _;
use serde_json::{Value, json};

use super::{PROTOBUF, PROTOBUF_BEFORE, respond, wire};
use crate::registry::{Definition, Registry, Resource};

fn crd(spec: &Value) -> Value {
    json!({"spec": {
        "group": "mesh.example.com", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "description": "A thing.",
                "properties": {"spec": spec}}}}],
    }})
}

fn resources(spec: &Value) -> Arc<[Arc<Resource>]> {
    let registry = Registry::default();
    registry.define(&Definition::parse(&crd(spec)).unwrap());
    registry.all()
}

fn thing_spec() -> Value {
    json!({"type": "object", "description": "What it should be.", "properties": {
        "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}},
        "mode": {"type": "string", "enum": ["A"], "default": "A"},
        "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer", "format": "int32"}}}}}})
}

fn fetch(path: &str) -> Value {
    let document = respond(path, "application/json", &resources(&thing_spec())).unwrap();
    assert_eq!(document.content_type, "application/json");
    serde_json::from_slice(&document.body).unwrap()
}

#[test]
fn the_index_names_a_document_for_each_group_and_version() {
    let index = fetch("/openapi/v3");
    for root in ["api/v1", "apis/apps/v1", "apis/mesh.example.com/v1"] {
        let url = index["paths"][root]["serverRelativeURL"].as_str().unwrap();
        let (path, hash) = url.split_once("?hash=").unwrap();
        assert_eq!(path, format!("/openapi/v3/{root}"));
        assert_eq!(hash.len(), 16);
        fetch(path);
    }
}

#[test]
fn the_hash_moves_with_the_schema() {
    let url = |spec: &Value| {
        let document = respond("/openapi/v3", "", &resources(spec)).unwrap();
        let index: Value = serde_json::from_slice(&document.body).unwrap();
        ["apis/mesh.example.com/v1", "api/v1"].map(|root| index["paths"][root].clone())
    };
    let [one, core] = url(&thing_spec());
    let [other, same_core] = url(&json!({"type": "object"}));
    assert_ne!(one, other);
    assert_eq!(core, same_core);
}

#[test]
fn there_is_no_document_for_what_is_not_served() {
    let resources = resources(&thing_spec());
    for path in [
        "/openapi/v3/apis/none/v1",
        "/openapi/v3x",
        "/openapi",
        "/openapi/v2/x",
    ] {
        assert!(respond(path, "", &resources).is_none(), "{path}");
    }
}

#[test]
fn patches_of_built_in_kinds_are_strategic_and_validate_fields() {
    let document = fetch("/openapi/v3/apis/apps/v1");
    let patch =
        &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    let names: Vec<&Value> = patch["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(
        names,
        ["dryRun", "fieldManager", "fieldValidation", "force"]
    );
    let types = patch["requestBody"]["content"].as_object().unwrap();
    assert!(types.contains_key("application/strategic-merge-patch+json"));
    let custom = fetch("/openapi/v3/apis/mesh.example.com/v1");
    let patch =
        &custom["paths"]["/apis/mesh.example.com/v1/namespaces/{namespace}/things/{name}"]["patch"];
    let types = patch["requestBody"]["content"].as_object().unwrap();
    assert!(!types.contains_key("application/strategic-merge-patch+json"));
    assert!(types.contains_key("application/apply-patch+yaml"));
}

#[test]
fn schemas_say_how_lists_merge_and_refer_only_to_what_is_there() {
    let document = fetch("/openapi/v3/apis/apps/v1");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let pod = &schemas["io.k8s.api.core.v1.PodSpec"];
    let containers = &pod["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(
        schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"").skip(1) {
        let reference = reference.split('"').next().unwrap();
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
}

#[test]
fn a_custom_kind_is_described_as_its_crd_says() {
    let document = fetch("/openapi/v3/apis/mesh.example.com/v1");
    let thing = &document["components"]["schemas"]["com.example.mesh.v1.Thing"];
    assert_eq!(thing["description"], "A thing.");
    assert_eq!(
        thing["properties"]["metadata"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    assert_eq!(
        thing["properties"]["spec"]["properties"]["mode"],
        json!({"type": "string", "enum": ["A"], "default": "A"})
    );
    assert!(
        document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]
            .is_object()
    );
}

#[test]
fn version_2_leaves_out_what_it_cannot_say() {
    let document = fetch("/openapi/v2");
    let spec =
        &document["definitions"]["com.example.mesh.v1.Thing"]["properties"]["spec"]["properties"];
    assert_eq!(
        spec["port"],
        json!({"type": "string", "format": "int-or-string"})
    );
    assert_eq!(
        spec["free"],
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
    );
    assert_eq!(spec["mode"], json!({"type": "string", "enum": ["A"]}));
    assert_eq!(
        document["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"]["$ref"],
        "#/definitions/io.k8s.api.core.v1.PodSpec"
    );
}

#[test]
fn old_kubectl_reads_version_2_as_protobuf() {
    let resources = resources(&thing_spec());
    for accepted in [PROTOBUF, PROTOBUF_BEFORE] {
        let document = respond("/openapi/v2", accepted, &resources).unwrap();
        assert_eq!(document.content_type, PROTOBUF);
        let decoded = wire::Document::decode(document.body.as_ref()).unwrap();
        assert_eq!(decoded.swagger, "2.0");
        let definitions = decoded.definitions.unwrap().additional_properties;
        let pod = definitions
            .iter()
            .find(|it| it.name == "io.k8s.api.core.v1.Pod")
            .unwrap();
        let extensions = &pod.value.as_ref().unwrap().vendor_extension;
        let kinds = extensions
            .iter()
            .find(|it| it.name == "x-kubernetes-group-version-kind")
            .unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&kinds.value.as_ref().unwrap().yaml).unwrap(),
            json!([{"group": "", "version": "v1", "kind": "Pod"}])
        );
        let paths = decoded.paths.unwrap().path;
        let path = "/apis/mesh.example.com/v1/namespaces/{namespace}/things/{name}";
        let item = paths
            .iter()
            .find(|it| it.name == path)
            .unwrap()
            .value
            .as_ref()
            .unwrap();
        assert!(
            item.patch
                .as_ref()
                .unwrap()
                .vendor_extension
                .iter()
                .any(|it| it.name == "x-kubernetes-group-version-kind")
        );
    }
}
