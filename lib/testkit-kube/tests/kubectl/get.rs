//! `get` and `describe`: what people see.

use crate::harness::{Kubectl, cells, deployment};

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: one}}
spec: {nodeName: n1, containers: [{name: main, image: 'main:1'}, {name: side, image: 'side:1'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, labels: {app: two}}
spec: {containers: [{name: main, image: 'main:1'}]}
";

#[tokio::test]
async fn pods_are_shown_as_a_table() {
    let kubectl = Kubectl::start().await;
    kubectl.say_with("apply -f -", PODS).await;
    let table = kubectl.say("get pods").await;
    let expected = [
        vec!["NAME", "READY", "STATUS", "RESTARTS"],
        vec!["a", "0/2", "Pending", "0"],
        vec!["b", "0/1", "Pending", "0"],
    ];
    assert_eq!(cells(&table), expected);
    let wide = kubectl.say("get pods -o wide").await;
    let header: Vec<_> = wide.lines().next().unwrap().split_whitespace().collect();
    let columns = ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"];
    assert_eq!(header[..7], columns);
    assert!(wide.lines().nth(1).unwrap().contains("n1"), "{wide}");
    let labels = kubectl.say("get pods --show-labels").await;
    assert!(labels.contains("app=one"), "{labels}");
    let column = kubectl.say("get pods -L app --no-headers").await;
    assert!(column.lines().next().unwrap().ends_with("one"), "{column}");
}

#[tokio::test]
async fn objects_are_shown_in_every_form() {
    let kubectl = Kubectl::start().await;
    kubectl.say_with("apply -f -", PODS).await;
    assert_eq!(kubectl.say("get pods -o name").await, "pod/a\npod/b\n");
    let images = kubectl
        .say("get po -o jsonpath={.items[*].spec.containers[*].image}")
        .await;
    assert_eq!(images, "main:1 side:1 main:1");
    let yaml = kubectl.say("get pod a -o yaml").await;
    assert!(
        yaml.starts_with("apiVersion: v1\nkind: Pod\nmetadata:\n"),
        "{yaml}"
    );
    let json = kubectl.say("get pods -o json").await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["kind"], "List");
    assert_eq!(json["items"][1]["metadata"]["name"], "b");
    let custom = "get pods -o custom-columns=N:.metadata.name,C:.spec.nodeName";
    let said = kubectl.say(custom).await;
    let lines: Vec<Vec<_>> = said
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines,
        [vec!["N", "C"], vec!["a", "n1"], vec!["b", "<none>"]]
    );
    let template = "get pod a -o 'go-template={{.metadata.name}}'";
    assert_eq!(kubectl.say(template).await, "a");
    let sorted = "get pods --sort-by=.spec.nodeName -o name";
    assert_eq!(kubectl.say(sorted).await, "pod/b\npod/a\n");
}

#[tokio::test]
async fn selectors_select() {
    let kubectl = Kubectl::start().await;
    kubectl.say_with("apply -f -", PODS).await;
    assert_eq!(kubectl.say("get pods -l app=one -o name").await, "pod/a\n");
    assert_eq!(
        kubectl
            .say("get pods -l 'app in (two,three)' -o name")
            .await,
        "pod/b\n"
    );
    let on_node = "get pods --field-selector spec.nodeName=n1 -o name";
    assert_eq!(kubectl.say(on_node).await, "pod/a\n");
    assert_eq!(
        kubectl.say("get pods --chunk-size=1 -o name").await,
        "pod/a\npod/b\n"
    );
    let all = kubectl.say("get pods -A --no-headers").await;
    let here = all
        .lines()
        .filter(|line| line.starts_with(&kubectl.namespace));
    assert_eq!(here.count(), 2, "{all}");
    let none = kubectl.attempt("get pods -l app=none").await;
    assert!(
        none.ok && none.err.starts_with("No resources found in "),
        "{none:?}"
    );
}

#[tokio::test]
async fn several_resources_are_shown_at_once() {
    let kubectl = Kubectl::start().await;
    kubectl.say_with("apply -f -", PODS).await;
    kubectl
        .say_with("apply -f -", &deployment("web", 2, "main:1"))
        .await;
    let said = kubectl.say("get deploy,po -o name").await;
    assert_eq!(said, "deployment.apps/web\npod/a\npod/b\n");
    let all = kubectl.say("get all").await;
    assert!(
        all.contains("pod/a ") && all.contains("deployment.apps/web "),
        "{all}"
    );
    let said = kubectl.say("get deployment/web pod/a -o name").await;
    assert_eq!(said, "deployment.apps/web\npod/a\n");
    let table = kubectl.say("get deployment").await;
    let expected = [
        vec!["NAME", "READY", "UP-TO-DATE", "AVAILABLE"],
        vec!["web", "0/2", "0", "0"],
    ];
    assert_eq!(cells(&table), expected);
}

