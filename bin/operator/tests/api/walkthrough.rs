//! The walkthrough of an ambient mesh, as a stranger follows it.

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Pod};
use mesh_api::sail::{Istio, IstioCNI, IstioRevision, ZTunnel};
use operator::reconcile::reconcilers;
use serde_json::json;

use super::{
    cluster::{Cluster, SYSTEM},
    kubectl::Kubectl,
    rollouts::Rollouts,
};

const ISTIO: &str = "
apiVersion: sailoperator.io/v1
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
";

const CNI: &str = "
apiVersion: sailoperator.io/v1
kind: IstioCNI
metadata:
  name: default
spec:
  profile: ambient
  version: v1.24.0
  namespace: istio-cni
";

const ZTUNNEL: &str = "
apiVersion: sailoperator.io/v1alpha1
kind: ZTunnel
metadata:
  name: default
spec:
  profile: ambient
  version: v1.24.0
  namespace: ztunnel
";

const ZTUNNEL_WITH_IMAGE: &str = "
apiVersion: sailoperator.io/v1alpha1
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
";

/// A cluster in which nothing of the mesh is yet.
async fn cluster() -> Cluster {
    let cluster = Cluster::bare().await;
    cluster.create_namespace(SYSTEM).await;
    cluster
}

async fn install(kubectl: &Kubectl) {
    kubectl.say("create namespace istio-system").await;
    kubectl
        .say("label namespace istio-system istio-discovery=enabled")
        .await;
    kubectl.say_with("apply -f-", ISTIO).await;
    kubectl
        .say("wait --for=condition=Ready istio/default --timeout=30s")
        .await;
    assert_eq!(
        kubectl.table("get istio -n istio-system").await,
        [
            "NAME | REVISIONS | READY | IN USE | ACTIVE REVISION | STATUS | VERSION",
            "default | 1 | 1 | 0 | default | Healthy | v1.24.0",
        ]
    );
    kubectl.say("create namespace istio-cni").await;
    kubectl.say_with("apply -f-", CNI).await;
    kubectl
        .say("wait --for=condition=Ready istiocni/default --timeout=30s")
        .await;
    kubectl.say("create namespace ztunnel").await;
    kubectl
        .say("label namespace ztunnel istio-discovery=enabled")
        .await;
    kubectl.say_with("apply -f-", ZTUNNEL).await;
    kubectl
        .say("wait --for=condition=Ready ztunnel/default --timeout=30s")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walkthrough_works_to_the_letter_and_leaves_no_trace() {
    let cluster = cluster().await;
    let before = cluster.contents();
    let operator = cluster.operator(reconcilers()).await;
    let rollouts = Rollouts::of(&cluster);
    let kubectl = Kubectl::of(&cluster);
    install(&kubectl).await;
    assert_eq!(
        kubectl.table("get ztunnel -n istio-system").await,
        [
            "NAME | READY | STATUS | VERSION",
            "default | True | Healthy | v1.24.0",
        ]
    );
    assert_eq!(
        kubectl.table("get istiocni").await,
        [
            "NAME | READY | STATUS | VERSION",
            "default | True | Healthy | v1.24.0",
        ]
    );
    cluster.until_state::<Istio>("default", "Healthy").await;

    kubectl.say("create ns bookinfo").await;
    kubectl
        .say("label namespace bookinfo istio-discovery=enabled")
        .await;
    kubectl
        .say("label namespace bookinfo istio.io/dataplane-mode=ambient")
        .await;
    kubectl
        .say("wait --for=condition=InUse istiorevision/default --timeout=30s")
        .await;
    kubectl
        .say("wait --for=jsonpath={.status.revisions.inUse}=1 istio/default --timeout=30s")
        .await;

    kubectl
        .say("label namespace bookinfo istio.io/dataplane-mode-")
        .await;
    kubectl
        .say("delete ztunnel,istiocni,istio default --timeout=30s")
        .await;
    kubectl
        .say("wait --for=delete istiorevision/default --timeout=30s")
        .await;
    kubectl
        .say("delete namespace bookinfo ztunnel istio-cni istio-system --timeout=30s")
        .await;
    assert_eq!(cluster.contents(), before);
    drop(rollouts);
    operator.running.life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_of_the_walkthroughs_ztunnel_is_used() {
    let cluster = cluster().await;
    let operator = cluster.operator(reconcilers()).await;
    let _rollouts = Rollouts::of(&cluster);
    let kubectl = Kubectl::of(&cluster);
    install(&kubectl).await;
    kubectl.say_with("apply -f-", ZTUNNEL_WITH_IMAGE).await;
    let uses = |object: Option<&serde_json::Value>| {
        let container = object.map(|object| &object["spec"]["template"]["spec"]["containers"][0]);
        container.is_some_and(|container| container["image"] == "docker.io/istio/ztunnel:1.24.0")
    };
    cluster
        .until::<DaemonSet>(Some("ztunnel"), "ztunnel", uses)
        .await;
    cluster.until_state::<ZTunnel>("default", "Healthy").await;
    operator.running.life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_is_explained() {
    let cluster = cluster().await;
    let kubectl = Kubectl::of(&cluster);
    for (field, word) in [
        ("istio.spec.updateStrategy", "InPlace"),
        ("istiorevision.spec.values", "control plane"),
        ("istiorevisiontag.spec.targetRef", "kind"),
        ("istiocni.spec.namespace", "namespace"),
        ("ztunnel.spec.version", "v1.24.0"),
    ] {
        let said = kubectl.say(&format!("explain {field}")).await;
        assert!(said.contains(word), "{field}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_components_wait_for_the_last_pod_to_leave_the_mesh() {
    let cluster = cluster().await;
    let operator = cluster.operator(reconcilers()).await;
    let _rollouts = Rollouts::of(&cluster);
    let kubectl = Kubectl::of(&cluster);
    install(&kubectl).await;
    kubectl.say("create ns bookinfo").await;
    let pod = json!({
        "metadata": {"name": "details", "namespace": "bookinfo",
            "annotations": {"ambient.istio.io/redirection": "enabled"}},
        "spec": {"containers": [{"name": "details", "image": "details"}]},
    });
    cluster.create::<Pod>(pod).await;
    kubectl
        .say("delete ztunnel,istiocni default --wait=false")
        .await;
    let blocked = |object: Option<&serde_json::Value>| {
        object.is_some_and(|object| object["status"]["state"] == "UninstallBlocked")
    };
    cluster.until::<ZTunnel>(None, "default", blocked).await;
    cluster.until::<IstioCNI>(None, "default", blocked).await;
    let said = kubectl.say("get ztunnel default -o jsonpath={.status.conditions[?(@.type==\"Uninstalled\")].message}").await;
    assert!(
        said.contains("bookinfo/details") && said.contains("istio.io/dataplane-mode-"),
        "{said}"
    );
    assert!(
        cluster
            .get::<DaemonSet>(Some("ztunnel"), "ztunnel")
            .is_some()
    );

    kubectl
        .say("annotate ztunnel default lateen.io/uninstall=force")
        .await;
    cluster.until_gone::<ZTunnel>(None, "default").await;
    assert!(cluster.get::<IstioCNI>(None, "default").is_some());
    kubectl
        .say("delete pod details -n bookinfo --timeout=30s")
        .await;
    cluster.until_gone::<IstioCNI>(None, "default").await;
    cluster
        .until_gone::<DaemonSet>(Some("istio-cni"), "istio-cni-node")
        .await;
    assert!(cluster.get::<IstioRevision>(None, "default").is_some());
    operator.running.life.stop().await;
}
