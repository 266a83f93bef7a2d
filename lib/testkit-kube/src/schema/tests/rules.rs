//! `x-kubernetes-validations`.

use serde_json::{Value, json};

use super::{Schema, refusal, spec, texts};

/// What one rule on `spec` says of a specification.
fn judge(properties: &Value, rule: &str, value: &Value) -> Vec<String> {
    let schema = ruled(properties, &json!({"rule": rule}));
    texts(
        &Schema::from_openapi(&schema)
            .unwrap()
            .validate(&json!({"spec": value}), None),
    )
}

fn ruled(properties: &Value, rule: &Value) -> Value {
    json!({"type": "object", "properties": {"spec": {
        "type": "object", "properties": properties, "x-kubernetes-validations": [rule]}}})
}

fn compile_error(properties: &Value, rule: &str) -> String {
    refusal(&ruled(properties, &json!({"rule": rule})))
}

#[test]
fn a_broken_rule_speaks_in_its_own_words() {
    let properties = json!({"min": {"type": "integer"}, "max": {"type": "integer"}});
    let value = json!({"spec": {"min": 5, "max": 3}});
    for (rule, expected) in [
        (
            json!({"rule": "self.min <= self.max"}),
            r#"spec: Invalid value: "object": failed rule: self.min <= self.max"#,
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "min is above max"}),
            r#"spec: Invalid value: "object": min is above max"#,
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "no",
                   "messageExpression": "'min ' + string(self.min) + ' is above ' + string(self.max)"}),
            r#"spec: Invalid value: "object": min 5 is above 3"#,
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "no", "fieldPath": ".min", "reason": "FieldValueForbidden"}),
            "spec.min: Forbidden: no",
        ),
    ] {
        let schema = Schema::from_openapi(&ruled(&properties, &rule)).unwrap();
        assert_eq!(texts(&schema.validate(&value, None)), [expected]);
    }
}

