//! Commands that change what there is, and that wait for it.

use crate::harness::{Kubectl, deployment};

async fn with_deployment() -> Kubectl {
    let kubectl = Kubectl::start().await;
    kubectl
        .say_with("apply -f -", &deployment("web", 1, "main:1"))
        .await;
    kubectl
}

#[tokio::test]
async fn patches_of_every_kind_are_taken() {
    let kubectl = with_deployment().await;
    let patched = "deployment.apps/web patched\n";
    let strategic =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"main:2"}]}}}}"#;
    let said = kubectl
        .say(&format!("patch deployment web -p '{strategic}'"))
        .await;
    assert_eq!(said, patched);
    let merge = r#"{"metadata":{"annotations":{"a":"b"}}}"#;
    let said = kubectl
        .say(&format!("patch deployment web --type=merge -p '{merge}'"))
        .await;
    assert_eq!(said, patched);
    let json = r#"[{"op":"replace","path":"/spec/replicas","value":3}]"#;
    let said = kubectl
        .say(&format!("patch deployment web --type=json -p '{json}'"))
        .await;
    assert_eq!(said, patched);
    let again = kubectl
        .say(&format!("patch deployment web --type=json -p '{json}'"))
        .await;
    assert_eq!(again, "deployment.apps/web patched (no change)\n");
    let now = "get deployment web -o \
               'jsonpath={.spec.replicas} {.metadata.annotations.a} {.spec.template.spec.containers[0].image}'";
    assert_eq!(kubectl.say(now).await, "3 b main:2");
    let wrong = r#"[{"op":"test","path":"/spec/replicas","value":7}]"#;
    let said = kubectl
        .attempt(&format!("patch deployment web --type=json -p '{wrong}'"))
        .await;
    said.fails();
}

