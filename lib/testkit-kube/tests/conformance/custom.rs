//! Custom resources: their definitions, and objects that follow them.

use serde_json::{Value, json};

use crate::harness::{Answer, Case, JSON_PATCH, MERGE, STRATEGIC, TABLE, case, unique, version};

const CRDS: &str = "apiextensions.k8s.io/v1";

/// A kind of the case's own.
struct Kind {
    group: String,
}

impl Kind {
    fn new() -> Self {
        let group = format!("{}.example.com", unique("g"));
        Self { group }
    }

    fn path(&self, case: &Case) -> String {
        case.path(&format!("{}/v1", self.group), "widgets")
    }

    fn definition(&self, spec: &Value) -> Value {
        let version = json!({
            "name": "v1", "served": true, "storage": true,
            "schema": { "openAPIV3Schema": {
                "type": "object",
                "properties": {
                    "spec": spec,
                    "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                },
            }},
            "subresources": { "status": {} },
        });
        json!({
            "apiVersion": CRDS, "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("widgets.{}", self.group) },
            "spec": {
                "group": self.group, "scope": "Namespaced", "versions": [version],
                "names": {
                    "plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"],
                    "categories": ["all"],
                },
            },
        })
    }

    async fn install(&self, case: &Case, definition: &Value) {
        let name = format!("widgets.{}", self.group);
        let path = case.elsewhere(CRDS, "customresourcedefinitions", &name);
        case.post(&path, definition).await.ok();
        let established = |answer: &Answer| {
            let conditions = answer.body["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|condition| {
                condition["type"] == "Established" && condition["status"] == "True"
            })
        };
        case.until("the establishment", &format!("{path}/{name}"), established)
            .await;
        case.until("the serving", &self.path(case), |answer| {
            answer.status == 200
        })
        .await;
    }

    async fn installed(case: &Case, spec: &Value) -> Self {
        let kind = Self::new();
        kind.install(case, &kind.definition(spec)).await;
        kind
    }

    fn object(&self, spec: &Value) -> Value {
        json!({
            "apiVersion": format!("{}/v1", self.group), "kind": "Widget",
            "metadata": { "name": "w" }, "spec": spec,
        })
    }

    async fn create(&self, case: &Case, spec: &Value) -> Answer {
        case.post(
            &format!("{}?dryRun=All", self.path(case)),
            &self.object(spec),
        )
        .await
    }
}

fn object_of(properties: &Value) -> Value {
    json!({ "type": "object", "properties": properties })
}

#[tokio::test]
async fn a_definition_becomes_a_resource() {
    case(async |case| {
        let kind =
            Kind::installed(case, &object_of(&json!({ "size": { "type": "integer" } }))).await;
        let created = case
            .post(&kind.path(case), &kind.object(&json!({ "size": 1 })))
            .await
            .ok();
        assert_eq!(created["kind"], "Widget");
        assert_eq!(created["metadata"]["generation"], 1);
        let list = case.get(&kind.path(case)).await.ok();
        assert_eq!(list["kind"], "WidgetList");
        assert_eq!(
            list["items"][0]["kind"], "Widget",
            "items of custom resources have their kind"
        );
        let resources = case.get(&format!("/apis/{}/v1", kind.group)).await.ok();
        let widgets = &resources["resources"][0];
        assert_eq!(
            (&widgets["name"], &widgets["shortNames"]),
            (&json!("widgets"), &json!(["wd"]))
        );
        let missing = case.get(&format!("{}/none", kind.path(case))).await;
        let expected = format!("widgets.{} \"none\" not found", kind.group);
        assert_eq!(missing.refused(404, "NotFound"), expected);
    })
    .await;
}

