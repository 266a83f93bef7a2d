//! Who may do what: roles, bindings, impersonation and the reviews of access.

use serde_json::{Value, json};

use crate::harness::{Case, case, config_map, unique};

const RBAC: &str = "rbac.authorization.k8s.io/v1";
const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";

/// A role and its binding to one subject, in the case's namespace.
async fn grant(case: &Case, name: &str, rules: &Value, subject: &Value) {
    let role = json!({ "metadata": { "name": name }, "rules": rules });
    case.post(&case.path(RBAC, "roles"), &role).await.ok();
    bind(case, name, "Role", name, subject).await;
}

async fn bind(case: &Case, name: &str, kind: &str, role: &str, subject: &Value) {
    let binding = json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role },
        "subjects": [subject],
    });
    case.post(&case.path(RBAC, "rolebindings"), &binding)
        .await
        .ok();
}

fn user(name: &str) -> Value {
    json!({ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name })
}

/// What is granted shows at once here and in a moment on a server with caches.
async fn until_allowed(case: &Case, caller: &crate::harness::Caller, path: &str) {
    let _ = case;
    caller
        .until("the permission", path, |answer| answer.status != 403)
        .await;
}

#[tokio::test]
async fn nobody_may_anything_without_a_role() {
    case(async |case| {
        let alice = case.user("alice");
        let answer = alice.get(&case.config_maps()).await;
        let message = answer.refused(403, "Forbidden");
        let namespace = &case.namespace;
        let expected = format!(
            "configmaps is forbidden: User \"alice\" cannot list resource \"configmaps\" in API group \
             \"\" in the namespace \"{namespace}\""
        );
        assert_eq!(message, expected);
        assert_eq!(answer.body["details"], json!({ "kind": "configmaps" }));
        let answer = alice.get("/apis/apps/v1/deployments").await;
        let expected = "deployments.apps is forbidden: User \"alice\" cannot list resource \
                        \"deployments\" in API group \"apps\" at the cluster scope";
        assert_eq!(answer.refused(403, "Forbidden"), expected);
        let answer = alice.get(&format!("{}/p/log", case.pods())).await;
        let expected = format!(
            "pods \"p\" is forbidden: User \"alice\" cannot get resource \"pods/log\" in API group \"\" \
             in the namespace \"{namespace}\""
        );
        assert_eq!(answer.refused(403, "Forbidden"), expected);
        let answer = alice.get("/metrics").await;
        let expected = "forbidden: User \"alice\" cannot get path \"/metrics\"";
        assert_eq!(answer.refused(403, "Forbidden"), expected);
    })
    .await;
}

#[tokio::test]
async fn everybody_may_look_around() {
    case(async |case| {
        let alice = case.user("alice");
        for path in [
            "/api",
            "/apis",
            "/apis/apps/v1",
            "/version",
            "/healthz",
            "/openapi/v2",
        ] {
            assert_eq!(alice.get(path).await.status, 200, "{path}");
        }
        let nobody = case.anonymous();
        assert_eq!(nobody.get("/version").await.status, 200);
        let answer = nobody.get("/api").await;
        let message = answer.refused(403, "Forbidden");
        assert_eq!(
            message,
            "forbidden: User \"system:anonymous\" cannot get path \"/api\""
        );
    })
    .await;
}

#[tokio::test]
async fn a_role_allows_what_it_says() {
    case(async |case| {
        let rules = json!([
            { "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": ["a"] },
            { "apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"] },
        ]);
        grant(case, "some", &rules, &user("alice")).await;
        let alice = case.user("alice");
        until_allowed(case, &alice, &format!("{}/a", case.config_maps())).await;
        alice.post(&case.config_maps(), &config_map("a")).await.ok();
        alice.get(&format!("{}/a", case.config_maps())).await.ok();
        for path in [format!("{}/b", case.config_maps()), case.config_maps()] {
            alice.get(&path).await.refused(403, "Forbidden");
        }
        alice.delete(&format!("{}/a", case.config_maps())).await.refused(403, "Forbidden");
        case.user("bob").get(&format!("{}/a", case.config_maps())).await.refused(403, "Forbidden");
    })
    .await;
}

