//! What the server says about itself, and the small APIs that everything leans on.

use http::header::ACCEPT;
use serde_json::{Value, json};

use crate::harness::{MERGE, case, version};

#[tokio::test]
async fn groups_and_resources_are_listed() {
    case(async |case| {
        let core = case.get("/api").await.ok();
        assert_eq!(core["versions"], json!(["v1"]));
        let groups = case.get("/apis").await.ok();
        assert_eq!(groups["kind"], "APIGroupList");
        let apps = groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .find(|g| g["name"] == "apps");
        let preferred = json!({ "groupVersion": "apps/v1", "version": "v1" });
        assert_eq!(apps.unwrap()["preferredVersion"], preferred);
        assert_eq!(
            case.get("/apis/apps").await.ok()["preferredVersion"],
            preferred
        );
        let resources = case.get("/apis/apps/v1").await.ok();
        assert_eq!(resources["kind"], "APIResourceList");
        let find = |name: &str| {
            let resources = resources["resources"].as_array().unwrap();
            resources
                .iter()
                .find(|r| r["name"] == name)
                .cloned()
                .unwrap()
        };
        let deployments = find("deployments");
        assert_eq!(deployments["kind"], "Deployment");
        assert_eq!(deployments["singularName"], "deployment");
        assert_eq!(deployments["namespaced"], true);
        assert_eq!(deployments["shortNames"], json!(["deploy"]));
        assert_eq!(deployments["categories"], json!(["all"]));
        let verbs = json!([
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch"
        ]);
        assert_eq!(deployments["verbs"], verbs);
        assert_eq!(
            find("deployments/status")["verbs"],
            json!(["get", "patch", "update"])
        );
        let scale = find("deployments/scale");
        assert_eq!(
            (&scale["group"], &scale["kind"]),
            (&json!("autoscaling"), &json!("Scale"))
        );
    })
    .await;
}

#[tokio::test]
async fn discovery_comes_in_one_piece_for_those_who_ask() {
    case(async |case| {
        let accept =
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        let caller = case.sending(ACCEPT, accept);
        let all = caller.get("/apis").await.ok();
        assert_eq!(all["kind"], "APIGroupDiscoveryList");
        assert_eq!(all["apiVersion"], "apidiscovery.k8s.io/v2");
        let groups = all["items"].as_array().unwrap();
        let apps = groups
            .iter()
            .find(|group| group["metadata"]["name"] == "apps")
            .unwrap();
        let resources = apps["versions"][0]["resources"].as_array().unwrap();
        let deployments = resources
            .iter()
            .find(|r| r["resource"] == "deployments")
            .unwrap();
        assert_eq!(deployments["scope"], "Namespaced");
        assert_eq!(deployments["responseKind"]["kind"], "Deployment");
        let core = caller.get("/api").await.ok();
        assert_eq!(core["items"][0]["versions"][0]["version"], "v1");
    })
    .await;
}