#[tokio::test]
async fn a_schema_refuses_what_it_does_not_allow() {
    case(async |case| {
        let schema = json!({
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": { "type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$" },
                "size": { "type": "integer", "minimum": 1, "maximum": 10 },
                "mode": { "type": "string", "enum": ["A", "B"] },
                "list": { "type": "array", "maxItems": 2, "minItems": 1, "items": { "type": "string" } },
                "port": { "x-kubernetes-int-or-string": true },
                "when": { "type": "string", "format": "date-time" },
            },
        });
        let kind = Kind::installed(case, &schema).await;
        let good = json!({
            "name": "abc", "size": 5, "mode": "A", "list": ["x"], "port": "http",
            "when": "2026-01-01T00:00:00Z",
        });
        kind.create(case, &good).await.ok();
        let cases = [
            (json!({}), "spec.name", "FieldValueRequired", "Required value"),
            (json!({ "name": "a" }), "spec.name", "FieldValueInvalid", "should be at least 2 chars long"),
            (json!({ "name": "abcde" }), "spec.name", "FieldValueTooLong", "Too long: may not be more than 4 bytes"),
            (json!({ "name": "AB" }), "spec.name", "FieldValueInvalid", "should match '^[a-z]+$'"),
            (
                json!({ "name": "ab", "size": 0 }),
                "spec.size",
                "FieldValueInvalid",
                "should be greater than or equal to 1",
            ),
            (
                json!({ "name": "ab", "size": 11 }),
                "spec.size",
                "FieldValueInvalid",
                "should be less than or equal to 10",
            ),
            (
                json!({ "name": "ab", "mode": "C" }),
                "spec.mode",
                "FieldValueNotSupported",
                "Unsupported value: \"C\": supported values: \"A\", \"B\"",
            ),
            (
                json!({ "name": "ab", "list": ["a", "b", "c"] }),
                "spec.list",
                "FieldValueTooMany",
                "Too many: 3: must have at most 2 items",
            ),
            (
                json!({ "name": "ab", "list": [] }),
                "spec.list",
                "FieldValueInvalid",
                "should have at least 1 items",
            ),
            (
                json!({ "name": "ab", "size": "5" }),
                "spec.size",
                "FieldValueTypeInvalid",
                "must be of type integer: \"string\"",
            ),
            (
                json!({ "name": "ab", "list": [1] }),
                "spec.list[0]",
                "FieldValueTypeInvalid",
                "must be of type string: \"integer\"",
            ),
        ];
        for (spec, field, reason, text) in cases {
            let answer = kind.create(case, &spec).await;
            assert_eq!(answer.causes()[0], (field, reason), "{spec}: {}", answer.body);
            assert!(answer.message().contains(text), "{spec}: {}", answer.message());
        }
        let answer = kind.create(case, &json!({ "name": "ab", "when": "soon" })).await;
        let causes = answer.causes();
        assert_eq!(causes[0].0, "spec.when", "{}", answer.body);
    })
    .await;
}

#[tokio::test]
async fn a_schema_fills_in_and_prunes() {
    case(async |case| {
        let schema = object_of(&json!({
            "size": { "type": "integer", "default": 3 },
            "nested": {
                "type": "object", "default": {},
                "properties": { "mode": { "type": "string", "default": "A" } },
            },
            "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            "maybe": { "type": "string", "nullable": true },
        }));
        let kind = Kind::installed(case, &schema).await;
        let spec = json!({ "unknown": 1, "free": { "any": 1 }, "maybe": null });
        let answer = kind.create(case, &spec).await;
        assert_eq!(
            answer.warnings(),
            ["299 - \"unknown field \\\"spec.unknown\\\"\""]
        );
        let expected =
            json!({ "size": 3, "nested": { "mode": "A" }, "free": { "any": 1 }, "maybe": null });
        assert_eq!(answer.ok()["spec"], expected);
        let path = format!("{}?dryRun=All&fieldValidation=Strict", kind.path(case));
        let strict = case.post(&path, &kind.object(&spec)).await;
        let message = strict.refused(400, "BadRequest");
        assert!(
            message.contains("strict decoding error: unknown field \"spec.unknown\""),
            "{message}"
        );
    })
    .await;
}

#[tokio::test]
async fn rules_in_cel_hold() {
    case(async |case| {
        let schema = json!({
            "type": "object",
            "properties": {
                "min": { "type": "integer" },
                "max": { "type": "integer" },
                "fixed": {
                    "type": "string",
                    "x-kubernetes-validations": [{ "rule": "self == oldSelf", "message": "fixed is fixed" }],
                },
                "names": {
                    "type": "array", "maxItems": 5,
                    "items": { "type": "string", "maxLength": 20 },
                    "x-kubernetes-validations": [
                        { "rule": "self.all(n, n.startsWith('x'))", "message": "names start with x" },
                    ],
                },
            },
            "x-kubernetes-validations": [{
                "rule": "!has(self.min) || !has(self.max) || self.min <= self.max",
                "messageExpression": "self.max > 5 ? 'min is above a large max' : 'min is above a small max'",
            }],
        });
        let kind = Kind::installed(case, &schema).await;
        kind.create(case, &json!({ "min": 1, "max": 2, "names": ["xa"] })).await.ok();
        let answer = kind.create(case, &json!({ "min": 3, "max": 2 })).await;
        assert_eq!(answer.causes(), [("spec", "FieldValueInvalid")]);
        assert!(answer.message().contains("min is above a small max"), "{}", answer.message());
        let answer = kind.create(case, &json!({ "names": ["a"] })).await;
        assert_eq!(answer.causes(), [("spec.names", "FieldValueInvalid")]);
        // A rule about the old object holds from the first change on.
        case.post(&kind.path(case), &kind.object(&json!({ "fixed": "a" }))).await.ok();
        let path = format!("{}/w", kind.path(case));
        let answer = case.patch(&path, MERGE, &json!({ "spec": { "fixed": "b" } })).await;
        assert_eq!(answer.causes(), [("spec.fixed", "FieldValueInvalid")]);
        assert!(answer.message().contains("fixed is fixed"), "{}", answer.message());
    })
    .await;
}

