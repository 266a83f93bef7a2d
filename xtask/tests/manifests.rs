//! The manifests with the real kubectl, whichever is in the PATH, on an embedded API server.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "manifests/guides.rs"]
mod guides;
#[path = "manifests/kubectl.rs"]
mod kubectl;

use serde::Deserialize as _;
use serde_json::Value;

use kubectl::{Kubectl, root};

/// The kinds of cluster that there is an overlay for.
const CLUSTERS: [&str; 5] = ["openshift", "vanilla", "kind", "k3s", "gke"];

/// The documents of the walkthrough, as its readers paste them.
const WALKTHROUGH: [&str; 3] = [
    "apiVersion: sailoperator.io/v1
kind: Istio
metadata:
  name: default
spec:
  version: v1.24.0
  namespace: istio-system
  updateStrategy:
    type: InPlace
  profile: ambient
  values:
    pilot:
      trustedZtunnelNamespace: ztunnel
    meshConfig:
      discoverySelectors:
        - matchLabels:
            istio-discovery: enabled
",
    "apiVersion: sailoperator.io/v1
kind: IstioCNI
metadata:
  name: default
spec:
  profile: ambient
  version: v1.24.0
  namespace: istio-cni
",
    "apiVersion: sailoperator.io/v1alpha1
kind: ZTunnel
metadata:
  name: default
spec:
  profile: ambient
  version: v1.24.0
  namespace: ztunnel
  values:
    ztunnel:
      image: docker.io/istio/ztunnel:1.24.0
",
];

fn documents(text: &str) -> Vec<Value> {
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    documents
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn operator() -> Vec<Value> {
    documents(&std::fs::read_to_string(root().join("manifests/operator.yaml")).unwrap())
}

#[tokio::test]
async fn the_operator_is_applied_with_one_command_and_again_without_a_change() {
    let kubectl = Kubectl::start().await;
    kubectl.say("apply -f manifests/operator.yaml").await;
    let again = kubectl.say("apply -f manifests/operator.yaml").await;
    let changed: Vec<_> = again
        .lines()
        .filter(|line| !line.ends_with(" unchanged"))
        .collect();
    assert_eq!(changed, Vec::<&str>::new());
    let server_side = "apply --server-side --force-conflicts -f manifests/operator.yaml";
    kubectl.say(server_side).await;
    kubectl
        .say("delete --ignore-not-found -f manifests/operator.yaml")
        .await;
}

#[tokio::test]
async fn the_walkthrough_is_taken_as_it_is_written() {
    let kubectl = Kubectl::with_crds().await;
    for document in WALKTHROUGH {
        kubectl.say_with("apply -f -", document).await;
    }
    let columns = |table: String| {
        table
            .lines()
            .next()
            .unwrap()
            .split("  ")
            .map(str::trim)
            .filter(|c| !c.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let istio = columns(kubectl.say("get istio").await);
    assert_eq!(
        istio,
        [
            "NAME",
            "REVISIONS",
            "READY",
            "IN USE",
            "ACTIVE REVISION",
            "STATUS",
            "VERSION",
            "AGE"
        ]
    );
    for node in ["istiocni", "ztunnel"] {
        let columns = columns(kubectl.say(&format!("get {node}")).await);
        assert_eq!(columns, ["NAME", "READY", "STATUS", "VERSION", "AGE"]);
    }
    let older = kubectl
        .say("get ztunnels.v1alpha1.sailoperator.io default -o jsonpath={.spec.profile}")
        .await;
    assert_eq!(older, "ambient");
    for name in ["istiorev", "istiorevtag", "istio-io"] {
        kubectl.say(&format!("get {name}")).await;
    }
}

#[tokio::test]
async fn the_resources_of_an_ambient_mesh_are_taken() {
    let kubectl = Kubectl::with_crds().await;
    kubectl.say("apply -f manifests/ambient.yaml").await;
    let made = kubectl.say("get istio,istiocni,ztunnel -o name").await;
    assert_eq!(made.lines().count(), 3, "{made}");
    for cluster in CLUSTERS {
        kubectl
            .say(&format!("apply -k manifests/overlays/{cluster}"))
            .await;
    }
}

#[tokio::test]
async fn an_overlay_says_what_its_clusters_need() {
    let kubectl = Kubectl::start().await;
    let mut values = Vec::new();
    for cluster in CLUSTERS {
        let objects = documents(
            &kubectl
                .say(&format!("kustomize manifests/overlays/{cluster}"))
                .await,
        );
        assert_eq!(objects.len(), 6, "{cluster}");
        let cni = objects
            .iter()
            .find(|object| object["kind"] == "IstioCNI")
            .unwrap();
        let istio = objects
            .iter()
            .find(|object| object["kind"] == "Istio")
            .unwrap();
        let platform = cni["spec"]["values"]["global"]["platform"]
            .as_str()
            .unwrap_or_default();
        assert_eq!(
            istio["spec"]["values"]["global"]["platform"]
                .as_str()
                .unwrap_or_default(),
            platform
        );
        let memory = &istio["spec"]["values"]["pilot"]["resources"]["requests"]["memory"];
        values.push(format!(
            "{cluster}: {platform} {}",
            memory.as_str().unwrap_or("-")
        ));
    }
    assert_eq!(
        values,
        [
            "openshift: openshift -",
            "vanilla:  -",
            "kind:  128Mi",
            "k3s: k3s -",
            "gke: gke -"
        ]
    );
    for part in ["operator", "crds"] {
        kubectl.say(&format!("kustomize manifests/{part}")).await;
    }
}

#[tokio::test]
async fn a_refused_resource_says_why() {
    let kubectl = Kubectl::with_crds().await;
    let named = WALKTHROUGH[1].replace("name: default", "name: mine");
    let text = kubectl.complaint(&named).await;
    assert!(text.contains("metadata.name must be 'default'"), "{text}");
    kubectl.say_with("apply -f -", WALKTHROUGH[2]).await;
    let moved = WALKTHROUGH[2].replace("namespace: ztunnel", "namespace: other");
    let text = kubectl.complaint(&moved).await;
    assert!(
        text.contains("spec.namespace: Invalid value: \"string\": Value is immutable"),
        "{text}"
    );
    let newer = WALKTHROUGH[0].replace("v1.24.0", "v9.9.9");
    let text = kubectl.complaint(&newer).await;
    assert!(
        text.contains(
            "spec.version: Unsupported value: \"v9.9.9\": supported values: \"v1.31-latest\""
        ),
        "{text}"
    );
    let typo = WALKTHROUGH[0].replace("updateStrategy:", "updateStrategie:");
    let text = kubectl.complaint(&typo).await;
    assert!(
        text.contains("unknown field") && text.contains("updateStrategie"),
        "{text}"
    );
}

#[tokio::test]
async fn fields_are_explained_on_the_command_line() {
    let kubectl = Kubectl::with_crds().await;
    let mut expected = vec![
        ("istio.spec.updateStrategy.type", "changes the one revision"),
        ("ztunnel.spec.targetRef", "control plane whose settings"),
    ];
    // Older ones read a form of the schemas in which what may have other fields has none.
    if kubectl.minor().await >= 27 {
        let field = "istio.spec.values.pilot.trustedZtunnelNamespace";
        expected.push((field, "whose ztunnels get certificates"));
    }
    for (field, words) in expected {
        let text = kubectl.say(&format!("explain {field}")).await;
        let text: Vec<_> = text.split_whitespace().collect();
        assert!(text.join(" ").contains(words), "{field}: {text:?}");
    }
}

/// What OpenShift's `restricted-v2` and the Pod Security Standard `restricted` ask for.
#[test]
fn the_operator_runs_with_no_privilege() {
    let objects = operator();
    let deployment = objects
        .iter()
        .find(|object| object["kind"] == "Deployment")
        .unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    for word in ["hostNetwork", "hostPID", "hostIPC", "volumes"] {
        assert!(pod[word].is_null(), "{word}");
    }
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]));
        assert!(
            context["runAsUser"].is_null(),
            "OpenShift gives it a user of the namespace's"
        );
    }
    let namespace = objects
        .iter()
        .find(|object| object["kind"] == "Namespace")
        .unwrap();
    assert_eq!(
        namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"],
        "restricted"
    );
}