#[tokio::test]
async fn the_usual_tables_have_their_columns() {
    let kubectl = Kubectl::start().await;
    kubectl
        .say("create configmap c --from-literal=a=1 --from-literal=b=2")
        .await;
    kubectl
        .say("create secret generic s --from-literal=a=1")
        .await;
    kubectl
        .say("create service clusterip web --tcp=80:8080")
        .await;
    kubectl.say("create serviceaccount sa").await;
    let row = async |what: &str| {
        let table = kubectl.say(&format!("get {what}")).await;
        let cells = cells(&table);
        let owned = |row: &Vec<&str>| row.join(" ");
        (owned(&cells[0]), owned(&cells[1]))
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(row("configmap c").await, pair("NAME DATA", "c 2"));
    assert_eq!(row("secret s").await, pair("NAME TYPE DATA", "s Opaque 1"));
    let (header, service) = row("service web").await;
    assert_eq!(header, "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S)");
    assert!(service.starts_with("web ClusterIP "), "{service}");
    assert!(service.ends_with("<none> 80/TCP"), "{service}");
    let (header, _) = row("serviceaccount sa").await;
    assert!(header.starts_with("NAME"), "{header}");
    let (header, namespace) = row(&format!("namespace {}", kubectl.namespace)).await;
    let expected = format!("{} Active", kubectl.namespace);
    assert_eq!((header.as_str(), namespace), ("NAME STATUS", expected));
}

#[tokio::test]
async fn a_watch_goes_on_with_what_changes() {
    let kubectl = Kubectl::start().await;
    kubectl.say_with("apply -f -", PODS).await;
    let mut watch = kubectl.follow("get pods -w -l app --output-watch-events");
    let mut next = async || {
        let line = watch.line().await;
        let words: Vec<_> = line.split_whitespace().take(2).map(str::to_owned).collect();
        words.join(" ")
    };
    assert_eq!(next().await, "EVENT NAME");
    assert_eq!(next().await, "ADDED a");
    assert_eq!(next().await, "ADDED b");
    kubectl.say("label pod a more=1").await;
    assert_eq!(next().await, "MODIFIED a");
    kubectl.say("delete pod b --grace-period=0 --force").await;
    let mut event = next().await;
    if event == "MODIFIED b" {
        event = next().await;
    }
    assert_eq!(event, "DELETED b");
}

#[tokio::test]
async fn an_object_is_described() {
    let kubectl = Kubectl::start().await;
    kubectl
        .say_with("apply -f -", &deployment("web", 2, "main:1"))
        .await;
    kubectl.say_with("apply -f -", PODS).await;
    let said = kubectl.say("describe deployment web").await;
    let spaced: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in [
        "Name: web",
        "Replicas: 2 desired",
        "Image: main:1",
        "Selector: app=web",
    ] {
        assert!(spaced.contains(text), "{text}: {said}");
    }
    let said = kubectl.say("describe pod a").await;
    for text in ["Node:", "Status:", "Containers:", "side:1", "Events:"] {
        assert!(said.contains(text), "{text}: {said}");
    }
    kubectl
        .say("create service clusterip web --tcp=80:8080")
        .await;
    let said = kubectl.say("describe service web").await;
    assert!(
        said.contains("Type:") && said.contains("ClusterIP"),
        "{said}"
    );
    let said = kubectl
        .say(&format!("describe namespace {}", kubectl.namespace))
        .await;
    assert!(
        said.contains("Status:") && said.contains("Active"),
        "{said}"
    );
}

#[tokio::test]
async fn what_is_missing_is_said_plainly() {
    let kubectl = Kubectl::start().await;
    let said = kubectl.attempt("get pod none").await.fails();
    assert_eq!(
        said,
        "Error from server (NotFound): pods \"none\" not found\n"
    );
    let said = kubectl.attempt("get nothings").await.fails();
    assert!(
        said.contains("the server doesn't have a resource type \"nothings\""),
        "{said}"
    );
    let said = kubectl.attempt("get pod none --ignore-not-found").await;
    assert!(said.ok && said.out.is_empty(), "{said:?}");
}