#[tokio::test]
async fn a_role_for_one_name_covers_lists_of_that_name() {
    case(async |case| {
        let rules = json!([{
            "apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"],
            "resourceNames": ["a"],
        }]);
        grant(case, "one", &rules, &user("alice")).await;
        let alice = case.user("alice");
        let path = format!("{}?fieldSelector=metadata.name%3Da", case.config_maps());
        until_allowed(case, &alice, &path).await;
        alice.get(&path).await.ok();
        alice
            .get(&case.config_maps())
            .await
            .refused(403, "Forbidden");
    })
    .await;
}

#[tokio::test]
async fn a_role_for_one_name_covers_lists_of_kinds_that_are_not_there() {
    case(async |case| {
        let rules = json!([{
            "apiGroups": ["absent.lateen.io"], "resources": ["things"], "verbs": ["list"],
            "resourceNames": ["a"],
        }]);
        grant(case, "absent", &rules, &user("alice")).await;
        let alice = case.user("alice");
        let things = case.path("absent.lateen.io/v1", "things");
        let path = format!("{things}?fieldSelector=metadata.name%3Da");
        until_allowed(case, &alice, &path).await;
        assert_eq!(alice.get(&path).await.status, 404);
        alice.get(&things).await.refused(403, "Forbidden");
    })
    .await;
}

#[tokio::test]
async fn the_roles_for_people_are_there() {
    case(async |case| {
        bind(case, "viewer", "ClusterRole", "view", &user("alice")).await;
        bind(case, "editor", "ClusterRole", "edit", &user("bob")).await;
        let (alice, bob) = (case.user("alice"), case.user("bob"));
        until_allowed(case, &alice, &case.config_maps()).await;
        until_allowed(case, &bob, &case.config_maps()).await;
        alice
            .post(&case.config_maps(), &config_map("a"))
            .await
            .refused(403, "Forbidden");
        alice
            .get(&case.path("v1", "secrets"))
            .await
            .refused(403, "Forbidden");
        bob.post(&case.config_maps(), &config_map("a")).await.ok();
        bob.get(&case.path("v1", "secrets")).await.ok();
        bob.get(&case.path(RBAC, "roles"))
            .await
            .refused(403, "Forbidden");
    })
    .await;
}

#[tokio::test]
async fn cluster_roles_aggregate() {
    case(async |case| {
        let (part, whole) = (unique("part"), unique("whole"));
        let roles = case.elsewhere(RBAC, "clusterroles", &part);
        case.elsewhere(RBAC, "clusterroles", &whole);
        let rules =
            json!([{ "apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"] }]);
        let label = json!({ "part-of": whole });
        let role = json!({
            "metadata": { "name": whole },
            "aggregationRule": { "clusterRoleSelectors": [{ "matchLabels": label }] },
        });
        case.post(&roles, &role).await.ok();
        let role = json!({ "metadata": { "name": part, "labels": label }, "rules": rules });
        case.post(&roles, &role).await.ok();
        let path = format!("{roles}/{whole}");
        case.until("the aggregation", &path, |answer| {
            answer.body["rules"] == rules
        })
        .await;
        case.delete(&format!("{roles}/{part}")).await.ok();
        let empty = |answer: &crate::harness::Answer| {
            answer
                .body
                .get("rules")
                .is_none_or(|r| r.is_null() || *r == json!([]))
        };
        case.until("the disaggregation", &path, empty).await;
    })
    .await;
}

#[tokio::test]
async fn nobody_grants_more_than_they_have() {
    case(async |case| {
        let rules = json!([
            { "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create", "get"] },
            { "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] },
        ]);
        grant(case, "granter", &rules, &user("alice")).await;
        let alice = case.user("alice");
        let roles = case.path(RBAC, "roles");
        until_allowed(case, &alice, &format!("{roles}/granter")).await;
        let role = |name: &str, verbs: &[&str]| {
            let rules = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": verbs }]);
            json!({ "metadata": { "name": name }, "rules": rules })
        };
        alice.post(&roles, &role("same", &["get"])).await.ok();
        let answer = alice.post(&roles, &role("more", &["get", "list", "create"])).await;
        let message = answer.refused(403, "Forbidden");
        let expected = "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"alice\" \
            (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently \
            held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\" \"create\"]}";
        assert_eq!(message, expected);
        let binding = |role: &str| {
            json!({
                "metadata": { "name": role },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
                "subjects": [user("alice")],
            })
        };
        let bindings = case.path(RBAC, "rolebindings");
        let answer = alice.post(&bindings, &binding("edit")).await;
        let message = answer.refused(403, "Forbidden");
        assert!(message.contains("attempting to grant RBAC permissions not currently held"));
        alice.post(&bindings, &binding("no-such-role")).await.refused(404, "NotFound");
    })
    .await;
}