#[test]
fn the_language_has_what_rules_in_the_field_use() {
    let properties = json!({
        "name": {"type": "string"},
        "names": {"type": "array", "items": {"type": "string"}},
        "numbers": {"type": "array", "items": {"type": "integer"}},
        "ports": {"type": "array", "items": {"type": "object", "properties": {
            "name": {"type": "string"}, "port": {"type": "integer"}}}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "share": {"x-kubernetes-int-or-string": true},
        "when": {"type": "string", "format": "date-time"},
        "timeout": {"type": "string", "format": "duration"},
        "ratio": {"type": "number"},
        "namespace": {"type": "string"},
        "a-b": {"type": "string"},
    });
    let value = json!({
        "name": "Istio-One", "names": ["a", "b"], "numbers": [1, 2, 3],
        "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}],
        "labels": {"app": "x"}, "share": "50%", "when": "2026-01-02T03:04:05Z", "timeout": "1m",
        "ratio": 1, "namespace": "n", "a-b": "c",
    });
    for rule in [
        "has(self.name) && !has(self.labels.missing) && size(self.names) == 2",
        "self.name.matches('^Istio-[A-Z]') && self.name.startsWith('Istio') && self.name.endsWith('One')",
        "self.name.contains('-') && self.name.lowerAscii() == 'istio-one' && self.name.indexOf('-') == 5",
        "self.name.split('-').size() == 2 && self.names.join(',') == 'a,b'",
        "self.ports.all(p, p.port > 0) && self.ports.exists(p, p.name == 'http')",
        "self.ports.exists_one(p, p.port == 80) && self.ports.map(p, p.port) == [80, 443]",
        "self.ports.filter(p, p.port > 100).size() == 1",
        "self.numbers.isSorted() && self.numbers.sum() == 6 && self.numbers.min() == 1 && self.numbers.max() == 3",
        "self.names.indexOf('b') == 1 && self.names.lastIndexOf('z') == -1",
        "'app' in self.labels && self.labels['app'] == 'x' && self.labels.all(k, k.size() == 3)",
        "type(self.share) == string ? self.share == '50%' : self.share == 50",
        "self.when < timestamp('2027-01-01T00:00:00Z') && self.timeout == duration('60s')",
        "duration('1h') > duration('1m') && self.ratio == 1.0 && self.ratio < 1.5",
        "self.__namespace__ == 'n' && self.a__dash__b == 'c'",
        "isURL('https://a.b:8080/c?d=e') && url('https://a.b:8080/c?d=e').getHost() == 'a.b:8080'",
        "url('https://a.b:8080/c?d=e').getScheme() == 'https' && url('https://a.b/c').getEscapedPath() == '/c'",
        "url('https://[::1]:80/').getHostname() == '::1' && url('https://[::1]:80/').getPort() == '80'",
        "isIP('10.0.0.1') && ip('::1').family() == 6 && isCIDR('10.0.0.0/8') && !isIP('10.0.0.0/8')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP('11.1.2.3')",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.0.0.0/8').prefixLength() == 8",
        "quantity('1Gi').isGreaterThan(quantity('500M')) && isQuantity('1.5') && !isQuantity('x')",
        "sets.contains(['a', 'b'], ['a']) && sets.equivalent(['a'], ['a', 'a']) && !sets.intersects(['a'], ['b'])",
        "'abc123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2']",
        "'%s is %d'.format(['x', 3]) == 'x is 3' && 'a,b'.replace(',', ';') == 'a;b'",
        "self.?name.orValue('') == 'Istio-One' && !self.?labels.?missing.hasValue()",
    ] {
        assert_eq!(
            judge(&properties, rule, &value),
            Vec::<String>::new(),
            "{rule}"
        );
    }
}

#[test]
fn a_transition_is_judged_when_there_is_something_to_compare_with() {
    let schema = spec(
        &json!({"mode": {"type": "string", "x-kubernetes-validations": [
        {"rule": "self == oldSelf", "message": "mode is immutable"}]}}),
    );
    let (a, b) = (
        json!({"spec": {"mode": "a"}}),
        json!({"spec": {"mode": "b"}}),
    );
    assert_eq!(schema.validate(&a, None), []);
    assert_eq!(schema.validate(&a, Some(&a)), []);
    assert_eq!(schema.validate(&a, Some(&json!({"spec": {}}))), []);
    assert_eq!(
        texts(&schema.validate(&b, Some(&a))),
        [r#"spec.mode: Invalid value: "string": mode is immutable"#]
    );
}

#[test]
fn an_optional_old_value_lets_a_rule_judge_creations() {
    let schema = spec(
        &json!({"mode": {"type": "string", "x-kubernetes-validations": [
        {"rule": "oldSelf.hasValue() || self == 'first'", "optionalOldSelf": true, "message": "begin with first"}]}}),
    );
    assert_eq!(
        schema.validate(&json!({"spec": {"mode": "first"}}), None),
        []
    );
    assert_eq!(
        schema.validate(&json!({"spec": {"mode": "b"}}), None).len(),
        1
    );
    let old = json!({"spec": {"mode": "first"}});
    assert_eq!(
        schema.validate(&json!({"spec": {"mode": "b"}}), Some(&old)),
        []
    );
}

#[test]
fn items_of_maps_are_compared_by_key_and_those_of_lists_are_not() {
    let items = json!({"type": "object", "required": ["name"],
        "properties": {"name": {"type": "string"}, "x": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.x >= oldSelf.x", "message": "x only grows"}]});
    let schema = spec(&json!({
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": items},
        "list": {"type": "array", "items": items},
    }));
    let old = json!({"spec": {"map": [{"name": "a", "x": 5}], "list": [{"name": "a", "x": 5}]}});
    let new = json!({"spec": {"map": [{"name": "b", "x": 1}, {"name": "a", "x": 4}], "list": [{"name": "a", "x": 4}]}});
    assert_eq!(
        texts(&schema.validate(&new, Some(&old))),
        [r#"spec.map[1]: Invalid value: "object": x only grows"#]
    );
}

#[test]
fn a_rule_that_fails_to_run_refuses_the_object() {
    let properties =
        json!({"list": {"type": "array", "items": {"type": "integer"}}, "x": {"type": "integer"}});
    let causes = judge(&properties, "self.list[3] == 1", &json!({"list": []}));
    assert_eq!(causes.len(), 1);
    assert!(
        causes[0].ends_with("evaluating rule: self.list[3] == 1"),
        "{causes:?}"
    );
    let causes = judge(&properties, "self.x == 1", &json!({}));
    assert_eq!(
        causes,
        [r#"spec: Invalid value: "object": No such key: x evaluating rule: self.x == 1"#]
    );
    let causes = judge(&properties, "self.x + 1", &json!({"x": 1}));
    assert!(causes[0].contains("rather than a bool"), "{causes:?}");
}

#[test]
fn rules_wait_for_values_that_fit() {
    let schema = ruled(
        &json!({"a": {"type": "integer"}}),
        &json!({"rule": "self.a > 1"}),
    );
    let causes = Schema::from_openapi(&schema)
        .unwrap()
        .validate(&json!({"spec": {"a": "x"}}), None);
    assert_eq!(causes.len(), 2);
    assert_eq!(causes[1].field, "<nil>");
    assert!(
        causes[1]
            .message
            .contains("some validation rules were not checked")
    );
}

#[test]
fn a_rule_that_does_not_compile_spoils_the_schema() {
    let properties = json!({"a": {"type": "integer"}, "list": {"type": "array", "items": {
        "type": "object", "properties": {"x": {"type": "integer"}}}}});
    for (rule, expected) in [
        ("self.a >", "compilation failed"),
        ("self.b == 1", "undefined field 'b'"),
        ("self.list.all(l, l.y == 1)", "undefined field 'y'"),
        ("self.list[0].z == 1", "undefined field 'z'"),
        ("has(self.c)", "undefined field 'c'"),
        ("other.a == 1", "undeclared reference to 'other'"),
        ("explode(self.a)", "undeclared reference to 'explode'"),
        ("", "Required value"),
    ] {
        let error = compile_error(&properties, rule);
        assert!(
            error
                .starts_with("openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: "),
            "{error}"
        );
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn hostile_expressions_are_refused() {
    let properties = json!({"a": {"type": "integer"}});
    for rule in [
        "(".repeat(10_000),
        format!("{}1{}", "(".repeat(500), ")".repeat(500)),
        format!("{}true", "!".repeat(5_000)),
        format!("{}1 == 1", "-".repeat(5_000)),
        vec!["1"; 4_000].join("+") + " == 1",
        "[".repeat(300) + &"]".repeat(300),
        "true ? ".repeat(1_000) + "true" + &" : true".repeat(1_000),
        "x".repeat(100_000),
        "self".to_owned() + &".a".repeat(3_000),
    ] {
        compile_error(&properties, &rule);
    }
}

#[test]
fn a_long_rule_that_is_not_deep_runs() {
    let properties = json!({"a": {"type": "integer"}});
    for rule in [
        vec!["self.a == 1"; 500].join(" && "),
        format!("self.a in [{}]", vec!["1"; 500].join(", ")),
        format!("self.a > 0 && {} == 100", vec!["self.a"; 70].join(" + ").replace("self.a", "1") + " + 30"),
        format!("{}self.a == 1{}", "(".repeat(25), ")".repeat(25)),
        "self.a == 1 && '((((((((((((((((((((((((((((((((((((((((((((((((((.............' != \"\\\"\"".to_owned(),
    ] {
        assert_eq!(judge(&properties, &rule, &json!({"a": 1})), Vec::<String>::new(), "{rule}");
    }
}