#[tokio::test]
async fn a_custom_status_is_written_apart() {
    case(async |case| {
        let kind =
            Kind::installed(case, &object_of(&json!({ "size": { "type": "integer" } }))).await;
        let mut object = kind.object(&json!({ "size": 1 }));
        object["status"] = json!({ "phase": "New" });
        let created = case.post(&kind.path(case), &object).await.ok();
        assert_eq!(created.get("status"), None);
        let path = format!("{}/w", kind.path(case));
        let patch = json!({ "status": { "phase": "Ready" }, "spec": { "size": 9 } });
        let written = case
            .patch(&format!("{path}/status"), MERGE, &patch)
            .await
            .ok();
        assert_eq!(
            (&written["spec"]["size"], &written["status"]["phase"]),
            (&json!(1), &json!("Ready"))
        );
        assert_eq!(written["metadata"]["generation"], 1);
        let written = case.patch(&path, MERGE, &patch).await.ok();
        assert_eq!(written["metadata"]["generation"], 2);
    })
    .await;
}

#[tokio::test]
async fn custom_resources_take_every_patch_but_the_strategic_one() {
    case(async |case| {
        let kind =
            Kind::installed(case, &object_of(&json!({ "size": { "type": "integer" } }))).await;
        case.post(&kind.path(case), &kind.object(&json!({ "size": 1 })))
            .await
            .ok();
        let path = format!("{}/w", kind.path(case));
        let patch = json!([{ "op": "replace", "path": "/spec/size", "value": 2 }]);
        assert_eq!(
            case.patch(&path, JSON_PATCH, &patch).await.ok()["spec"]["size"],
            2
        );
        let answer = case
            .patch(&path, STRATEGIC, &json!({ "spec": { "size": 3 } }))
            .await;
        let message = answer.refused(415, "UnsupportedMediaType");
        assert!(
            message.contains("application/merge-patch+json"),
            "{message}"
        );
        let applied = case
            .apply(
                &path,
                "me",
                "&force=true",
                &kind.object(&json!({ "size": 4 })),
            )
            .await;
        assert_eq!(applied.ok()["spec"]["size"], 4);
    })
    .await;
}

#[tokio::test]
async fn custom_lists_are_applied_as_their_schema_says() {
    case(async |case| {
        let schema = object_of(&json!({
            "ports": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object", "required": ["name"],
                    "properties": { "name": { "type": "string" }, "number": { "type": "integer" } },
                },
            },
            "tags": { "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } },
            "whole": { "type": "array", "items": { "type": "string" } },
        }));
        let kind = Kind::installed(case, &schema).await;
        let path = format!("{}/w", kind.path(case));
        let one = json!({ "ports": [{ "name": "a", "number": 1 }], "tags": ["x"], "whole": ["p"] });
        case.apply(&path, "one", "", &kind.object(&one)).await.ok();
        let two = json!({ "ports": [{ "name": "b", "number": 2 }], "tags": ["y"] });
        let object = case.apply(&path, "two", "", &kind.object(&two)).await.ok();
        let ports = json!([{ "name": "a", "number": 1 }, { "name": "b", "number": 2 }]);
        assert_eq!(object["spec"]["ports"], ports);
        assert_eq!(object["spec"]["tags"], json!(["x", "y"]));
        let answer = case.apply(&path, "two", "", &kind.object(&json!({ "whole": ["q"] }))).await;
        let message = answer.refused(409, "Conflict");
        assert!(message.contains(".spec.whole"), "{message}");
        let twins = json!({ "ports": [{ "name": "a" }, { "name": "a" }] });
        let answer = kind.create(case, &twins).await;
        assert_eq!(answer.causes(), [("spec.ports[1]", "FieldValueDuplicate")]);
    })
    .await;
}

