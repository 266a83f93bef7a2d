//! Creating, reading, updating and deleting one object.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{JSON, case, config_map, deployment, pod, uid, version};

#[tokio::test]
async fn a_created_object_gets_its_metadata() {
    case(async |case| {
        let answer = case.post(&case.config_maps(), &config_map("a")).await;
        assert_eq!(answer.status, 201);
        let created = answer.ok();
        let read = case.get(&format!("{}/a", case.config_maps())).await.ok();
        assert_eq!(created, read);
        let metadata = &read["metadata"];
        assert_eq!(metadata["namespace"], case.namespace.as_str());
        assert_eq!(uid(&read).len(), 36);
        assert!(version(&read).parse::<u64>().unwrap() > 0);
        assert!(
            metadata["creationTimestamp"]
                .as_str()
                .unwrap()
                .ends_with('Z')
        );
        assert_eq!(metadata.get("generation"), None, "ConfigMaps have none");
        assert_eq!(metadata.get("selfLink"), None);
        assert_eq!(
            (&read["apiVersion"], &read["kind"]),
            (&json!("v1"), &json!("ConfigMap"))
        );
    })
    .await;
}

#[tokio::test]
async fn a_name_is_taken_once() {
    case(async |case| {
        case.post(&case.config_maps(), &config_map("a")).await.ok();
        let again = case.post(&case.config_maps(), &config_map("a")).await;
        let message = again.refused(409, "AlreadyExists");
        assert_eq!(message, "configmaps \"a\" already exists");
        assert_eq!(
            again.body["details"],
            json!({ "name": "a", "kind": "configmaps" })
        );
    })
    .await;
}

#[tokio::test]
async fn names_are_generated() {
    case(async |case| {
        let object = json!({ "metadata": { "generateName": "web-" } });
        let one = case.post(&case.config_maps(), &object).await.ok();
        let other = case.post(&case.config_maps(), &object).await.ok();
        let names = [&one, &other].map(|object| object["metadata"]["name"].as_str().unwrap());
        assert_ne!(names[0], names[1]);
        for name in names {
            assert!(
                name.starts_with("web-") && name.len() == "web-".len() + 5,
                "{name}"
            );
        }
        assert_eq!(one["metadata"]["generateName"], "web-");
    })
    .await;
}

#[tokio::test]
async fn a_name_must_be_one() {
    case(async |case| {
        let nameless = case.post(&case.config_maps(), &json!({})).await;
        assert_eq!(nameless.causes(), [("metadata.name", "FieldValueRequired")]);
        assert!(
            nameless
                .message()
                .contains("name or generateName is required")
        );
        for name in ["Upper", "with space", "-dash", "under_score"] {
            let answer = case.post(&case.config_maps(), &config_map(name)).await;
            assert_eq!(
                answer.causes(),
                [("metadata.name", "FieldValueInvalid")],
                "{name}"
            );
        }
        // Services become DNS labels, so dots are out.
        let service =
            json!({ "metadata": { "name": "a.b" }, "spec": { "ports": [{ "port": 80 }] } });
        let answer = case.post(&case.path("v1", "services"), &service).await;
        assert_eq!(answer.causes()[0], ("metadata.name", "FieldValueInvalid"));
    })
    .await;
}

