//! `create`, `run`, `expose` and their kind.

use crate::harness::{Kubectl, deployment, unique};

#[tokio::test]
async fn everything_is_created_by_its_command() {
    let kubectl = Kubectl::start().await;
    for (command, said) in [
        ("create configmap c --from-literal=a=b", "configmap/c"),
        ("create secret generic s --from-literal=a=b", "secret/s"),
        ("create serviceaccount sa", "serviceaccount/sa"),
        (
            "create deployment d --image=main:1 --replicas=0",
            "deployment.apps/d",
        ),
        ("create service clusterip web --tcp=80:8080", "service/web"),
        ("create job j --image=main:1", "job.batch/j"),
        (
            "create role r --verb=get,list --resource=pods",
            "role.rbac.authorization.k8s.io/r",
        ),
        (
            "create rolebinding rb --role=r --user=alice",
            "rolebinding.rbac.authorization.k8s.io/rb",
        ),
        (
            "create ingress i --rule=host/path=web:80",
            "ingress.networking.k8s.io/i",
        ),
    ] {
        assert_eq!(
            kubectl.say(command).await,
            format!("{said} created\n"),
            "{command}"
        );
    }
    assert_eq!(
        kubectl.say("get configmap c -o jsonpath={.data}").await,
        r#"{"a":"b"}"#
    );
    assert_eq!(
        kubectl.say("get secret s -o jsonpath={.data.a}").await,
        "Yg=="
    );
    assert_eq!(
        kubectl
            .say("get deployment d -o jsonpath={.spec.replicas}")
            .await,
        "0"
    );
    let port = kubectl
        .say("get service web -o jsonpath={.spec.ports[0].targetPort}")
        .await;
    assert_eq!(port, "8080");
    assert_eq!(
        kubectl
            .say("get role r -o jsonpath={.rules[0].verbs}")
            .await,
        r#"["get","list"]"#
    );
}

#[tokio::test]
async fn cluster_wide_objects_are_created_by_their_commands() {
    let kubectl = Kubectl::start().await;
    let name = unique("wide");
    for (command, said) in [
        (
            format!("create clusterrole {name} --verb=get --resource=nodes"),
            "clusterrole.rbac.authorization.k8s.io",
        ),
        (
            format!("create clusterrolebinding {name} --clusterrole={name} --user=alice"),
            "clusterrolebinding.rbac.authorization.k8s.io",
        ),
        (
            format!("create priorityclass {name} --value=5"),
            "priorityclass.scheduling.k8s.io",
        ),
    ] {
        assert_eq!(
            kubectl.say(&command).await,
            format!("{said}/{name} created\n")
        );
    }
    let delete = format!("delete clusterrole,clusterrolebinding,priorityclass {name}");
    kubectl.say(&delete).await;
}

#[tokio::test]
async fn what_exists_is_not_created_again() {
    let kubectl = Kubectl::start().await;
    kubectl.say("create configmap c").await;
    let said = kubectl.attempt("create configmap c").await.fails();
    assert!(said.contains("configmaps \"c\" already exists"), "{said}");
    let manifest = deployment("web", 1, "main:1");
    kubectl.say_with("create -f -", &manifest).await;
    let said = kubectl.try_with("create -f -", &manifest).await.fails();
    let expected = "Error from server (AlreadyExists): error when creating \"STDIN\": \
                    deployments.apps \"web\" already exists\n";
    assert_eq!(said, expected);
}

#[tokio::test]
async fn a_pod_is_run_and_a_deployment_exposed() {
    let kubectl = Kubectl::start().await;
    assert_eq!(
        kubectl.say("run p --image=main:1 --port=80").await,
        "pod/p created\n"
    );
    let said = kubectl.say("expose pod p --port=80 --name=of-pod").await;
    assert_eq!(said, "service/of-pod exposed\n");
    kubectl
        .say_with("apply -f -", &deployment("web", 1, "main:1"))
        .await;
    let said = kubectl
        .say("expose deployment web --port=80 --target-port=8080")
        .await;
    assert_eq!(said, "service/web exposed\n");
    let selector = kubectl
        .say("get service web -o jsonpath={.spec.selector}")
        .await;
    assert_eq!(selector, r#"{"app":"web"}"#);
}

#[tokio::test]
async fn a_dry_run_prints_what_it_would_create() {
    let kubectl = Kubectl::start().await;
    let client = kubectl
        .say("create configmap c --dry-run=client -o yaml")
        .await;
    assert!(client.contains("kind: ConfigMap"), "{client}");
    let server = kubectl
        .say("create configmap c --dry-run=server -o yaml")
        .await;
    assert!(server.contains("uid:"), "{server}");
    kubectl.attempt("get configmap c").await.fails();
}

#[tokio::test]
async fn generated_names_are_said() {
    let kubectl = Kubectl::start().await;
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: gen-}\n";
    let said = kubectl.say_with("create -f -", manifest).await;
    assert!(
        said.starts_with("configmap/gen-") && said.ends_with(" created\n"),
        "{said}"
    );
}