#[tokio::test]
async fn a_binding_keeps_its_role() {
    case(async |case| {
        bind(case, "b", "ClusterRole", "view", &user("alice")).await;
        let path = format!("{}/b", case.path(RBAC, "rolebindings"));
        let mut binding = case.get(&path).await.ok();
        binding["roleRef"]["name"] = "edit".into();
        let answer = case.put(&path, &binding).await;
        assert_eq!(answer.causes(), [("roleRef", "FieldValueInvalid")]);
        assert!(
            answer.message().ends_with("cannot change roleRef"),
            "{}",
            answer.message()
        );
    })
    .await;
}

#[tokio::test]
async fn a_missing_role_is_named_in_the_refusal() {
    case(async |case| {
        bind(case, "b", "ClusterRole", "no-such-role", &user("alice")).await;
        let alice = case.user("alice");
        let named = |answer: &crate::harness::Answer| {
            let end = ": RBAC: clusterrole.rbac.authorization.k8s.io \"no-such-role\" not found";
            answer.status == 403 && answer.message().ends_with(end)
        };
        alice.until("the refusal", &case.config_maps(), named).await;
    })
    .await;
}

#[tokio::test]
async fn impersonation_needs_a_permission_for_every_part() {
    case(async |case| {
        let as_bob = [
            ("impersonate-user", "bob"),
            ("impersonate-group", "devs"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-scopes", "a"),
        ];
        let bob = case.impersonate(&as_bob);
        let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let whoami = bob.post(path, &review).await.ok();
        let expected = json!({
            "username": "bob", "uid": "7", "groups": ["devs", "system:authenticated"],
            "extra": { "scopes": ["a"] },
        });
        assert_eq!(whoami["status"]["userInfo"], expected);
        // A service account that may impersonate one user, and nobody else.
        let role = unique("impersonator");
        let roles = case.elsewhere(RBAC, "clusterroles", &role);
        let rules = json!([
            { "apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["bob"] },
        ]);
        case.post(&roles, &json!({ "metadata": { "name": role }, "rules": rules })).await.ok();
        let bindings = case.elsewhere(RBAC, "clusterrolebindings", &role);
        let subject = json!({ "kind": "ServiceAccount", "name": "sa", "namespace": case.namespace });
        let binding = json!({
            "metadata": { "name": role },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [subject],
        });
        case.post(&bindings, &binding).await.ok();
        let account = json!({ "metadata": { "name": "sa" } });
        let accounts = case.path("v1", "serviceaccounts");
        case.post(&accounts, &account).await.ok();
        let token = case.post(&format!("{accounts}/sa/token"), &json!({ "spec": {} })).await.ok();
        let account = case.with_token(token["status"]["token"].as_str().unwrap());
        let header = http::HeaderName::from_static("impersonate-user");
        let bob = account.sending(header.clone(), "bob");
        bob.until("the permission", "/version", |answer| answer.status == 200).await;
        let answer = account.sending(header, "carol").get("/version").await;
        let message = answer.refused(403, "Forbidden");
        let expected = format!(
            "users \"carol\" is forbidden: User \"system:serviceaccount:{}:sa\" cannot impersonate \
             resource \"users\" in API group \"\" at the cluster scope",
            case.namespace
        );
        assert_eq!(message, expected);
        let group = http::HeaderName::from_static("impersonate-group");
        let answer = bob.sending(group, "system:masters").get("/version").await;
        answer.refused(403, "Forbidden");
    })
    .await;
}

#[tokio::test]
async fn an_impersonated_service_account_has_its_groups() {
    case(async |case| {
        let name = format!("system:serviceaccount:{}:sa", case.namespace);
        let account = case.user(&name);
        let review =
            json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let whoami = account.post(path, &review).await.ok();
        let groups = json!([
            "system:serviceaccounts",
            format!("system:serviceaccounts:{}", case.namespace),
            "system:authenticated",
        ]);
        assert_eq!(whoami["status"]["userInfo"]["groups"], groups);
    })
    .await;
}

#[tokio::test]
async fn access_is_reviewed() {
    case(async |case| {
        let rules = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }]);
        grant(case, "reader", &rules, &user("alice")).await;
        let alice = case.user("alice");
        until_allowed(case, &alice, &format!("{}/x", case.pods())).await;
        let ask =
            |verb: &str| json!({ "verb": verb, "resource": "pods", "namespace": case.namespace });
        let reason = format!(
            "RBAC: allowed by RoleBinding \"reader/{}\" of Role \"reader\" to User \"alice\"",
            case.namespace
        );
        let (yes, no) = (
            json!({ "allowed": true, "reason": reason }),
            json!({ "allowed": false }),
        );
        for (verb, expected) in [("get", &yes), ("list", &no)] {
            let spec = json!({ "user": "alice", "resourceAttributes": ask(verb) });
            let review = json!({ "spec": spec });
            let path = format!("{AUTHORIZATION}/subjectaccessreviews");
            let answer = case.post(&path, &review).await;
            assert_eq!(answer.status, 201);
            assert_eq!(&answer.body["status"], expected);
            let path = case.path("authorization.k8s.io/v1", "localsubjectaccessreviews");
            let mut local = review;
            local["metadata"]["namespace"] = case.namespace.as_str().into();
            assert_eq!(&case.post(&path, &local).await.ok()["status"], expected);
            let own = json!({ "spec": { "resourceAttributes": ask(verb) } });
            let path = format!("{AUTHORIZATION}/selfsubjectaccessreviews");
            assert_eq!(&alice.post(&path, &own).await.ok()["status"], expected);
        }
        let rules = json!({ "spec": { "namespace": case.namespace } });
        let path = format!("{AUTHORIZATION}/selfsubjectrulesreviews");
        let rules = alice.post(&path, &rules).await.ok();
        let rules = rules["status"]["resourceRules"].as_array().unwrap();
        let pods = json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] });
        assert!(rules.contains(&pods), "{rules:?}");
    })
    .await;
}