#[tokio::test]
async fn labels_and_annotations_must_be_well_formed() {
    case(async |case| {
        let mut object = config_map("a");
        object["metadata"]["labels"] = json!({ "a/b/c": "d" });
        let answer = case.post(&case.config_maps(), &object).await;
        assert_eq!(answer.causes(), [("metadata.labels", "FieldValueInvalid")]);
        object["metadata"]["labels"] = json!({ "a": "not a value" });
        let answer = case.post(&case.config_maps(), &object).await;
        assert_eq!(answer.causes(), [("metadata.labels", "FieldValueInvalid")]);
        object["metadata"]["labels"] = Value::Null;
        object["metadata"]["annotations"] = json!({ "not a key": "anything at all" });
        let answer = case.post(&case.config_maps(), &object).await;
        assert_eq!(
            answer.causes(),
            [("metadata.annotations", "FieldValueInvalid")]
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    case(async |case| {
        let path = format!("{}/gone", case.config_maps());
        let named = config_map("gone");
        let merge = json!({ "data": { "a": "b" } });
        for answer in [
            case.get(&path).await,
            case.delete(&path).await,
            case.put(&path, &named).await,
            case.patch(&path, crate::harness::MERGE, &merge).await,
        ] {
            let message = answer.refused(404, "NotFound");
            assert_eq!(message, "configmaps \"gone\" not found");
            assert_eq!(
                answer.body["details"],
                json!({ "name": "gone", "kind": "configmaps" })
            );
        }
        let grouped = case.get(&format!("{}/gone", case.deployments())).await;
        let message = grouped.refused(404, "NotFound");
        assert_eq!(message, "deployments.apps \"gone\" not found");
    })
    .await;
}

#[tokio::test]
async fn an_unknown_resource_is_no_object_that_is_missing() {
    case(async |case| {
        for path in [
            case.path("v1", "nothings"),
            case.path("nobody.example.com/v1", "nothings"),
        ] {
            let answer = case.get(&path).await;
            assert_eq!(answer.status, 404, "{path}: {}", answer.body);
            assert!(!answer.message().contains("\"nothings\" not found"));
        }
    })
    .await;
}

#[tokio::test]
async fn an_update_needs_the_version_that_it_changes() {
    case(async |case| {
        let path = format!("{}/a", case.config_maps());
        let first = case.post(&case.config_maps(), &config_map("a")).await.ok();
        let mut changed = first.clone();
        changed["data"] = json!({ "a": "1" });
        let second = case.put(&path, &changed).await.ok();
        assert_ne!(version(&first), version(&second));
        assert_eq!(uid(&first), uid(&second));
        let stale = case.put(&path, &changed).await;
        let message = stale.refused(409, "Conflict");
        let expected = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; \
                        please apply your changes to the latest version and try again";
        assert_eq!(message, expected);
        // Without a version it is unconditional.
        changed["metadata"]["resourceVersion"] = Value::Null;
        changed["data"] = json!({ "a": "2" });
        let third = case.put(&path, &changed).await.ok();
        assert_eq!(third["data"]["a"], "2");
    })
    .await;
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    case(async |case| {
        let path = format!("{}/a", case.config_maps());
        let first = case.post(&case.config_maps(), &config_map("a")).await.ok();
        let second = case.put(&path, &first).await.ok();
        assert_eq!(version(&first), version(&second));
        let merge = json!({ "metadata": { "labels": {} } });
        let third = case.patch(&path, crate::harness::MERGE, &merge).await.ok();
        assert_eq!(version(&first), version(&third));
    })
    .await;
}

#[tokio::test]
async fn an_update_is_about_the_object_of_its_path() {
    case(async |case| {
        case.post(&case.config_maps(), &config_map("a")).await.ok();
        let path = format!("{}/a", case.config_maps());
        let answer = case.put(&path, &config_map("b")).await;
        let message = answer.refused(400, "BadRequest");
        assert!(message.contains("name of the object (b) does not match the name on the URL (a)"));
        let mut elsewhere = config_map("a");
        elsewhere["metadata"]["namespace"] = "default".into();
        let expected =
            "the namespace of the provided object does not match the namespace sent on the request";
        for answer in [
            case.put(&path, &elsewhere).await,
            case.post(&case.config_maps(), &elsewhere).await,
        ] {
            assert_eq!(answer.refused(400, "BadRequest"), expected);
        }
    })
    .await;
}

#[tokio::test]
async fn an_update_of_another_uid_is_a_conflict() {
    case(async |case| {
        let mut object = case.post(&case.config_maps(), &config_map("a")).await.ok();
        object["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
        object["metadata"]["resourceVersion"] = Value::Null;
        let answer = case
            .put(&format!("{}/a", case.config_maps()), &object)
            .await;
        let message = answer.refused(409, "Conflict");
        assert!(
            message.contains("Precondition failed: UID in precondition"),
            "{message}"
        );
    })
    .await;
}

#[tokio::test]
async fn the_servers_own_fields_cannot_be_set() {
    case(async |case| {
        let mut object = config_map("a");
        let metadata = &mut object["metadata"];
        metadata["uid"] = "mine".into();
        metadata["creationTimestamp"] = "2001-01-01T00:00:00Z".into();
        metadata["deletionTimestamp"] = "2001-01-01T00:00:00Z".into();
        metadata["selfLink"] = "/mine".into();
        let created = case.post(&case.config_maps(), &object).await.ok();
        assert_ne!(uid(&created), "mine");
        assert_ne!(
            created["metadata"]["creationTimestamp"],
            "2001-01-01T00:00:00Z"
        );
        assert_eq!(created["metadata"].get("deletionTimestamp"), None);
        object["metadata"]["name"] = "b".into();
        object["metadata"]["resourceVersion"] = "5".into();
        let answer = case.post(&case.config_maps(), &object).await;
        let message = answer.refused(500, "");
        assert_eq!(
            message,
            "resourceVersion should not be set on objects to be created"
        );
    })
    .await;
}

#[tokio::test]
async fn a_body_must_be_the_object_that_the_path_says() {
    case(async |case| {
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a" } });
        let answer = case.post(&case.config_maps(), &secret).await;
        let message = answer.refused(400, "BadRequest");
        assert!(
            message.contains("cannot be handled as a ConfigMap"),
            "{message}"
        );
        let path = case.config_maps();
        let broken = case.send(Method::POST, &path, JSON, b"{".to_vec()).await;
        broken.refused(400, "BadRequest");
        let wrong = json!({ "metadata": { "name": "a" }, "data": { "a": 1 } });
        let message = case.post(&path, &wrong).await;
        let message = message.refused(400, "BadRequest");
        assert!(
            message.contains("cannot unmarshal number into Go struct field"),
            "{message}"
        );
        let kind = case
            .send(Method::POST, &path, "text/plain", b"{}".to_vec())
            .await;
        kind.refused(415, "UnsupportedMediaType");
    })
    .await;
}

#[tokio::test]
async fn yaml_is_understood() {
    case(async |case| {
        let yaml = b"metadata:\n  name: a\ndata:\n  key: \"yes\"\n".to_vec();
        let path = case.config_maps();
        let created = case
            .send(Method::POST, &path, "application/yaml", yaml)
            .await
            .ok();
        assert_eq!(created["data"], json!({ "key": "yes" }));
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_answers_and_stores_nothing() {
    case(async |case| {
        let path = case.config_maps();
        let dry = format!("{path}?dryRun=All");
        let answer = case.post(&dry, &config_map("a")).await;
        assert_eq!(
            (answer.status, answer.body["metadata"]["name"].as_str()),
            (201, Some("a"))
        );
        case.get(&format!("{path}/a"))
            .await
            .refused(404, "NotFound");
        let stored = case.post(&path, &config_map("a")).await.ok();
        let mut changed = stored.clone();
        changed["data"] = json!({ "a": "b" });
        let answer = case
            .put(&format!("{path}/a?dryRun=All"), &changed)
            .await
            .ok();
        assert_eq!(answer["data"]["a"], "b");
        case.delete(&format!("{path}/a?dryRun=All")).await.ok();
        assert_eq!(case.get(&format!("{path}/a")).await.ok(), stored);
        let options = json!({ "dryRun": ["All"] });
        case.delete_with(&format!("{path}/a"), &options).await.ok();
        assert_eq!(case.get(&format!("{path}/a")).await.ok(), stored);
        let wrong = case
            .post(&format!("{path}?dryRun=Some"), &config_map("b"))
            .await;
        wrong.refused(422, "Invalid");
    })
    .await;
}

#[tokio::test]
async fn a_deleted_object_is_gone_and_the_answer_says_which() {
    case(async |case| {
        let path = format!("{}/a", case.config_maps());
        let created = case.post(&case.config_maps(), &config_map("a")).await.ok();
        let answer = case.delete(&path).await.ok();
        assert_eq!(
            (&answer["kind"], &answer["status"]),
            (&json!("Status"), &json!("Success"))
        );
        let details = json!({ "name": "a", "kind": "configmaps", "uid": uid(&created) });
        assert_eq!(answer["details"], details);
        case.get(&path).await.refused(404, "NotFound");
    })
    .await;
}

#[tokio::test]
async fn a_collection_is_deleted_by_its_labels() {
    case(async |case| {
        for (name, label) in [("a", "x"), ("b", "x"), ("c", "y")] {
            let mut object = config_map(name);
            object["metadata"]["labels"] = json!({ "is": label });
            case.post(&case.config_maps(), &object).await.ok();
        }
        let path = format!("{}?labelSelector=is%3Dx", case.config_maps());
        case.delete(&path).await.ok();
        let list = case
            .get(&format!("{}?labelSelector=is", case.config_maps()))
            .await
            .ok();
        assert_eq!(crate::harness::names(&list), ["c"]);
    })
    .await;
}

#[tokio::test]
async fn the_generation_counts_changes_of_the_spec() {
    case(async |case| {
        let path = format!("{}/a", case.deployments());
        let created = case.post(&case.deployments(), &deployment("a")).await.ok();
        assert_eq!(created["metadata"]["generation"], 1);
        let label = json!({ "metadata": { "labels": { "a": "b" } } });
        let labelled = case.patch(&path, crate::harness::MERGE, &label).await.ok();
        assert_eq!(labelled["metadata"]["generation"], 1);
        let scale = json!({ "spec": { "replicas": 3 } });
        let scaled = case.patch(&path, crate::harness::MERGE, &scale).await.ok();
        assert_eq!(scaled["metadata"]["generation"], 2);
        let status = json!({ "status": { "replicas": 3 } });
        let status = case
            .patch(&format!("{path}/status"), crate::harness::MERGE, &status)
            .await;
        assert_eq!(status.ok()["metadata"]["generation"], 2);
    })
    .await;
}

#[tokio::test]
async fn spec_and_status_are_written_apart() {
    case(async |case| {
        let path = format!("{}/a", case.deployments());
        let mut object = deployment("a");
        object["status"] = json!({ "replicas": 5 });
        let mut created = case.post(&case.deployments(), &object).await.ok();
        assert_eq!(
            created["status"],
            json!({}),
            "the status of a new object is ignored"
        );
        created["status"] = json!({ "replicas": 7 });
        created["spec"]["replicas"] = 7.into();
        let updated = case.put(&path, &created).await.ok();
        assert_eq!(
            (&updated["spec"]["replicas"], &updated["status"]),
            (&json!(7), &json!({}))
        );
        let mut status = updated;
        status["status"] = json!({ "replicas": 9 });
        status["spec"]["replicas"] = 9.into();
        let written = case.put(&format!("{path}/status"), &status).await.ok();
        assert_eq!(written["spec"]["replicas"], 7);
        assert_eq!(written["status"]["replicas"], 9);
        let read = case.get(&format!("{path}/status")).await.ok();
        assert_eq!(read, written);
    })
    .await;
}

#[tokio::test]
async fn a_scale_is_read_and_written() {
    case(async |case| {
        let path = format!("{}/a/scale", case.deployments());
        case.post(&case.deployments(), &deployment("a")).await.ok();
        let mut scale = case.get(&path).await.ok();
        assert_eq!(
            (&scale["kind"], &scale["apiVersion"]),
            (&json!("Scale"), &json!("autoscaling/v1"))
        );
        assert_eq!(scale["spec"]["replicas"], 1);
        assert_eq!(scale["status"]["selector"], "app=a");
        scale["spec"]["replicas"] = 4.into();
        assert_eq!(case.put(&path, &scale).await.ok()["spec"]["replicas"], 4);
        let object = case.get(&format!("{}/a", case.deployments())).await.ok();
        assert_eq!(object["spec"]["replicas"], 4);
        assert_eq!(object["metadata"]["generation"], 2);
    })
    .await;
}

#[tokio::test]
async fn defaults_are_filled_in() {
    case(async |case| {
        let created = case.post(&case.pods(), &pod("a")).await.ok();
        let spec = &created["spec"];
        assert_eq!(spec["restartPolicy"], "Always");
        assert_eq!(spec["dnsPolicy"], "ClusterFirst");
        assert_eq!(spec["serviceAccountName"], "default");
        assert_eq!(spec["terminationGracePeriodSeconds"], 30);
        assert_eq!(spec["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(created["status"]["phase"], "Pending");
        let service = json!({ "metadata": { "name": "a" }, "spec": { "ports": [{ "port": 80 }] } });
        let created = case.post(&case.path("v1", "services"), &service).await.ok();
        let spec = &created["spec"];
        assert_eq!(spec["type"], "ClusterIP");
        assert_eq!(
            spec["ports"],
            json!([{ "port": 80, "protocol": "TCP", "targetPort": 80 }])
        );
        assert_eq!(spec["sessionAffinity"], "None");
        assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
        spec["clusterIP"]
            .as_str()
            .unwrap()
            .parse::<std::net::IpAddr>()
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_secret_takes_text_and_keeps_base64() {
    case(async |case| {
        let secret = json!({ "metadata": { "name": "a" }, "stringData": { "k": "v" } });
        let created = case.post(&case.path("v1", "secrets"), &secret).await.ok();
        assert_eq!(created["data"], json!({ "k": "dg==" }));
        assert_eq!(created.get("stringData"), None);
        assert_eq!(created["type"], "Opaque");
    })
    .await;
}
