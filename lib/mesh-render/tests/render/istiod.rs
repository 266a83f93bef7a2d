//! The control plane: what values change.

use mesh_render::{
    Object, PlatformKind, Rendered,
    istiod::{self, Revision},
};
use serde_json::{Value, json};

use crate::cases::{self, revision, settings};

const KUBERNETES: PlatformKind = PlatformKind::Kubernetes;

fn rendered(values: &Value) -> Rendered {
    revision("default", values, &settings(KUBERNETES)).unwrap()
}

fn refusal(values: &Value) -> String {
    revision("default", values, &settings(KUBERNETES))
        .unwrap_err()
        .to_string()
}

fn notes(values: &Value) -> Vec<String> {
    rendered(values)
        .notes
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn find<'a>(rendered: &'a Rendered, kind: &str, name: &str) -> Option<&'a Object> {
    let mut objects = rendered.objects.iter();
    objects.find(|object| object.kind.kind == kind && object.name == name)
}

fn body(values: &Value, kind: &str, name: &str) -> Value {
    find(&rendered(values), kind, name).unwrap().body.clone()
}

fn container(values: &Value) -> Value {
    body(values, "Deployment", "istiod")["spec"]["template"]["spec"]["containers"][0].clone()
}

fn variable(values: &Value, name: &str) -> Option<String> {
    let container = container(values);
    let env = container["env"].as_array().unwrap();
    let found: Vec<_> = env
        .iter()
        .filter(|variable| variable["name"] == name)
        .collect();
    assert!(found.len() < 2, "{name} is set twice");
    Some(found.first()?["value"].as_str()?.to_owned())
}

fn kinds(rendered: &Rendered) -> Vec<String> {
    let objects = rendered.objects.iter();
    objects
        .map(|object| format!("{} {}", object.kind.kind, object.name))
        .collect()
}

#[test]
fn a_control_plane_has_accounts_and_rights_before_what_needs_them() {
    assert_eq!(
        kinds(&rendered(&json!({}))),
        [
            "ServiceAccount istiod",
            "ClusterRole istiod-clusterrole-istio-system",
            "ClusterRoleBinding istiod-clusterrole-istio-system",
            "Role istiod",
            "RoleBinding istiod",
            "ConfigMap istio",
            "ConfigMap values",
            "Service istiod",
            "Deployment istiod",
            "HorizontalPodAutoscaler istiod",
        ]
    );
}

#[test]
fn everything_of_a_revision_has_its_name() {
    let settings = settings(KUBERNETES);
    let canary = revision("canary", &cases::canary(), &settings).unwrap();
    let named =
        |name: &str| name == "istiod-clusterrole-canary-istio-system" || name.ends_with("-canary");
    for object in &canary.objects {
        assert!(named(&object.name), "{}", object.name);
    }
    let service = &find(&canary, "Service", "istiod-canary").unwrap().body;
    let selector = json!({"app": "istiod", "istio.io/rev": "canary"});
    assert_eq!(service["spec"]["selector"], selector);
    let deployment = &find(&canary, "Deployment", "istiod-canary").unwrap().body;
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], selector);
    let pod = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(
        (&pod["istio.io/rev"], &pod["istio"]),
        (&json!("canary"), &json!("istiod"))
    );
}

#[test]
fn the_namespace_of_ztunnel_is_trusted_by_itself() {
    const NAME: &str = "CA_TRUSTED_NODE_ACCOUNTS";
    assert_eq!(variable(&json!({}), NAME).unwrap(), "ztunnel/ztunnel");
    let said = json!({"pilot": {"trustedZtunnelNamespace": "kube-system"}});
    assert_eq!(variable(&said, NAME).unwrap(), "kube-system/ztunnel");
    let mut settings = settings(KUBERNETES);
    settings.ztunnel_namespace = Some("node-proxies".to_owned());
    let rendered = revision("default", &json!({}), &settings).unwrap();
    let deployment = &find(&rendered, "Deployment", "istiod").unwrap().body;
    assert!(deployment.to_string().contains("node-proxies/ztunnel"));
}

#[test]
fn an_ambient_mesh_needs_no_profile() {
    assert_eq!(
        variable(&json!({}), "PILOT_ENABLE_AMBIENT").unwrap(),
        "true"
    );
    let mesh = body(&json!({}), "ConfigMap", "istio")["data"]["mesh"].clone();
    assert!(
        mesh.as_str()
            .unwrap()
            .contains("ISTIO_META_ENABLE_HBONE: \"true\""),
        "{mesh}"
    );
}

