//! Schemas and rules of built-in kinds.

use serde_json::{Value, json};

use super::{builtin_schema, texts};

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "creationTimestamp": null},
        "spec": {"containers": [{"name": "c", "image": "registry:5000/x", "ports": [{"containerPort": 80}],
                                 "resources": {"limits": {"cpu": 1}}}]},
    })
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {
                "metadata": {"labels": {"app": "a"}},
                "spec": {"containers": [{"name": "c", "image": "x:1"}]},
            },
        },
    })
}

#[test]
fn a_pod_gets_what_the_api_server_gives_it() {
    let schema = builtin_schema("", "v1", "Pod");
    let mut pod = pod();
    assert_eq!(schema.prune(&mut pod), Vec::<String>::new());
    schema.apply_defaults(&mut pod);
    assert_eq!(
        pod,
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {
                "containers": [{
                    "name": "c", "image": "registry:5000/x", "imagePullPolicy": "Always",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "1"}},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30,
            },
        })
    );
    assert_eq!(schema.validate(&pod, None), []);
}

#[test]
fn a_deployment_rolls_by_a_quarter_unless_told_otherwise() {
    let schema = builtin_schema("apps", "v1", "Deployment");
    let mut object = deployment();
    schema.apply_defaults(&mut object);
    assert_eq!(object["spec"]["replicas"], 1);
    assert_eq!(
        object["spec"]["strategy"]["rollingUpdate"]["maxSurge"],
        "25%"
    );
    assert_eq!(
        object["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"],
        "IfNotPresent"
    );
    assert_eq!(schema.validate(&object, None), []);
}

#[test]
fn a_service_aims_at_the_port_it_has() {
    let schema = builtin_schema("", "v1", "Service");
    let mut object = json!({"spec": {"ports": [{"port": 80}]}});
    schema.apply_defaults(&mut object);
    assert_eq!(
        object["spec"],
        json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
               "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
    );
}

#[test]
fn texts_of_a_secret_become_data() {
    let schema = builtin_schema("", "v1", "Secret");
    let mut object = json!({"stringData": {"a": "x"}, "data": {"b": "eQ=="}});
    schema.apply_defaults(&mut object);
    assert_eq!(
        object,
        json!({"data": {"a": "eA==", "b": "eQ=="}, "type": "Opaque"})
    );
}

#[test]
fn unknown_fields_of_built_in_kinds_are_named() {
    let schema = builtin_schema("", "v1", "Pod");
    let mut pod = pod();
    pod["spec"]["containers"][0]["imagee"] = json!("x");
    pod["spec"]["foo"] = json!(1);
    let mut unknown = schema.prune(&mut pod);
    unknown.sort();
    assert_eq!(unknown, ["spec.containers[0].imagee", "spec.foo"]);
}

#[test]
fn what_only_a_status_lacks_is_not_asked_for() {
    let schema = builtin_schema("", "v1", "Pod");
    let mut pod = pod();
    pod["status"] = json!({
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "c", "ready": true, "state": {"running": {}}}],
        "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
    });
    assert_eq!(schema.prune(&mut pod), Vec::<String>::new());
    schema.apply_defaults(&mut pod);
    assert_eq!(schema.validate(&pod, None), []);
}

#[test]
fn empty_lists_that_the_api_server_does_not_miss_are_not_asked_for() {
    let slice = json!({"addressType": "IPv4", "metadata": {"name": "x"}});
    assert_eq!(
        builtin_schema("discovery.k8s.io", "v1", "EndpointSlice").validate(&slice, None),
        []
    );
    let request = json!({"spec": {"audiences": null}});
    let schema = builtin_schema("authentication.k8s.io", "v1", "TokenRequest");
    let mut request = request;
    schema.apply_defaults(&mut request);
    assert_eq!(schema.validate(&request, None), []);
}

#[test]
fn the_schema_of_a_crd_is_an_object_like_others() {
    let schema = builtin_schema("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let mut crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "a.b"},
        "spec": {
            "group": "b", "scope": "Namespaced", "names": {"plural": "a", "kind": "A"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {"x": {
                    "type": "array", "default": [1], "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "true"}]}}}}}}}}],
        },
    });
    let before = crd.clone();
    assert_eq!(schema.prune(&mut crd), Vec::<String>::new());
    assert_eq!(crd, before);
    assert_eq!(schema.validate(&crd, None), []);
}

#[test]
fn a_default_in_the_schema_of_a_crd_may_be_any_json() {
    let schema = builtin_schema("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let crd = json!({"spec": {
        "group": "b", "scope": "Namespaced", "names": {"plural": "a", "kind": "A"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "default": "text", "enum": [1, null]}}}]}});
    assert_eq!(schema.validate(&crd, None), []);
}

#[test]
fn empty_lists_and_maps_are_as_good_as_absent() {
    let schema = builtin_schema("", "v1", "ConfigMap");
    let mut object = json!({"metadata": {"name": "a", "labels": {}, "finalizers": []}, "data": {}});
    schema.apply_defaults(&mut object);
    assert_eq!(object, json!({"metadata": {"name": "a"}}));
    let mut volumes =
        json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}], "containers": []}});
    builtin_schema("", "v1", "Pod").apply_defaults(&mut volumes);
    assert_eq!(volumes["spec"]["volumes"][0]["emptyDir"], json!({}));
}