#[tokio::test]
async fn a_review_must_ask_something() {
    case(async |case| {
        let path = format!("{AUTHORIZATION}/subjectaccessreviews");
        let nobody =
            json!({ "spec": { "resourceAttributes": { "verb": "get", "resource": "pods" } } });
        assert_eq!(
            case.post(&path, &nobody).await.causes(),
            [("spec.user", "FieldValueInvalid")]
        );
        let nothing = json!({ "spec": { "user": "alice" } });
        let causes = case.post(&path, &nothing).await;
        assert_eq!(
            causes.causes(),
            [("spec.resourceAttributes", "FieldValueInvalid")]
        );
        let path = case.path("authorization.k8s.io/v1", "localsubjectaccessreviews");
        let attributes = json!({ "verb": "get", "resource": "pods", "namespace": "elsewhere" });
        let local = json!({
            "metadata": { "namespace": case.namespace },
            "spec": { "user": "alice", "resourceAttributes": attributes },
        });
        let causes = case.post(&path, &local).await;
        let field = "spec.resourceAttributes.namespace";
        assert_eq!(causes.causes(), [(field, "FieldValueInvalid")]);
        let path = format!("{AUTHORIZATION}/subjectaccessreviews");
        let alice = case.user("alice");
        alice.post(&path, &nobody).await.refused(403, "Forbidden");
    })
    .await;
}

#[tokio::test]
async fn a_wrong_token_is_not_anonymous() {
    case(async |case| {
        for token in ["nonsense", "a.b.c"] {
            let answer = case.with_token(token).get("/version").await;
            assert_eq!(answer.refused(401, "Unauthorized"), "Unauthorized");
        }
    })
    .await;
}