#[tokio::test]
async fn the_server_says_its_version_and_its_health() {
    case(async |case| {
        let version = case.get("/version").await.ok();
        assert_eq!(version["major"], "1");
        assert!(version["minor"].is_string() && version["gitVersion"].is_string());
        for path in ["/healthz", "/livez", "/readyz"] {
            let answer = case.get(path).await;
            assert_eq!((answer.status, &answer.body), (200, &json!("ok")), "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn schemas_are_published() {
    case(async |case| {
        let index = case.get("/openapi/v3").await.ok();
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
            .as_str()
            .unwrap();
        assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
        let document = case.get(url).await.ok();
        let schemas = &document["components"]["schemas"];
        let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
        let kind = json!([{ "group": "apps", "kind": "Deployment", "version": "v1" }]);
        assert_eq!(deployment["x-kubernetes-group-version-kind"], kind);
        assert!(deployment["properties"]["spec"].is_object());
    })
    .await;
}

#[tokio::test]
async fn a_lease_is_taken_over_by_one_only() {
    case(async |case| {
        let leases = case.path("coordination.k8s.io/v1", "leases");
        let lease = json!({
            "metadata": { "name": "leader" },
            "spec": {
                "holderIdentity": "one", "leaseDurationSeconds": 15, "leaseTransitions": 0,
                "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:00.123456Z",
            },
        });
        let lease = case.post(&leases, &lease).await.ok();
        // Times of leases keep their microseconds.
        assert_eq!(lease["spec"]["renewTime"], "2026-01-01T00:00:00.123456Z");
        let path = format!("{leases}/leader");
        let claim = |holder: &str| {
            let mut lease = lease.clone();
            lease["spec"]["holderIdentity"] = holder.into();
            lease
        };
        case.put(&path, &claim("two")).await.ok();
        case.put(&path, &claim("three")).await.refused(409, "Conflict");
        assert_eq!(case.get(&path).await.ok()["spec"]["holderIdentity"], "two");
    })
    .await;
}

#[tokio::test]
async fn events_are_one_resource_in_two_groups() {
    case(async |case| {
        let event = json!({
            "metadata": { "name": "e" },
            "involvedObject": { "apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": case.namespace },
            "reason": "Tested", "message": "it was", "type": "Normal",
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
            "count": 1, "source": { "component": "tester" },
        });
        case.post(&case.path("v1", "events"), &event).await.ok();
        let other = format!("{}/e", case.path("events.k8s.io/v1", "events"));
        let event = case.get(&other).await.ok();
        assert_eq!(event["apiVersion"], "events.k8s.io/v1");
        assert_eq!((&event["reason"], &event["note"]), (&json!("Tested"), &json!("it was")));
        assert_eq!(event["regarding"]["name"], "p");
        let list = format!("{}?fieldSelector=involvedObject.name%3Dp", case.path("v1", "events"));
        assert_eq!(case.get(&list).await.ok()["items"].as_array().map(Vec::len), Some(1));
        let list = format!("{}?fieldSelector=involvedObject.name%3Dq", case.path("v1", "events"));
        assert_eq!(case.get(&list).await.ok()["items"], json!([]));
        let event = json!({
            "metadata": { "name": "n" },
            "eventTime": "2026-01-01T00:00:00.000001Z",
            "regarding": { "apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": case.namespace },
            "reason": "Tested", "note": "it was", "type": "Normal", "action": "Testing",
            "reportingController": "example.com/tester", "reportingInstance": "tester-0",
        });
        case.post(&case.path("events.k8s.io/v1", "events"), &event).await.ok();
        let event = case.get(&format!("{}/n", case.path("v1", "events"))).await.ok();
        assert_eq!((&event["message"], &event["involvedObject"]["name"]), (&json!("it was"), &json!("p")));
        assert_eq!(event["reportingComponent"], "example.com/tester");
    })
    .await;
}

#[tokio::test]
async fn what_a_resource_cannot_do_is_not_allowed() {
    case(async |case| {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = case.get(path).await;
        assert_eq!(answer.status, 405, "{}", answer.body);
        let namespaces = case.delete("/api/v1/namespaces").await;
        assert_eq!(namespaces.status, 405, "{}", namespaces.body);
        let answer = case.patch(&case.pods(), MERGE, &Value::Null).await;
        assert_eq!(answer.status, 405, "{}", answer.body);
    })
    .await;
}

#[tokio::test]
async fn nodes_are_outside_namespaces_and_have_a_status() {
    case(async |case| {
        let name = crate::harness::unique("node");
        let nodes = case.elsewhere("v1", "nodes", &name);
        let node = json!({ "metadata": { "name": name, "labels": { "zone": "a" } } });
        let node = case.post(&nodes, &node).await.ok();
        assert_eq!(node["metadata"].get("namespace"), None);
        let path = format!("{nodes}/{name}");
        let address = json!({ "type": "InternalIP", "address": "10.0.0.1" });
        let status = json!({ "status": { "addresses": [address] } });
        let written = case
            .patch(&format!("{path}/status"), MERGE, &status)
            .await
            .ok();
        assert_eq!(written["status"]["addresses"][0]["address"], "10.0.0.1");
        assert_ne!(version(&written), version(&node));
    })
    .await;
}
