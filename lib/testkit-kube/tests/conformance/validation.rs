//! What is wrong with an object, and how that is said.

use http::Method;
use serde_json::json;

use crate::harness::{JSON, MERGE, case, config_map, deployment, pod};

#[tokio::test]
async fn unknown_fields_are_treated_as_asked() {
    case(async |case| {
        let mut object = deployment("a");
        object["spec"]["template"]["spec"]["containers"][0]["imge"] = "x".into();
        object["spce"] = json!({});
        let path = |mode: &str| format!("{}?dryRun=All&fieldValidation={mode}", case.deployments());
        let strict = case.post(&path("Strict"), &object).await;
        let message = strict.refused(400, "BadRequest");
        for field in [
            "unknown field \"spce\"",
            "unknown field \"spec.template.spec.containers[0].imge\"",
        ] {
            assert!(message.contains(field), "{message}");
        }
        assert!(message.contains("strict decoding error: "), "{message}");
        let warned = case.post(&path("Warn"), &object).await;
        assert_eq!(warned.status, 201);
        let expected = [
            "299 - \"unknown field \\\"spce\\\"\"",
            "299 - \"unknown field \\\"spec.template.spec.containers[0].imge\\\"\"",
        ];
        let mut warnings = warned.warnings();
        warnings.sort_by_key(|warning| !warning.contains("spce"));
        assert_eq!(warnings, expected);
        assert_eq!(warned.body.get("spce"), None);
        let ignored = case.post(&path("Ignore"), &object).await;
        assert_eq!((ignored.status, ignored.warnings().len()), (201, 0));
        // Nobody has to ask to be warned.
        let default = case
            .post(&format!("{}?dryRun=All", case.deployments()), &object)
            .await;
        assert_eq!(default.warnings().len(), 2);
        let wrong = case.post(&path("Perhaps"), &object).await;
        wrong.refused(422, "Invalid");
    })
    .await;
}

#[tokio::test]
async fn unknown_fields_of_patches_are_treated_as_asked() {
    case(async |case| {
        case.post(&case.config_maps(), &config_map("a")).await.ok();
        let patch = json!({ "daat": { "a": "b" } });
        let path = |mode: &str| format!("{}/a?fieldValidation={mode}", case.config_maps());
        let strict = case.patch(&path("Strict"), MERGE, &patch).await;
        assert!([400, 422].contains(&strict.status), "{}", strict.body);
        assert!(
            strict.message().contains("unknown field \"daat\""),
            "{}",
            strict.message()
        );
        let warned = case.patch(&path("Warn"), MERGE, &patch).await;
        assert_eq!((warned.status, warned.warnings().len()), (200, 1));
    })
    .await;
}

#[tokio::test]
async fn a_key_may_come_once() {
    case(async |case| {
        let body = br#"{"metadata":{"name":"a"},"data":{"k":"1"},"data":{"k":"2"}}"#;
        let path = format!("{}?fieldValidation=Strict", case.config_maps());
        let answer = case.send(Method::POST, &path, JSON, body.to_vec()).await;
        let message = answer.refused(400, "BadRequest");
        assert!(message.contains("duplicate field \"data\""), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_pod_needs_its_parts() {
    case(async |case| {
        let mut object = pod("a");
        object["spec"]["containers"] = json!([]);
        let answer = case.post(&case.pods(), &object).await;
        assert_eq!(answer.causes(), [("spec.containers", "FieldValueRequired")]);
        assert_eq!(
            answer.message(),
            "Pod \"a\" is invalid: spec.containers: Required value"
        );
        object["spec"]["containers"] = json!([{ "name": "main" }]);
        let answer = case.post(&case.pods(), &object).await;
        assert_eq!(
            answer.causes(),
            [("spec.containers[0].image", "FieldValueRequired")]
        );
        object["spec"]["containers"] = json!([
            { "name": "main", "image": "x" },
            { "name": "main", "image": "x" },
        ]);
        let answer = case.post(&case.pods(), &object).await;
        assert_eq!(
            answer.causes(),
            [("spec.containers[1].name", "FieldValueDuplicate")]
        );
    })
    .await;
}

#[tokio::test]
async fn a_deployment_selects_its_own_pods() {
    case(async |case| {
        let mut object = deployment("a");
        object["spec"]["selector"]["matchLabels"] = json!({ "other": "x" });
        let answer = case.post(&case.deployments(), &object).await;
        assert_eq!(
            answer.causes(),
            [("spec.template.metadata.labels", "FieldValueInvalid")]
        );
        assert!(
            answer
                .message()
                .contains("`selector` does not match template `labels`")
        );
        case.post(&case.deployments(), &deployment("a")).await.ok();
        let patch = json!({ "spec": {
            "selector": { "matchLabels": { "app": "b" } },
            "template": { "metadata": { "labels": { "app": "b" } } },
        }});
        let answer = case
            .patch(&format!("{}/a", case.deployments()), MERGE, &patch)
            .await;
        assert_eq!(answer.causes(), [("spec.selector", "FieldValueInvalid")]);
        assert!(
            answer.message().ends_with("field is immutable"),
            "{}",
            answer.message()
        );
    })
    .await;
}

#[tokio::test]
async fn a_service_needs_sound_ports() {
    case(async |case| {
        let services = case.path("v1", "services");
        let service = |spec| json!({ "metadata": { "name": "a" }, "spec": spec });
        let answer = case.post(&services, &service(json!({ "ports": [] }))).await;
        assert_eq!(answer.causes(), [("spec.ports", "FieldValueRequired")]);
        let answer = case
            .post(&services, &service(json!({ "ports": [{ "port": 70000 }] })))
            .await;
        let causes = answer.causes();
        assert_eq!(causes[0], ("spec.ports[0].port", "FieldValueInvalid"));
        let ports = json!({ "ports": [{ "port": 80, "protocol": "ICMP" }] });
        let answer = case.post(&services, &service(ports)).await;
        assert_eq!(
            answer.causes(),
            [("spec.ports[0].protocol", "FieldValueNotSupported")]
        );
        let twins = json!({ "ports": [{ "port": 80, "name": "a" }, { "port": 81, "name": "a" }] });
        let answer = case.post(&services, &service(twins)).await;
        assert_eq!(
            answer.causes(),
            [("spec.ports[1].name", "FieldValueDuplicate")]
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_immutable_stays() {
    case(async |case| {
        let mut object = config_map("a");
        object["immutable"] = true.into();
        object["data"] = json!({ "k": "v" });
        case.post(&case.config_maps(), &object).await.ok();
        let path = format!("{}/a", case.config_maps());
        let patch = json!({ "data": { "k": "w" } });
        let answer = case.patch(&path, MERGE, &patch).await;
        assert_eq!(answer.causes(), [("data", "FieldValueForbidden")]);
        case.post(&case.pods(), &pod("p")).await.ok();
        let path = format!("{}/p", case.pods());
        let patch = json!({ "spec": { "restartPolicy": "Never" } });
        let answer = case.patch(&path, MERGE, &patch).await;
        assert_eq!(answer.causes(), [("spec", "FieldValueForbidden")]);
        assert!(
            answer
                .message()
                .contains("pod updates may not change fields other than")
        );
    })
    .await;
}
