//! The end of objects: finalizers, preconditions, owners and namespaces.

use serde_json::{Value, json};

use crate::harness::{Case, MERGE, case, config_map, uid, unique, version};

fn finalized(name: &str) -> Value {
    let mut object = config_map(name);
    object["metadata"]["finalizers"] = json!(["example.com/wait"]);
    object
}

fn owned(name: &str, owner: &Value, blocking: bool) -> Value {
    let mut object = config_map(name);
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"],
        "uid": uid(owner), "blockOwnerDeletion": blocking,
    }]);
    object
}

async fn create(case: &Case, object: &Value) -> Value {
    case.post(&case.config_maps(), object).await.ok()
}

fn path(case: &Case, name: &str) -> String {
    format!("{}/{name}", case.config_maps())
}

#[tokio::test]
async fn a_finalizer_holds_an_object() {
    case(async |case| {
        create(case, &finalized("a")).await;
        let path = path(case, "a");
        let deleting = case.delete(&path).await.ok();
        assert_eq!(
            deleting["kind"], "ConfigMap",
            "the answer is the object that is still there"
        );
        let since = &deleting["metadata"]["deletionTimestamp"];
        assert!(since.is_string());
        assert_eq!(deleting["metadata"]["deletionGracePeriodSeconds"], 0);
        // Once is enough.
        let again = case.delete(&path).await.ok();
        assert_eq!(&again["metadata"]["deletionTimestamp"], since);
        let refused =
            json!({ "metadata": { "finalizers": ["example.com/wait", "example.com/new"] } });
        let refused = case.patch(&path, MERGE, &refused).await;
        assert_eq!(
            refused.causes()[0],
            ("metadata.finalizers", "FieldValueForbidden")
        );
        let revived = json!({ "metadata": { "deletionTimestamp": null } });
        let revived = case.patch(&path, MERGE, &revived).await.ok();
        assert_eq!(&revived["metadata"]["deletionTimestamp"], since);
        let released = json!({ "metadata": { "finalizers": null } });
        case.patch(&path, MERGE, &released).await.ok();
        case.get(&path).await.refused(404, "NotFound");
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_held_object_is_told_when_it_comes() {
    case(async |case| {
        let object = create(case, &finalized("a")).await;
        let from = format!("&resourceVersion={}", version(&object));
        let mut watch = case.watch(&case.config_maps(), &from).await;
        case.delete(&path(case, "a")).await.ok();
        let deleting = watch.expect("MODIFIED", "a").await;
        assert!(deleting["metadata"]["deletionTimestamp"].is_string());
        let released = json!({ "metadata": { "finalizers": null } });
        case.patch(&path(case, "a"), MERGE, &released).await.ok();
        watch.expect("DELETED", "a").await;
    })
    .await;
}

#[tokio::test]
async fn a_deletion_may_have_conditions() {
    case(async |case| {
        let first = create(case, &config_map("a")).await;
        let label = json!({ "metadata": { "labels": { "a": "b" } } });
        let second = case.patch(&path(case, "a"), MERGE, &label).await.ok();
        let path = path(case, "a");
        for (preconditions, text) in [
            (
                json!({ "uid": "other" }),
                "the UID in the precondition (other) does not match the UID in record",
            ),
            (
                json!({ "resourceVersion": version(&first) }),
                "the ResourceVersion in the precondition",
            ),
        ] {
            let options = json!({ "preconditions": preconditions });
            let refused = case.delete_with(&path, &options).await;
            let message = refused.refused(409, "Conflict");
            assert!(message.contains(text), "{message}");
        }
        let preconditions = json!({ "uid": uid(&first), "resourceVersion": version(&second) });
        let options = json!({ "preconditions": preconditions });
        case.delete_with(&path, &options).await.ok();
    })
    .await;
}

#[tokio::test]
async fn dependents_go_after_their_owner() {
    case(async |case| {
        let owner = create(case, &config_map("owner")).await;
        create(case, &owned("dependent", &owner, false)).await;
        create(case, &config_map("bystander")).await;
        let options = json!({ "propagationPolicy": "Background" });
        case.delete_with(&path(case, "owner"), &options).await.ok();
        case.get(&path(case, "owner"))
            .await
            .refused(404, "NotFound");
        case.until_gone(&path(case, "dependent")).await;
        case.get(&path(case, "bystander")).await.ok();
    })
    .await;
}

#[tokio::test]
async fn orphans_lose_their_owner_and_stay() {
    case(async |case| {
        let owner = create(case, &config_map("owner")).await;
        create(case, &owned("dependent", &owner, false)).await;
        let options = json!({ "propagationPolicy": "Orphan" });
        case.delete_with(&path(case, "owner"), &options).await.ok();
        case.until_gone(&path(case, "owner")).await;
        let orphan = case.get(&path(case, "dependent")).await.ok();
        assert_eq!(orphan["metadata"].get("ownerReferences"), None);
    })
    .await;
}

#[tokio::test]
async fn an_owner_in_the_foreground_waits_for_its_dependents() {
    case(async |case| {
        let owner = create(case, &config_map("owner")).await;
        let mut dependent = owned("dependent", &owner, true);
        dependent["metadata"]["finalizers"] = json!(["example.com/wait"]);
        create(case, &dependent).await;
        let options = json!({ "propagationPolicy": "Foreground" });
        let deleting = case.delete_with(&path(case, "owner"), &options).await.ok();
        assert_eq!(
            deleting["metadata"]["finalizers"],
            json!(["foregroundDeletion"])
        );
        let dying = |answer: &crate::harness::Answer| {
            answer.body["metadata"]["deletionTimestamp"].is_string()
        };
        case.until("the deletion", &path(case, "dependent"), dying)
            .await;
        case.get(&path(case, "owner")).await.ok();
        let released = json!({ "metadata": { "finalizers": null } });
        case.patch(&path(case, "dependent"), MERGE, &released)
            .await
            .ok();
        case.until_gone(&path(case, "owner")).await;
    })
    .await;
}

#[tokio::test]
async fn what_has_another_owner_stays() {
    case(async |case| {
        let one = create(case, &config_map("one")).await;
        let two = create(case, &config_map("two")).await;
        let mut shared = owned("shared", &one, false);
        let other = owned("shared", &two, false)["metadata"]["ownerReferences"][0].take();
        let references = shared["metadata"]["ownerReferences"]
            .as_array_mut()
            .unwrap();
        references.push(other);
        create(case, &shared).await;
        let options = json!({ "propagationPolicy": "Background" });
        case.delete_with(&path(case, "one"), &options).await.ok();
        let one_owner = |answer: &crate::harness::Answer| {
            let owners = answer.body["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| owners.len() == 1)
        };
        case.until("the loss of an owner", &path(case, "shared"), one_owner)
            .await;
    })
    .await;
}

#[tokio::test]
async fn an_owner_that_never_was_leaves_nothing() {
    case(async |case| {
        let mut nobody = config_map("nobody");
        nobody["metadata"]["uid"] = "11111111-1111-1111-1111-111111111111".into();
        create(case, &owned("dependent", &nobody, false)).await;
        case.until_gone(&path(case, "dependent")).await;
    })
    .await;
}

#[tokio::test]
async fn an_owner_must_be_named_completely() {
    case(async |case| {
        let mut object = config_map("a");
        object["metadata"]["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": "ConfigMap" }]);
        let answer = case.post(&case.config_maps(), &object).await;
        let mut causes = answer.causes();
        causes.sort_unstable();
        let field = |field: &str| format!("metadata.ownerReferences[0].{field}");
        let (name, uid) = (field("name"), field("uid"));
        let reasons = causes.iter().map(|cause| cause.0).collect::<Vec<_>>();
        assert!(reasons.iter().all(|f| f.starts_with("metadata.ownerReferences")), "{causes:?} {name} {uid}");
        let mut object = config_map("a");
        let reference = |name: &str| {
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": name, "controller": true })
        };
        object["metadata"]["ownerReferences"] = json!([reference("x"), reference("y")]);
        let answer = case.post(&case.config_maps(), &object).await;
        let message = answer.refused(422, "Invalid");
        assert!(message.contains("Only one reference can have Controller set to true"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_new_namespace_is_furnished() {
    case(async |case| {
        let path = format!("/api/v1/namespaces/{}", case.namespace);
        let namespace = case.get(&path).await.ok();
        assert_eq!(namespace["status"]["phase"], "Active");
        assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
        let label = &namespace["metadata"]["labels"]["kubernetes.io/metadata.name"];
        assert_eq!(label, case.namespace.as_str());
        let account = format!("{}/default", case.path("v1", "serviceaccounts"));
        case.until("the service account", &account, |answer| {
            answer.status == 200
        })
        .await;
        let roots = format!("{}/kube-root-ca.crt", case.config_maps());
        let roots = case
            .until("the roots", &roots, |answer| answer.status == 200)
            .await;
        let pem = roots.body["data"]["ca.crt"].as_str().unwrap();
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"));
    })
    .await;
}

#[tokio::test]
async fn a_namespace_ends_with_all_that_is_in_it() {
    case(async |case| {
        let name = unique("ending");
        let namespaces = case.elsewhere("v1", "namespaces", &name);
        let path = format!("{namespaces}/{name}");
        case.post(&namespaces, &json!({ "metadata": { "name": name } }))
            .await
            .ok();
        let config_maps = format!("{path}/configmaps");
        case.post(&config_maps, &finalized("held")).await.ok();
        case.post(&config_maps, &config_map("free")).await.ok();
        let ending = case.delete(&path).await.ok();
        assert_eq!(ending["kind"], "Namespace");
        assert_eq!(ending["status"]["phase"], "Terminating");
        case.until_gone(&format!("{config_maps}/free")).await;
        // Nothing new comes in, and what is held holds the namespace.
        let refused = case.post(&config_maps, &config_map("late")).await;
        let message = refused.refused(403, "Forbidden");
        let text = format!(
            "unable to create new content in namespace {name} because it is being terminated"
        );
        assert!(message.contains(&text), "{message}");
        let causes = &refused.body["details"]["causes"];
        assert_eq!(causes[0]["reason"], "NamespaceTerminating");
        case.get(&path).await.ok();
        let released = json!({ "metadata": { "finalizers": null } });
        case.patch(&format!("{config_maps}/held"), MERGE, &released)
            .await
            .ok();
        case.until_gone(&path).await;
    })
    .await;
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_is_not_there() {
    case(async |case| {
        let name = unique("missing");
        let path = format!("/api/v1/namespaces/{name}/configmaps");
        let answer = case.post(&path, &config_map("a")).await;
        let message = answer.refused(404, "NotFound");
        assert_eq!(message, format!("namespaces \"{name}\" not found"));
        let list = case.get(&path).await.ok();
        assert_eq!(list["items"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn some_namespaces_are_for_ever() {
    case(async |case| {
        let answer = case.delete("/api/v1/namespaces/default?dryRun=All").await;
        let message = answer.refused(403, "Forbidden");
        assert_eq!(
            message,
            "namespaces \"default\" is forbidden: this namespace may not be deleted"
        );
    })
    .await;
}