#[test]
fn that_ambient_is_off_is_noted_and_stays_without_effect() {
    let off = json!({"pilot": {"env": {"PILOT_ENABLE_AMBIENT": "false"}}});
    assert_eq!(variable(&off, "PILOT_ENABLE_AMBIENT").unwrap(), "true");
    assert_eq!(
        notes(&off),
        [
            "spec.values.pilot.env.PILOT_ENABLE_AMBIENT has no effect: the mesh is ambient, and nothing else is deployed"
        ]
    );
}

#[test]
fn what_istiod_knows_itself_by_is_not_the_users() {
    let field = json!({"fieldRef": {"fieldPath": "metadata.uid"}});
    let values = json!({"pilot": {
        "env": {"POD_NAMESPACE": "mine", "CLUSTER_ID": "mine"},
        "envVarFrom": [{"name": "A", "value": "a"}, {"name": "POD_NAME", "valueFrom": field}],
    }});
    let env = container(&values)["env"].clone();
    let variable = |name: &str| {
        let mut env = env.as_array().unwrap().iter();
        env.find(|variable| variable["name"] == name)
            .unwrap()
            .clone()
    };
    let path = |name| variable(name)["valueFrom"]["fieldRef"]["fieldPath"].clone();
    assert_eq!(path("POD_NAMESPACE"), "metadata.namespace");
    assert_eq!(path("POD_NAME"), "metadata.name");
    assert_eq!(variable("CLUSTER_ID")["value"], "mine");
    assert_eq!(variable("A")["value"], "a");
    let why = "has no effect: the program works only with what the operator sets it to";
    assert_eq!(
        notes(&values),
        ["env.POD_NAMESPACE", "envVarFrom[1]"]
            .map(|path| format!("spec.values.pilot.{path} {why}"))
    );
}

#[test]
fn what_would_keep_istiod_from_starting_is_refused_with_its_path() {
    for (values, text) in [
        (
            json!({"pilot": {"env": {"EXTERNAL_CA": "ISTIOD_RA_KUBERNETES_API"}}}),
            "pilot.env.EXTERNAL_CA",
        ),
        (
            json!({"pilot": {"taint": {"enabled": true}}}),
            "pilot.taint.enabled",
        ),
        (
            json!({"global": {"pilotCertProvider": "kubernetes"}}),
            "global.pilotCertProvider",
        ),
        (
            json!({"meshConfig": {"trustDomain": "not one"}}),
            "meshConfig.trustDomain: `not one`",
        ),
        (
            json!({"meshConfig": {"discoverySelectors": 1}}),
            "meshConfig.discoverySelectors: ",
        ),
        (
            json!({"pilot": {"autoscaleBehavior": {"scaleDown": 1}}}),
            "pilot.autoscaleBehavior: ",
        ),
        (
            json!({"pilot": {"env": {"A": "1"}, "envVarFrom": [{"name": "A"}]}}),
            "pilot.envVarFrom[0]: `A`",
        ),
    ] {
        let refusal = refusal(&values);
        assert!(
            refusal.starts_with(&format!("spec.values.{text}")),
            "{refusal}"
        );
    }
}

#[test]
fn arguments_that_our_istiod_does_not_have_are_left_out_and_noted() {
    let values = json!({"pilot": {"extraContainerArgs":
        ["--httpsAddr=:15017", "--tls-min-version", "1.3", "--domain", "corp.example"]}});
    let args = container(&values)["args"].clone();
    let args: Vec<_> = args
        .as_array()
        .unwrap()
        .iter()
        .map(|arg| arg.as_str().unwrap())
        .collect();
    assert_eq!(
        args[5..],
        ["--httpsAddr=:15017", "--domain", "corp.example"]
    );
    let notes = notes(&values);
    assert_eq!(notes.len(), 2);
    assert!(
        notes[0].contains("pilot.extraContainerArgs[1] has no effect"),
        "{notes:?}"
    );
}

#[test]
fn a_misspelt_key_of_the_mesh_configuration_is_noted() {
    let misspelt = json!({"meshConfig": {"trustDomains": ["a"]}});
    let expected = "spec.values.meshConfig.trustDomains";
    assert!(
        notes(&misspelt)
            .iter()
            .any(|note| note.starts_with(expected)),
        "{:?}",
        notes(&misspelt)
    );
}

