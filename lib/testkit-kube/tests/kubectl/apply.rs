//! `apply`, of both kinds, and `diff`.

use crate::harness::{Kubectl, deployment};

#[tokio::test]
async fn applying_creates_configures_and_leaves_alone() {
    let kubectl = Kubectl::start().await;
    let (one, two) = (
        deployment("web", 1, "main:1"),
        deployment("web", 2, "main:2"),
    );
    let apply = async |manifest: &str| kubectl.say_with("apply -f -", manifest).await;
    assert_eq!(apply(&one).await, "deployment.apps/web created\n");
    assert_eq!(apply(&one).await, "deployment.apps/web unchanged\n");
    assert_eq!(apply(&two).await, "deployment.apps/web configured\n");
    let image = "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}";
    assert_eq!(kubectl.say(image).await, "main:2");
    // What is no longer in the manifest goes, what others added stays.
    kubectl.say("label deployment web by=hand").await;
    let with = one.replace(
        "labels: {app: web}\nspec",
        "labels: {app: web, tier: x}\nspec",
    );
    assert_eq!(apply(&with).await, "deployment.apps/web configured\n");
    assert_eq!(apply(&one).await, "deployment.apps/web configured\n");
    let labels = kubectl
        .say("get deployment web -o jsonpath={.metadata.labels}")
        .await;
    assert_eq!(labels, r#"{"app":"web","by":"hand"}"#);
}

#[tokio::test]
async fn a_list_is_merged_by_name() {
    let kubectl = Kubectl::start().await;
    let one = deployment("web", 1, "main:1");
    kubectl.say_with("apply -f -", &one).await;
    let side = one.replace(
        "      - name: main",
        "      - name: side\n        image: side:1\n      - name: main",
    );
    kubectl.say_with("apply -f -", &side).await;
    let names = "get deployment web -o jsonpath={.spec.template.spec.containers[*].name}";
    assert_eq!(kubectl.say(names).await, "side main");
    kubectl.say_with("apply -f -", &one).await;
    assert_eq!(kubectl.say(names).await, "main");
}

#[tokio::test]
async fn a_server_side_apply_respects_owners_until_forced() {
    let kubectl = Kubectl::start().await;
    let apply = "apply --server-side -f -";
    let said = kubectl
        .say_with(apply, &deployment("web", 1, "main:1"))
        .await;
    assert_eq!(said, "deployment.apps/web serverside-applied\n");
    let other = "apply --server-side --field-manager=other -f -";
    let refused = kubectl
        .try_with(other, &deployment("web", 5, "main:1"))
        .await
        .fails();
    assert!(
        refused.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas"),
        "{refused}"
    );
    assert!(refused.contains("--force-conflicts"), "{refused}");
    let forced = "apply --server-side --field-manager=other --force-conflicts -f -";
    kubectl
        .say_with(forced, &deployment("web", 5, "main:1"))
        .await;
    let replicas = kubectl
        .say("get deployment web -o jsonpath={.spec.replicas}")
        .await;
    assert_eq!(replicas, "5");
}

#[tokio::test]
async fn unknown_fields_are_refused_by_name() {
    let kubectl = Kubectl::start().await;
    let wrong = deployment("web", 1, "main:1").replace("replicas", "replcias");
    let refused = kubectl.try_with("apply -f -", &wrong).await.fails();
    let expected = if kubectl.minor >= 25 {
        "unknown field \"spec.replcias\""
    } else {
        "unknown field \"replcias\" in io.k8s.api.apps.v1.DeploymentSpec"
    };
    assert!(refused.contains(expected), "{refused}");
    let wrong = deployment("web", 1, "main:1").replace("replicas: 1", "replicas: many");
    let refused = kubectl.try_with("apply -f -", &wrong).await.fails();
    assert!(refused.contains("replicas"), "{refused}");
    let refused = kubectl
        .try_with("apply -f -", "apiVersion: v1\nkind: Nothing\n")
        .await
        .fails();
    assert!(refused.contains("Nothing"), "{refused}");
}

#[tokio::test]
async fn an_invalid_object_is_refused_in_the_servers_words() {
    let kubectl = Kubectl::start().await;
    let wrong = deployment("web", 1, "main:1").replace("name: web", "name: WEB");
    let refused = kubectl.try_with("apply -f -", &wrong).await.fails();
    let expected = "The Deployment \"WEB\" is invalid: metadata.name: Invalid value: \"WEB\": a lowercase \
                    RFC 1123 subdomain must consist of lower case alphanumeric characters";
    assert!(refused.contains(expected), "{refused}");
}

#[tokio::test]
async fn a_dry_run_on_the_server_changes_nothing() {
    let kubectl = Kubectl::start().await;
    let dry = "apply --dry-run=server -f -";
    let said = kubectl.say_with(dry, &deployment("web", 1, "main:1")).await;
    assert_eq!(said, "deployment.apps/web created (server dry run)\n");
    let missing = kubectl.attempt("get deployment web").await.fails();
    assert_eq!(
        missing,
        "Error from server (NotFound): deployments.apps \"web\" not found\n"
    );
}

#[tokio::test]
async fn a_diff_shows_what_would_change() {
    let kubectl = Kubectl::start().await;
    kubectl
        .say_with("apply -f -", &deployment("web", 1, "main:1"))
        .await;
    let same = kubectl
        .say_with("diff -f -", &deployment("web", 1, "main:1"))
        .await;
    assert_eq!(same, "");
    let said = kubectl
        .try_with("diff -f -", &deployment("web", 1, "main:2"))
        .await;
    assert!(!said.ok);
    assert!(
        said.out.contains("-        image: main:1\n")
            || said.out.contains("-      - image: main:1\n"),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("image: main:2\n"),
        "{}{}",
        said.out,
        said.err
    );
}

#[tokio::test]
async fn many_objects_are_applied_and_deleted_at_once() {
    let kubectl = Kubectl::start().await;
    let many = format!(
        "{}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: conf}}\ndata: {{a: b}}\n",
        deployment("web", 1, "main:1")
    );
    let said = kubectl.say_with("apply -f -", &many).await;
    assert_eq!(
        said,
        "deployment.apps/web created\nconfigmap/conf created\n"
    );
    let said = kubectl.say_with("delete -f -", &many).await;
    assert!(said.contains("deployment.apps \"web\" deleted"), "{said}");
    assert!(said.contains("configmap \"conf\" deleted"), "{said}");
}