#[tokio::test]
async fn one_object_is_served_in_several_versions() {
    case(async |case| {
        let kind = Kind::new();
        let mut definition = kind.definition(&object_of(&json!({ "size": { "type": "integer" } })));
        let mut old = definition["spec"]["versions"][0].clone();
        old["name"] = "v1beta1".into();
        old["storage"] = false.into();
        let mut unserved = old.clone();
        unserved["name"] = "v1alpha1".into();
        unserved["served"] = false.into();
        let versions = definition["spec"]["versions"].as_array_mut().unwrap();
        versions.extend([old, unserved]);
        kind.install(case, &definition).await;
        case.post(&kind.path(case), &kind.object(&json!({ "size": 1 })))
            .await
            .ok();
        let at = |version: &str| case.path(&format!("{}/{version}", kind.group), "widgets/w");
        let object = case.get(&at("v1beta1")).await.ok();
        assert_eq!(object["apiVersion"], format!("{}/v1beta1", kind.group));
        assert_eq!(object["spec"]["size"], 1);
        assert_eq!(case.get(&at("v1alpha1")).await.status, 404);
        let patch = json!({ "spec": { "size": 2 } });
        case.patch(&at("v1beta1"), MERGE, &patch).await.ok();
        assert_eq!(case.get(&at("v1")).await.ok()["spec"]["size"], 2);
        let group = case.get(&format!("/apis/{}", kind.group)).await.ok();
        assert_eq!(group["preferredVersion"]["version"], "v1");
        assert_eq!(group["versions"].as_array().map(Vec::len), Some(2));
    })
    .await;
}

#[tokio::test]
async fn printer_columns_are_shown() {
    case(async |case| {
        let kind = Kind::new();
        let mut definition = kind.definition(&object_of(&json!({
            "size": { "type": "integer" },
            "name": { "type": "string" },
        })));
        definition["spec"]["versions"][0]["additionalPrinterColumns"] = json!([
            { "name": "Size", "type": "integer", "jsonPath": ".spec.size" },
            { "name": "Ready", "type": "string",
              "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status" },
            { "name": "Name", "type": "string", "jsonPath": ".spec.name", "priority": 1 },
            { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
        ]);
        kind.install(case, &definition).await;
        case.post(&kind.path(case), &kind.object(&json!({ "size": 5 })))
            .await
            .ok();
        let path = format!("{}/w", kind.path(case));
        let conditions = json!([
            { "type": "Other", "status": "False" },
            { "type": "Ready", "status": "True" },
        ]);
        let status = json!({ "status": { "conditions": conditions } });
        case.patch(&format!("{path}/status"), MERGE, &status)
            .await
            .ok();
        let table = case
            .sending(http::header::ACCEPT, TABLE)
            .get(&kind.path(case))
            .await
            .ok();
        let columns = table["columnDefinitions"].as_array().unwrap();
        let columns: Vec<_> = columns
            .iter()
            .map(|column| {
                (
                    column["name"].as_str().unwrap(),
                    column["priority"].as_i64().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            columns,
            [
                ("Name", 0),
                ("Size", 0),
                ("Ready", 0),
                ("Name", 1),
                ("Age", 0)
            ]
        );
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        assert_eq!(
            cells[..4],
            [json!("w"), json!(5), json!("True"), Value::Null]
        );
    })
    .await;
}

#[tokio::test]
async fn a_definition_must_be_structural() {
    case(async |case| {
        let cases = [
            (json!({ "type": "object", "properties": { "a": {} } }), "Required value: must not be empty for specified object fields"),
            (json!({ "type": "thing" }), "Unsupported value: \"thing\""),
            (
                json!({ "type": "object", "properties": { "a": { "type": "string", "default": 1 } } }),
                "must be of type string",
            ),
            (
                json!({ "type": "object", "x-kubernetes-validations": [{ "rule": "self.nope ==" }] }),
                "compilation failed",
            ),
        ];
        for (schema, text) in cases {
            let kind = Kind::new();
            let name = format!("widgets.{}", kind.group);
            let path = case.elsewhere(CRDS, "customresourcedefinitions", &name);
            let answer = case.post(&path, &kind.definition(&schema)).await;
            let message = answer.refused(422, "Invalid");
            assert!(message.contains(text), "{schema}: {message}");
        }
        let kind = Kind::new();
        let mut definition = kind.definition(&object_of(&json!({})));
        definition["metadata"]["name"] = "wrong.example.com".into();
        let path = case.elsewhere(CRDS, "customresourcedefinitions", "wrong.example.com");
        let answer = case.post(&path, &definition).await;
        let message = answer.refused(422, "Invalid");
        assert!(message.contains("must be spec.names.plural+\".\"+spec.group"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_definition_takes_its_objects_with_it() {
    case(async |case| {
        let kind = Kind::installed(case, &object_of(&json!({}))).await;
        let object = case
            .post(&kind.path(case), &kind.object(&json!({})))
            .await
            .ok();
        let from = format!("&resourceVersion={}", version(&object));
        let mut watch = case.watch(&kind.path(case), &from).await;
        let name = format!("widgets.{}", kind.group);
        let path = format!("/apis/{CRDS}/customresourcedefinitions/{name}");
        case.delete(&path).await.ok();
        watch.expect("DELETED", "w").await;
        case.until_gone(&path).await;
        case.until_gone(&kind.path(case)).await;
        case.until_gone(&format!("/apis/{}", kind.group)).await;
    })
    .await;
}
