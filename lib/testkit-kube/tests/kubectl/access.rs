//! `auth`, tokens, and what is said to those who may not.

use crate::harness::Kubectl;

#[tokio::test]
async fn people_ask_what_they_may() {
    let kubectl = Kubectl::start().await;
    assert_eq!(kubectl.say("auth can-i '*' '*'").await, "yes\n");
    let said = kubectl.attempt("auth can-i get pods --as alice").await;
    assert_eq!((said.ok, said.out.as_str()), (false, "no\n"));
    kubectl
        .say("create role reader --verb=get --resource=pods")
        .await;
    kubectl
        .say("create rolebinding reader --role=reader --user=alice")
        .await;
    kubectl.say("auth can-i get pods --as alice").await;
    let list = kubectl.say("auth can-i --list --as alice").await;
    let pods = list.lines().find(|line| line.starts_with("pods ")).unwrap();
    assert!(pods.ends_with("[get]"), "{list}");
    assert!(
        list.contains("selfsubjectaccessreviews.authorization.k8s.io"),
        "{list}"
    );
}

#[tokio::test]
async fn those_who_may_not_are_told_what() {
    let kubectl = Kubectl::start().await;
    let said = kubectl.attempt("get secrets --as alice").await.fails();
    let expected = format!(
        "Error from server (Forbidden): secrets is forbidden: User \"alice\" cannot list resource \
         \"secrets\" in API group \"\" in the namespace \"{}\"\n",
        kubectl.namespace
    );
    assert_eq!(said, expected);
    let said = kubectl
        .attempt("get secrets --token nonsense --kubeconfig /dev/null")
        .await;
    said.fails();
}

#[tokio::test]
async fn a_token_is_made_and_used() {
    let kubectl = Kubectl::start().await;
    kubectl.say("create serviceaccount sa").await;
    let token = if kubectl.minor >= 24 {
        kubectl.say("create token sa").await
    } else {
        let path = format!(
            "/api/v1/namespaces/{}/serviceaccounts/sa/token",
            kubectl.namespace
        );
        let answer = kubectl
            .say_with(&format!("create --raw {path} -f -"), "{}")
            .await;
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        answer["status"]["token"].as_str().unwrap().to_owned()
    };
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
    let review = format!(
        r#"{{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{{"token":"{}"}}}}"#,
        token.trim()
    );
    let name = kubectl
        .say_with("create -f - -o jsonpath={.status.user.username}", &review)
        .await;
    assert_eq!(
        name,
        format!("system:serviceaccount:{}:sa", kubectl.namespace)
    );
    if kubectl.minor >= 24 {
        let said = kubectl
            .attempt("create token sa --duration=60s")
            .await
            .fails();
        assert!(
            said.contains("may not specify a duration less than 10 minutes"),
            "{said}"
        );
        let said = kubectl.attempt("create token none").await.fails();
        assert!(
            said.contains("serviceaccounts \"none\" not found"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn people_ask_who_they_are() {
    let kubectl = Kubectl::start().await;
    let groups = if kubectl.minor >= 28 {
        kubectl
            .say("auth whoami -o jsonpath={.status.userInfo.groups}")
            .await
    } else {
        let review = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let answer = kubectl
            .say_with(&format!("create --raw {path} -f -"), review)
            .await;
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        answer["status"]["userInfo"]["groups"].to_string()
    };
    assert_eq!(groups, r#"["system:masters","system:authenticated"]"#);
}
