//! Service accounts and their tokens.

use serde_json::{Value, json};

use crate::harness::{Answer, Case, case, pod, uid};

async fn account(case: &Case, name: &str) -> Value {
    let accounts = case.path("v1", "serviceaccounts");
    let account = json!({ "metadata": { "name": name } });
    case.post(&accounts, &account).await.ok()
}

async fn request(case: &Case, name: &str, spec: &Value) -> Answer {
    let path = format!("{}/{name}/token", case.path("v1", "serviceaccounts"));
    case.post(&path, &json!({ "spec": spec })).await
}

async fn token(case: &Case, name: &str, spec: &Value) -> String {
    let answer = request(case, name, spec).await.ok();
    answer["status"]["token"].as_str().unwrap().to_owned()
}

async fn review(case: &Case, token: &str, audiences: &[&str]) -> Value {
    let review = json!({ "spec": { "token": token, "audiences": audiences } });
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let answer = case.post(path, &review).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.body["status"].clone()
}

fn bound(kind: &str, name: &str, uid: &str) -> Value {
    json!({
        "audiences": ["istio-ca"],
        "boundObjectRef": { "apiVersion": "v1", "kind": kind, "name": name, "uid": uid },
    })
}

#[tokio::test]
async fn a_token_speaks_of_its_account() {
    case(async |case| {
        let account = account(case, "sa").await;
        let answer = request(case, "sa", &json!({ "audiences": ["istio-ca"] })).await;
        assert_eq!(answer.status, 201);
        let body = answer.ok();
        assert_eq!(body["kind"], "TokenRequest");
        assert_eq!(body["metadata"]["name"], "sa");
        assert_eq!(body["spec"]["expirationSeconds"], 3600);
        assert!(body["status"]["expirationTimestamp"].is_string());
        let token = body["status"]["token"].as_str().unwrap();
        let status = review(case, token, &["other", "istio-ca"]).await;
        assert_eq!(status["authenticated"], true);
        assert_eq!(status["audiences"], json!(["istio-ca"]));
        let user = &status["user"];
        let name = format!("system:serviceaccount:{}:sa", case.namespace);
        assert_eq!(user["username"], name.as_str());
        assert_eq!(user["uid"], uid(&account));
        let groups = json!([
            "system:serviceaccounts",
            format!("system:serviceaccounts:{}", case.namespace),
            "system:authenticated",
        ]);
        assert_eq!(user["groups"], groups);
        let id = user["extra"]["authentication.kubernetes.io/credential-id"][0].as_str();
        assert!(id.unwrap().starts_with("JTI="), "{id:?}");
    })
    .await;
}

#[tokio::test]
async fn a_token_is_for_its_audience() {
    case(async |case| {
        account(case, "sa").await;
        let token = token(case, "sa", &json!({ "audiences": ["istio-ca"] })).await;
        let status = review(case, &token, &["other"]).await;
        assert_eq!(status.get("authenticated"), None);
        let text = "[invalid bearer token, token audiences [\"istio-ca\"] is invalid for the target \
                    audiences [\"other\"]]";
        assert_eq!(status["error"], text);
        // Nor is it for the server itself.
        let answer = case.with_token(&token).get("/version").await;
        answer.refused(401, "Unauthorized");
        assert_eq!(review(case, "nonsense", &[]).await["error"], "invalid bearer token");
    })
    .await;
}

#[tokio::test]
async fn a_token_for_the_server_is_let_in() {
    case(async |case| {
        account(case, "sa").await;
        let token = token(case, "sa", &json!({})).await;
        let account = case.with_token(&token);
        account.get("/version").await.ok();
        let answer = account.get(&case.pods()).await;
        let message = answer.refused(403, "Forbidden");
        let user = format!("User \"system:serviceaccount:{}:sa\"", case.namespace);
        assert!(message.contains(&user), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_token_of_a_pod_speaks_of_the_pod_and_dies_with_it() {
    case(async |case| {
        account(case, "sa").await;
        let mut object = pod("p");
        object["spec"]["serviceAccountName"] = "sa".into();
        let pod = case.post(&case.pods(), &object).await.ok();
        let token = token(case, "sa", &bound("Pod", "p", uid(&pod))).await;
        let status = review(case, &token, &["istio-ca"]).await;
        let extra = &status["user"]["extra"];
        assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["p"]));
        assert_eq!(
            extra["authentication.kubernetes.io/pod-uid"],
            json!([uid(&pod)])
        );
        let options = json!({ "gracePeriodSeconds": 0 });
        case.delete_with(&format!("{}/p", case.pods()), &options)
            .await
            .ok();
        let status = dead(case, &token).await;
        assert_eq!(
            status["error"],
            "[invalid bearer token, service account token has been invalidated]"
        );
    })
    .await;
}

/// The review of a token that is no longer believed. A server with caches believes it for a little while.
async fn dead(case: &Case, token: &str) -> Value {
    let waiting = async {
        loop {
            let status = review(case, token, &["istio-ca"]).await;
            if status.get("authenticated").is_none() {
                return status;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let waited = tokio::time::timeout(crate::harness::PATIENCE, waiting).await;
    waited.expect("the token lives on")
}

#[tokio::test]
async fn a_token_dies_with_its_account() {
    case(async |case| {
        account(case, "sa").await;
        let token = token(case, "sa", &json!({ "audiences": ["istio-ca"] })).await;
        case.delete(&format!("{}/sa", case.path("v1", "serviceaccounts")))
            .await
            .ok();
        dead(case, &token).await;
        // A new account of the same name is another one.
        account(case, "sa").await;
        dead(case, &token).await;
    })
    .await;
}

#[tokio::test]
async fn a_request_for_a_token_is_checked() {
    case(async |case| {
        account(case, "sa").await;
        account(case, "other").await;
        let mut object = pod("p");
        object["spec"]["serviceAccountName"] = "sa".into();
        let pod = case.post(&case.pods(), &object).await.ok();
        let pod_uid = uid(&pod);
        let cases = [
            (
                "sa",
                json!({ "expirationSeconds": 599 }),
                422,
                "may not specify a duration less than 10 minutes",
            ),
            (
                "sa",
                json!({ "expirationSeconds": 4_294_967_297_i64 }),
                422,
                "may not specify a duration larger than 2^32 seconds",
            ),
            ("gone", json!({}), 404, "serviceaccounts \"gone\" not found"),
            (
                "sa",
                bound("Pod", "gone", ""),
                404,
                "pods \"gone\" not found",
            ),
            (
                "sa",
                bound("Secret", "gone", ""),
                404,
                "secrets \"gone\" not found",
            ),
            (
                "sa",
                bound("Pod", "p", "other"),
                409,
                "does not match the UID in record",
            ),
            (
                "other",
                bound("Pod", "p", pod_uid),
                400,
                "cannot bind token",
            ),
            ("sa", bound("ConfigMap", "c", ""), 400, "cannot bind token"),
        ];
        for (name, spec, code, text) in cases {
            let answer = request(case, name, &spec).await;
            assert_eq!(answer.status, code, "{spec}: {}", answer.body);
            assert!(answer.message().contains(text), "{}", answer.message());
        }
    })
    .await;
}

#[tokio::test]
async fn a_review_needs_a_token() {
    case(async |case| {
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let answer = case.post(path, &json!({ "spec": {} })).await;
        let message = answer.refused(400, "BadRequest");
        assert_eq!(
            message,
            "token is required for TokenReview in authentication"
        );
        let alice = case.user("alice");
        let review = json!({ "spec": { "token": "x" } });
        alice.post(path, &review).await.refused(403, "Forbidden");
    })
    .await;
}
