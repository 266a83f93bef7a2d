//! What the server says about itself: resources, versions, explanations.

use crate::harness::Kubectl;

#[tokio::test]
async fn resources_and_versions_are_listed() {
    let kubectl = Kubectl::start().await;
    let versions = kubectl.say("api-versions").await;
    for version in ["apps/v1", "rbac.authorization.k8s.io/v1", "v1"] {
        assert!(versions.lines().any(|line| line == version), "{versions}");
    }
    let table = kubectl.say("api-resources").await;
    let find = |name: &str| {
        let line = table
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name}: {table}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(find("configmaps"), "configmaps cm v1 true ConfigMap");
    assert_eq!(
        find("deployments"),
        "deployments deploy apps/v1 true Deployment"
    );
    assert_eq!(find("nodes"), "nodes no v1 false Node");
    let names = kubectl.say("api-resources -o name --api-group=apps").await;
    assert!(
        names.lines().any(|line| line == "deployments.apps"),
        "{names}"
    );
}

#[tokio::test]
async fn fields_are_explained() {
    let kubectl = Kubectl::start().await;
    let said = kubectl.say("explain deployment.spec.replicas").await;
    let spaced = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(spaced.contains("Number of desired pods."), "{said}");
    assert!(spaced.contains("<integer>"), "{said}");
    let said = kubectl.say("explain pod.spec.containers").await;
    assert!(
        said.contains("image") && said.contains("imagePullPolicy"),
        "{said}"
    );
    let said = kubectl.attempt("explain pod.spec.nothing").await.fails();
    assert!(said.contains("field \"nothing\" does not exist"), "{said}");
}

#[tokio::test]
async fn the_server_says_its_version() {
    let kubectl = Kubectl::start().await;
    let raw = kubectl.say("get --raw /version").await;
    let version: serde_json::Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(version["major"], "1");
    assert_eq!(kubectl.say("get --raw /readyz").await, "ok");
    kubectl.say("cluster-info").await;
}