#[test]
fn what_is_applied_first_is_there_for_what_needs_it() {
    let kinds: Vec<_> = operator()
        .iter()
        .map(|object| object["kind"].as_str().unwrap().to_owned())
        .collect();
    let first = |kind: &str| kinds.iter().position(|other| other == kind).unwrap();
    assert_eq!(first("Namespace"), 0);
    assert!(first("CustomResourceDefinition") < first("Deployment"));
    assert!(first("ServiceAccount") < first("Deployment"));
    assert!(first("ClusterRoleBinding") < first("Deployment"));
}

#[test]
fn the_rights_are_those_of_the_account_that_the_operator_runs_as() {
    let objects = operator();
    let of = |kind: &str| {
        objects
            .iter()
            .filter(move |object| object["kind"] == kind)
            .collect::<Vec<_>>()
    };
    let account = &of("Deployment")[0]["spec"]["template"]["spec"]["serviceAccountName"];
    assert_eq!(of("ServiceAccount")[0]["metadata"]["name"], *account);
    for binding in [of("ClusterRoleBinding"), of("RoleBinding")].concat() {
        assert_eq!(binding["subjects"][0]["name"], *account);
        assert_eq!(
            binding["subjects"][0]["namespace"],
            of("Namespace")[0]["metadata"]["name"]
        );
    }
    for role in [of("ClusterRole"), of("Role")].concat() {
        let rights = role["rules"].to_string();
        for word in ["\"*\"", "escalate", "\"bind\"", "impersonate"] {
            assert!(
                !rights.contains(word),
                "{}: {word}",
                role["metadata"]["name"]
            );
        }
    }
}
