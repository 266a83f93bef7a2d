//! Schemas of CRDs without rules.

use serde_json::json;

use super::{Schema, faults, refusal, spec, texts};

#[test]
fn defaults_fill_from_the_outside_inwards() {
    let schema = spec(&json!({
        "mode": {"type": "string", "default": "Auto"},
        "limits": {"type": "object", "default": {}, "properties": {"max": {"type": "integer", "default": 3}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"on": {"type": "boolean", "default": true}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}}},
    }));
    let mut object = json!({"spec": {"mode": null, "list": [{}, {"on": false}], "map": {"k": {}}}});
    schema.apply_defaults(&mut object);
    assert_eq!(
        object,
        json!({"spec": {
            "mode": "Auto",
            "limits": {"max": 3},
            "list": [{"on": true}, {"on": false}],
            "map": {"k": {"a": "x"}},
        }})
    );
}

#[test]
fn a_null_that_may_be_one_stays() {
    let schema = spec(&json!({
        "a": {"type": "string", "nullable": true, "default": "x"},
        "b": {"type": "string"},
    }));
    let mut object = json!({"spec": {"a": null, "b": null}});
    schema.apply_defaults(&mut object);
    assert_eq!(object, json!({"spec": {"a": null}}));
    assert_eq!(schema.validate(&object, None), []);
}

#[test]
fn unknown_fields_are_removed_and_named() {
    let schema = spec(&json!({
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"known": {"type": "object", "properties": {}}}},
        "object": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
    }));
    let mut object = json!({
        "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n", "colour": "red"},
        "extra": 1,
        "spec": {
            "list": [{"a": "x"}, {"b": 1}],
            "any": {"free": {"x": 1}, "known": {"y": 1}},
            "object": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}, "foo": 1},
        },
    });
    let mut unknown = schema.prune(&mut object);
    unknown.sort();
    assert_eq!(
        unknown,
        [
            "extra",
            "metadata.colour",
            "spec.any.known.y",
            "spec.list[1].b",
            "spec.object.foo"
        ]
    );
    assert_eq!(
        object,
        json!({
            "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"},
            "spec": {
                "list": [{"a": "x"}, {}],
                "any": {"free": {"x": 1}, "known": {}},
                "object": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}},
            },
        })
    );
}

#[test]
fn values_are_refused_in_the_words_of_the_api_server() {
    let schema = spec(&json!({
        "mode": {"type": "string", "enum": ["A", "B"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 5, "exclusiveMaximum": true},
        "name": {"type": "string", "maxLength": 3, "minLength": 2, "pattern": "^[a-z]*$"},
        "list": {"type": "array", "maxItems": 1, "items": {"type": "string"}},
        "map": {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": {"type": "string"}},
        "port": {"x-kubernetes-int-or-string": true},
        "when": {"type": "string", "format": "date-time"},
        "step": {"type": "number", "multipleOf": 0.5},
    }));
    let check = |value, expected: &[&str]| assert_eq!(faults(&schema, &value), expected);
    check(
        json!({"mode": "C"}),
        &[r#"spec.mode: Unsupported value: "C": supported values: "A", "B""#],
    );
    check(
        json!({"mode": 1, "count": "x"}),
        &[
            r#"spec.count: Invalid value: "string": spec.count in body must be of type integer: "string""#,
            r#"spec.mode: Invalid value: "integer": spec.mode in body must be of type string: "integer""#,
        ],
    );
    check(
        json!({"count": 0}),
        &["spec.count: Invalid value: 0: spec.count in body should be greater than or equal to 1"],
    );
    check(
        json!({"count": 5}),
        &["spec.count: Invalid value: 5: spec.count in body should be less than 5"],
    );
    check(
        json!({"name": "long"}),
        &["spec.name: Too long: may not be more than 3 bytes"],
    );
    check(
        json!({"name": "A"}),
        &[
            r#"spec.name: Invalid value: "A": spec.name in body should be at least 2 chars long"#,
            r#"spec.name: Invalid value: "A": spec.name in body should match '^[a-z]*$'"#,
        ],
    );
    check(
        json!({"list": ["a", "b"]}),
        &["spec.list: Too many: 2: must have at most 1 items"],
    );
    check(
        json!({"list": [1]}),
        &[
            r#"spec.list[0]: Invalid value: "integer": spec.list[0] in body must be of type string: "integer""#,
        ],
    );
    check(
        json!({"map": {}}),
        &["spec.map: Invalid value: {}: spec.map in body should have at least 1 properties"],
    );
    check(json!({"port": 80}), &[]);
    check(json!({"port": "80%"}), &[]);
    check(
        json!({"port": true}),
        &[
            r#"spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean""#,
        ],
    );
    check(
        json!({"when": "noon"}),
        &[
            r#"spec.when: Invalid value: "noon": spec.when in body must be of type date-time: "noon""#,
        ],
    );
    check(json!({"when": "2026-01-02T03:04:05Z", "step": 1.5}), &[]);
    check(
        json!({"step": 1.2}),
        &["spec.step: Invalid value: 1.2: spec.step in body should be a multiple of 0.5"],
    );
}

#[test]
fn a_missing_field_is_required() {
    let schema = json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}}});
    let schema = Schema::from_openapi(&schema).unwrap();
    assert_eq!(
        texts(&schema.validate(&json!({"spec": {}}), None)),
        ["spec.a: Required value"]
    );
    assert_eq!(
        texts(&schema.validate(&json!({}), None)),
        ["spec: Required value"]
    );
}