#[tokio::test]
async fn labels_and_annotations_come_and_go() {
    let kubectl = with_deployment().await;
    for (command, said) in [
        ("label deployment web a=b", "deployment.apps/web labeled\n"),
        (
            "label deployment web a=c --overwrite",
            "deployment.apps/web labeled\n",
        ),
        (
            "annotate deployment web x=y",
            "deployment.apps/web annotated\n",
        ),
    ] {
        assert_eq!(kubectl.say(command).await, said);
    }
    let said = kubectl.attempt("label deployment web a=d").await.fails();
    assert!(said.contains("--overwrite is false"), "{said}");
    kubectl.say("label deployment web a-").await;
    let labels = kubectl
        .say("get deployment web -o jsonpath={.metadata.labels}")
        .await;
    assert_eq!(labels, r#"{"app":"web"}"#);
}

#[tokio::test]
async fn a_deployment_is_scaled_and_set() {
    let kubectl = with_deployment().await;
    let said = kubectl.say("scale deployment web --replicas=4").await;
    assert_eq!(said, "deployment.apps/web scaled\n");
    let said = kubectl
        .attempt("scale deployment web --current-replicas=1 --replicas=2")
        .await;
    assert!(said.fails().contains("Expected replicas to be 1, was 4"));
    let said = kubectl.say("set image deployment/web main=main:3").await;
    assert_eq!(said, "deployment.apps/web image updated\n");
    let said = kubectl.say("set env deployment/web A=B").await;
    assert_eq!(said, "deployment.apps/web env updated\n");
    let said = kubectl.say("rollout restart deployment web").await;
    assert_eq!(said, "deployment.apps/web restarted\n");
    let now = "get deployment web -o \
               'jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image} {.metadata.generation}'";
    assert_eq!(kubectl.say(now).await, "4 main:3 5");
}

#[tokio::test]
async fn a_rollout_is_waited_for() {
    let kubectl = with_deployment().await;
    let mut rollout = kubectl.follow("rollout status deployment web");
    let waiting = rollout.line().await;
    let observing = "Waiting for deployment spec update to be observed...";
    assert!(
        waiting == observing
            || waiting.contains("0 of 1 updated replicas are available")
            || waiting.contains("0 out of 1 new replicas have been updated"),
        "{waiting}"
    );
    status(&kubectl).await;
    let mut line = rollout.line().await;
    while line.starts_with("Waiting for deployment") {
        line = rollout.line().await;
    }
    assert_eq!(line, "deployment \"web\" successfully rolled out");
    kubectl
        .say("wait --for=condition=Available deployment/web --timeout=20s")
        .await;
}

/// What a controller would write. kubectl learned to patch a status in 1.24 only.
async fn status(kubectl: &Kubectl) {
    let object = kubectl.say("get deployment web -o json").await;
    let mut object: serde_json::Value = serde_json::from_str(&object).unwrap();
    object["status"] = serde_json::json!({
        "observedGeneration": object["metadata"]["generation"],
        "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
        "conditions": [{
            "type": "Available", "status": "True", "reason": "Tested", "message": "it is",
            "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    });
    let path = format!(
        "/apis/apps/v1/namespaces/{}/deployments/web/status",
        kubectl.namespace
    );
    kubectl
        .say_with(&format!("replace --raw {path} -f -"), &object.to_string())
        .await;
}

#[tokio::test]
async fn waiting_ends_with_the_condition_or_the_time() {
    let kubectl = with_deployment().await;
    let said = kubectl
        .attempt("wait --for=condition=Available deployment/web --timeout=1s")
        .await;
    assert!(
        said.fails()
            .contains("timed out waiting for the condition on deployments/web")
    );
    status(&kubectl).await;
    let said = kubectl
        .say("wait --for=condition=Available deployment/web --timeout=20s")
        .await;
    assert_eq!(said, "deployment.apps/web condition met\n");
    let deleting = kubectl.follow("wait --for=delete deployment/web --timeout=20s");
    kubectl.say("delete deployment web").await;
    drop(deleting);
}

#[tokio::test]
async fn deletion_waits_and_cascades_as_told() {
    let kubectl = with_deployment().await;
    let said = kubectl.say("delete deployment web").await;
    assert!(
        said.starts_with("deployment.apps \"web\" deleted"),
        "{said}"
    );
    kubectl.say("create configmap owner").await;
    let uid = kubectl
        .say("get configmap owner -o jsonpath={.metadata.uid}")
        .await;
    let dependent = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: dependent\n  ownerReferences:\n  \
         - {{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}\n"
    );
    kubectl.say_with("apply -f -", &dependent).await;
    kubectl.say("delete configmap owner --cascade=orphan").await;
    kubectl.say("get configmap dependent").await;
    let said = kubectl
        .say("delete configmap dependent --cascade=foreground")
        .await;
    assert!(
        said.starts_with("configmap \"dependent\" deleted"),
        "{said}"
    );
    kubectl.say("create configmap one").await;
    kubectl.say("create configmap two").await;
    let said = kubectl.say("delete configmap one two").await;
    assert_eq!(said.lines().count(), 2);
    let said = kubectl.attempt("delete configmap one").await.fails();
    assert_eq!(
        said,
        "Error from server (NotFound): configmaps \"one\" not found\n"
    );
    kubectl.say("delete configmap one --ignore-not-found").await;
}

#[tokio::test]
async fn deletion_waits_for_finalizers() {
    let kubectl = Kubectl::start().await;
    let manifest =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, finalizers: [example.com/f]}\n";
    kubectl.say_with("apply -f -", manifest).await;
    let mut deleting = kubectl.follow("delete configmap c");
    assert!(deleting.line().await.starts_with("configmap \"c\" deleted"));
    let since = kubectl
        .say("get configmap c -o jsonpath={.metadata.deletionTimestamp}")
        .await;
    assert!(since.ends_with('Z'), "{since}");
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    kubectl
        .say(&format!("patch configmap c --type=merge -p '{patch}'"))
        .await;
    kubectl.attempt("get configmap c").await.fails();
}

#[tokio::test]
async fn an_object_is_replaced_and_edited() {
    let kubectl = with_deployment().await;
    let said = kubectl
        .say_with("replace -f -", &deployment("web", 7, "main:7"))
        .await;
    assert_eq!(said, "deployment.apps/web replaced\n");
    let replicas = kubectl
        .say("get deployment web -o jsonpath={.spec.replicas}")
        .await;
    assert_eq!(replicas, "7");
}