#[test]
fn built_in_kinds_are_judged_beyond_their_schema() {
    let check = |group: &str, kind: &str, object: Value, expected: &[&str]| {
        let schema = builtin_schema(group, "v1", kind);
        let mut object = object;
        schema.apply_defaults(&mut object);
        assert_eq!(texts(&schema.validate(&object, None)), expected, "{kind}");
    };
    check(
        "",
        "Service",
        json!({"spec": {}}),
        &["spec.ports: Required value"],
    );
    check("", "Service", json!({"spec": {"clusterIP": "None"}}), &[]);
    check(
        "",
        "Service",
        json!({"spec": {"type": "Internal", "ports": [{"port": 70000}, {"port": 80, "name": "x"}]}}),
        &[
            r#"spec.type: Unsupported value: "Internal": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort""#,
            "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.ports[0].name: Required value",
        ],
    );
    check(
        "",
        "Pod",
        json!({"spec": {"containers": []}}),
        &["spec.containers: Required value"],
    );
    check(
        "",
        "Pod",
        json!({"spec": {"restartPolicy": "Sometimes",
            "containers": [{"name": "A", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}}),
        &[
            r#"spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure""#,
            "spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case \
             alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. \
             'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.containers[0].image: Required value",
            r#"spec.containers[0].volumeMounts[0].name: Not found: "v""#,
        ],
    );
    check(
        "rbac.authorization.k8s.io",
        "Role",
        json!({"rules": [{"verbs": ["get"], "resources": ["pods"]}]}),
        &["rules[0].apiGroups: Required value: resource rules must supply at least one api group"],
    );
    check(
        "rbac.authorization.k8s.io",
        "RoleBinding",
        json!({
        "roleRef": {"kind": "Thing", "name": "x"}, "subjects": [{"kind": "User", "name": "u"}]}),
        &[r#"roleRef.kind: Unsupported value: "Thing": supported values: "ClusterRole", "Role""#],
    );
    check(
        "coordination.k8s.io",
        "Lease",
        json!({"spec": {"leaseDurationSeconds": 0}}),
        &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
    );
    check(
        "",
        "Secret",
        json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "eA=="}}),
        &["data[tls.key]: Required value"],
    );
}

#[test]
fn a_config_map_has_sound_keys_and_may_be_frozen() {
    let schema = builtin_schema("", "v1", "ConfigMap");
    let bad = texts(&schema.validate(&json!({"data": {"a/b": "x"}}), None));
    assert!(
        bad[0].starts_with("data[a/b]: Invalid value: \"a/b\": a valid config key must"),
        "{bad:?}"
    );
    let old = json!({"immutable": true, "data": {"a": "x"}});
    let new = json!({"immutable": true, "data": {"a": "y"}});
    assert_eq!(
        texts(&schema.validate(&new, Some(&old))),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
}

#[test]
fn a_selector_matches_the_template_and_stays() {
    let schema = builtin_schema("apps", "v1", "Deployment");
    let old = deployment();
    let mut other = deployment();
    other["spec"]["template"]["metadata"]["labels"] = json!({"app": "b"});
    assert_eq!(
        texts(&schema.validate(&other, None)),
        [
            r#"spec.template.metadata.labels: Invalid value: {"app":"b"}: `selector` does not match template `labels`"#
        ]
    );
    other["spec"]["selector"]["matchLabels"] = json!({"app": "b"});
    assert_eq!(
        texts(&schema.validate(&other, Some(&old))),
        [r#"spec.selector: Invalid value: {"matchLabels":{"app":"b"}}: field is immutable"#]
    );
}

#[test]
fn a_pod_keeps_what_it_was_made_of() {
    let schema = builtin_schema("", "v1", "Pod");
    let old = pod();
    let mut new = pod();
    new["spec"]["containers"][0]["image"] = json!("y");
    new["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    assert_eq!(schema.validate(&new, Some(&old)), []);
    new["spec"]["nodeName"] = json!("n1");
    let causes = texts(&schema.validate(&new, Some(&old)));
    assert!(
        causes[0].starts_with("spec: Forbidden: pod updates may not change fields other than"),
        "{causes:?}"
    );
}

#[test]
fn wrong_types_are_named() {
    let schema = builtin_schema("apps", "v1", "Deployment");
    let mut object = deployment();
    object["spec"]["replicas"] = json!("2");
    object["spec"]["template"]["spec"]["containers"][0]["ports"] =
        json!([{"containerPort": 5_000_000_000_u64}]);
    assert_eq!(
        texts(&schema.validate(&object, None)),
        [
            r#"spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string""#,
            "spec.template.spec.containers[0].ports[0].containerPort: Invalid value: \"5000000000\": \
             spec.template.spec.containers[0].ports[0].containerPort in body must be of type int32: 5000000000",
        ]
    );
}