#[test]
fn junctors_judge() {
    let schema = spec(&json!({
        "one": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        "none": {"type": "object", "properties": {"a": {"type": "string"}}, "not": {"required": ["a"]}},
        "some": {"type": "integer", "anyOf": [{"minimum": 10}, {"maximum": 2}]},
        "all": {"type": "string", "allOf": [{"maxLength": 2}, {"pattern": "^x"}]},
    }));
    let check = |value, expected: &[&str]| assert_eq!(faults(&schema, &value), expected);
    check(
        json!({"one": {"a": "x"}, "none": {}, "some": 1, "all": "xy"}),
        &[],
    );
    check(
        json!({"one": {}}),
        &[
            r#"<nil>: Invalid value: "": "spec.one" must validate one and only one schema (oneOf). Found none valid"#,
        ],
    );
    check(
        json!({"one": {"a": "x", "b": "y"}}),
        &[
            r#"<nil>: Invalid value: "": "spec.one" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
        ],
    );
    check(
        json!({"none": {"a": "x"}}),
        &[r#"<nil>: Invalid value: "": "spec.none" must not validate the schema (not)"#],
    );
    check(
        json!({"some": 5}),
        &[r#"<nil>: Invalid value: "": "spec.some" must validate at least one schema (anyOf)"#],
    );
    check(
        json!({"all": "yyy"}),
        &[
            "spec.all: Too long: may not be more than 2 bytes",
            r#"spec.all: Invalid value: "yyy": spec.all in body should match '^x'"#,
        ],
    );
}

#[test]
fn items_of_sets_and_maps_are_there_once() {
    let schema = spec(&json!({
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"],
                          "properties": {"name": {"type": "string"}, "x": {"type": "integer"}}}},
    }));
    let value = json!({"set": ["a", "b", "a"], "map": [{"name": "a"}, {"name": "a", "x": 1}]});
    assert_eq!(
        faults(&schema, &value),
        [
            r#"spec.map[1]: Duplicate value: {"name":"a"}"#,
            r#"spec.set[2]: Duplicate value: "a""#,
        ]
    );
}

#[test]
fn what_was_stored_under_an_older_schema_can_be_updated_elsewhere() {
    let schema = spec(&json!({
        "mode": {"type": "string", "enum": ["A"]},
        "other": {"type": "integer", "minimum": 1},
    }));
    let old = json!({"spec": {"mode": "Z", "other": 1}});
    let new = json!({"spec": {"mode": "Z", "other": 2}});
    assert_eq!(schema.validate(&new, Some(&old)), []);
    assert_eq!(schema.validate(&new, None).len(), 1);
    let worse = json!({"spec": {"mode": "Y", "other": 1}});
    assert_eq!(schema.validate(&worse, Some(&old)).len(), 1);
}

#[test]
fn a_schema_that_is_not_structural_is_refused_with_the_place() {
    let in_spec = |text| json!({"type": "object", "properties": {"spec": text}});
    for (schema, expected) in [
        (
            json!({}),
            r#"openAPIV3Schema.type: Invalid value: "": must be object at the root"#,
        ),
        (
            in_spec(json!({})),
            "openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
        ),
        (
            in_spec(json!({"type": "array"})),
            "openAPIV3Schema.properties[spec].items: Required value: must be specified",
        ),
        (
            in_spec(json!({"type": "array", "items": {}})),
            "openAPIV3Schema.properties[spec].items.type: Required value: must not be empty for specified array items",
        ),
        (
            in_spec(json!({"type": "text"})),
            r#"openAPIV3Schema.properties[spec].type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string""#,
        ),
        (
            in_spec(json!({"$ref": "#/x"})),
            "openAPIV3Schema.properties[spec].$ref: Forbidden: $ref is not supported",
        ),
        (
            in_spec(json!({"type": "string", "pattern": "("})),
            "openAPIV3Schema.properties[spec].pattern: Invalid value: \"(\": must be a valid regular expression",
        ),
        (
            in_spec(
                json!({"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}),
            ),
            "openAPIV3Schema.properties[spec].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            in_spec(json!({"type": "string", "default": 1})),
            "openAPIV3Schema.properties[spec].default: Invalid value: \"integer\"",
        ),
        (
            in_spec(json!({"type": "object", "oneOf": [{"type": "object"}]})),
            "openAPIV3Schema.properties[spec].oneOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            in_spec(json!({"type": "object", "oneOf": [{"properties": {"a": {"minLength": 1}}}]})),
            "openAPIV3Schema.properties[spec].properties[a]: Required value: because",
        ),
        (
            in_spec(
                json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}),
            ),
            "openAPIV3Schema.properties[spec].x-kubernetes-list-map-keys: Required value",
        ),
        (
            in_spec(
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"],
                           "items": {"type": "object", "properties": {"a": {"type": "string"}}}}),
            ),
            "openAPIV3Schema.properties[spec].items.properties[a].default: Required value",
        ),
        (
            in_spec(json!({"type": "string", "minLength": -1})),
            "openAPIV3Schema.properties[spec].minLength: Invalid value: -1: must be a non-negative integer",
        ),
    ] {
        let actual = refusal(&schema);
        assert!(
            actual.starts_with(expected),
            "{actual}\nrather than\n{expected}"
        );
    }
}

#[test]
fn a_schema_nests_only_so_deep() {
    let mut schema = json!({"type": "string"});
    for _ in 0..200 {
        schema = json!({"type": "object", "properties": {"a": schema}});
    }
    assert!(refusal(&schema).ends_with("nests more than 100 levels deep"));
}