#[test]
fn istios_images_get_istios_ports_rights_and_variables() {
    let istio = rendered(&json!({"global": {"hub": "docker.io/istio"}}));
    let names = kinds(&istio);
    for name in [
        "ServiceAccount istio-reader-service-account",
        "ClusterRole istiod-gateway-controller-istio-system",
        "ClusterRole istio-reader-clusterrole-istio-system",
    ] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
    let text = istio.to_yaml();
    assert!(text.contains("containerPort: 15010") && text.contains("targetPort: 15017"));
    let ours = rendered(&json!({})).to_yaml();
    for word in [
        "15010",
        "15017",
        "gateway-controller",
        "reader",
        "KUBECONFIG",
    ] {
        assert!(!ours.contains(word), "{word}");
    }
}

#[test]
fn only_a_named_secret_can_be_read_and_none_outside_the_namespace() {
    let rendered = rendered(&json!({}));
    for object in &rendered.objects {
        for rule in object.body["rules"].as_array().into_iter().flatten() {
            let verbs = &rule["verbs"];
            assert!(
                !verbs.as_array().unwrap().contains(&json!("delete")),
                "{rule}"
            );
            if rule["resources"]
                .as_array()
                .unwrap()
                .contains(&json!("secrets"))
            {
                assert_eq!(object.kind.kind, "Role");
                let by_name = rule["resourceNames"] == json!(["istio-ca-secret"]);
                assert!(by_name || *verbs == json!(["create"]), "{rule}");
            }
        }
    }
}

#[test]
fn a_revision_may_hold_the_locks_that_it_takes() {
    let canary = revision("canary", &cases::canary(), &settings(KUBERNETES)).unwrap();
    let role = find(&canary, "Role", "istiod-canary")
        .unwrap()
        .body
        .to_string();
    assert!(
        role.contains("istio-namespace-controller-election-canary"),
        "{role}"
    );
    assert!(role.contains("istio-status-leader-canary"), "{role}");
}

#[test]
fn one_replica_has_no_disruption_budget_and_two_have() {
    const KIND: &str = "PodDisruptionBudget";
    assert!(find(&rendered(&json!({})), KIND, "istiod").is_none());
    let two = json!({"pilot": {"autoscaleMin": 2}});
    assert_eq!(body(&two, KIND, "istiod")["spec"]["minAvailable"], 1);
    let fixed = json!({"pilot": {"autoscaleEnabled": false, "replicaCount": 3, "pdb": {"maxUnavailable": 1}}});
    let spec = body(&fixed, KIND, "istiod")["spec"].clone();
    assert_eq!(
        (&spec["maxUnavailable"], &spec["minAvailable"]),
        (&json!(1), &Value::Null)
    );
    assert_eq!(body(&fixed, "Deployment", "istiod")["spec"]["replicas"], 3);
    assert!(find(&rendered(&fixed), "HorizontalPodAutoscaler", "istiod").is_none());
    assert_eq!(
        body(&two, "Deployment", "istiod")["spec"]["replicas"],
        Value::Null
    );
}

#[test]
fn a_scope_leaves_the_other_objects_to_somebody_else() {
    let scoped = |scope: &str| rendered(&json!({"global": {"resourceScope": scope}})).objects;
    assert!(
        scoped("cluster")
            .iter()
            .all(|object| !object.kind.namespaced)
    );
    assert!(
        scoped("namespace")
            .iter()
            .all(|object| object.kind.namespaced)
    );
    let both = scoped("cluster").len() + scoped("namespace").len();
    assert_eq!(scoped("all").len(), both);
}

#[test]
fn the_values_of_a_revision_are_those_of_its_istio_and_its_name() {
    let user = json!({"pilot": {"replicaCount": 2}, "defaultRevision": "x"});
    let user = user.as_object().unwrap();
    let values = istiod::revision_values(Some("ambient"), user, "canary", "mesh");
    assert_eq!(
        Value::Object(values),
        json!({"pilot": {"replicaCount": 2}, "profile": "ambient", "revision": "canary",
            "global": {"istioNamespace": "mesh"}})
    );
    let values = istiod::revision_values(None, &serde_json::Map::new(), "default", "mesh");
    assert_eq!(
        Value::Object(values),
        json!({"revision": "", "global": {"istioNamespace": "mesh"}})
    );
}

#[test]
fn a_tag_is_a_service_before_the_pods_of_its_revision() {
    let values = cases::canary();
    let revision = Revision {
        name: "canary",
        namespace: "istio-system",
        values: values.as_object().unwrap(),
    };
    let tag = istiod::revision_tag("prod", revision, &settings(KUBERNETES)).unwrap();
    let service = &find(&tag, "Service", "istiod-revision-tag-prod")
        .unwrap()
        .body;
    assert_eq!(tag.objects.len(), 1);
    assert_eq!(service["metadata"]["labels"]["istio.io/tag"], "prod");
    assert_eq!(service["spec"]["selector"]["istio.io/rev"], "canary");
}
