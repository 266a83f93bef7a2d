use serde_json::{Value, json};

use super::{super::bootstrap, *};
use crate::{schema::Reason, status::Status};

fn store(objects: &[Value]) -> Store {
    let store = Store::default();
    for object in bootstrap().iter().chain(objects) {
        let resource = match object["kind"].as_str() {
            Some("Role") => &ROLES,
            Some("RoleBinding") => &ROLE_BINDINGS,
            Some("ClusterRoleBinding") => &CLUSTER_ROLE_BINDINGS,
            _ => &CLUSTER_ROLES,
        };
        store.put(resource, object.clone());
    }
    store
}

fn role(name: &str, rules: &Value) -> Value {
    json!({ "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules })
}

fn bind(namespace: &str, role: &str, subject: &Value) -> Value {
    let kind = match namespace {
        "" => "ClusterRoleBinding",
        _ => "RoleBinding",
    };
    json!({
        "kind": kind,
        "metadata": { "name": format!("{role}-binding"), "namespace": namespace },
        "roleRef": { "apiGroup": GROUP, "kind": "ClusterRole", "name": role },
        "subjects": [subject],
    })
}

fn alice() -> Value {
    json!({ "kind": "User", "name": "alice" })
}

/// `verb group/resource[/subresource] [namespace[/name]]`, or `verb /path`. The core group is `core`.
fn ask(store: &Store, user: &User, question: &str) -> Decision {
    let words: Vec<_> = question.split(' ').collect();
    let target = if words[1].starts_with('/') {
        Target::Path(words[1])
    } else {
        let mut what = words[1].splitn(3, '/');
        let place = words.get(2).copied().unwrap_or_default();
        let (namespace, name) = place.split_once('/').unwrap_or((place, ""));
        Target::Resource {
            group: what
                .next()
                .filter(|group| *group != "core")
                .unwrap_or_default(),
            resource: what.next().unwrap(),
            subresource: what.next().unwrap_or_default(),
            namespace,
            name,
        }
    };
    let attributes = Attributes {
        user,
        verb: words[0],
        target,
    };
    Index::of(store).authorize(&attributes)
}

fn allowed(store: &Store, question: &str) -> bool {
    ask(store, &User::new("alice"), question).allowed
}

#[test]
fn a_rule_allows_what_it_names_and_nothing_else() {
    let rules = json!([
        { "apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get"] },
        { "apiGroups": ["apps"], "resources": ["*"], "verbs": ["list"] },
        { "apiGroups": ["x"], "resources": ["*/status"], "verbs": ["*"] },
        { "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get"] },
        { "nonResourceURLs": ["/metrics", "/debug/*"], "verbs": ["get"] },
    ]);
    let store = store(&[role("r", &rules), bind("", "r", &alice())]);
    for question in [
        "get core/pods ns/a",
        "get core/pods/log ns/a",
        "list apps/deployments",
        "list apps/deployments/scale ns",
        "patch x/things/status ns/a",
        "get core/secrets ns/a",
        "get /metrics",
        "get /debug/x/y",
    ] {
        assert!(allowed(&store, question), "{question}");
    }
    for question in [
        "list core/pods ns",
        "get core/pods/exec ns/a",
        "get core/pods/status ns/a",
        "get core/secrets ns/b",
        "list core/secrets ns",
        "get apps/deployments ns/a",
        "patch x/things ns/a",
        "get /metricsx",
        "post /metrics",
    ] {
        assert!(!allowed(&store, question), "{question}");
    }
}

#[test]
fn a_role_binding_holds_in_its_namespace() {
    let rules = json!([{ "apiGroups": ["g"], "resources": ["r"], "verbs": ["list"] }]);
    let store = store(&[role("r", &rules), bind("ns", "r", &alice())]);
    assert!(allowed(&store, "list g/r ns"));
    assert!(!allowed(&store, "list g/r other"));
    assert!(!allowed(&store, "list g/r"));
}

#[test]
fn a_role_binding_grants_no_paths() {
    let rules = json!([{ "nonResourceURLs": ["/metrics"], "verbs": ["get"] }]);
    let store = store(&[role("r", &rules), bind("ns", "r", &alice())]);
    assert!(!allowed(&store, "get /metrics"));
}

#[test]
fn subjects_are_users_groups_and_service_accounts() {
    let rules = json!([{ "apiGroups": ["g"], "resources": ["r"], "verbs": ["get"] }]);
    let account = User::service_account("ns", "sa");
    let member = User::new("bob").member_of("devs");
    for (subject, user) in [
        (json!({ "kind": "Group", "name": "devs" }), &member),
        (json!({ "kind": "ServiceAccount", "name": "sa" }), &account),
        (
            json!({ "kind": "ServiceAccount", "name": "sa", "namespace": "ns" }),
            &account,
        ),
        (json!({ "kind": "User", "name": account.name }), &account),
    ] {
        let store = store(&[role("r", &rules), bind("ns", "r", &subject)]);
        assert!(ask(&store, user, "get g/r ns").allowed, "{subject}");
        assert!(!allowed(&store, "get g/r ns"), "{subject}");
    }
}

#[test]
fn the_reason_names_the_binding() {
    let rules = json!([{ "apiGroups": ["g"], "resources": ["r"], "verbs": ["get"] }]);
    let subject = json!({ "kind": "ServiceAccount", "name": "sa" });
    let store = store(&[role("r", &rules), bind("ns", "r", &subject)]);
    let decision = ask(&store, &User::service_account("ns", "sa"), "get g/r ns");
    let reason = "RBAC: allowed by RoleBinding \"r-binding/ns\" of ClusterRole \"r\" \
                  to ServiceAccount \"sa/ns\"";
    assert_eq!(decision.reason, reason);
}

#[test]
fn a_binding_to_a_missing_role_says_so() {
    let store = store(&[bind("", "gone", &alice())]);
    let decision = ask(&store, &User::new("alice"), "get g/r ns");
    assert!(!decision.allowed);
    let reason = "RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found";
    assert_eq!(decision.reason, reason);
}

#[test]
fn masters_may_do_everything_without_a_role() {
    let decision = ask(&Store::default(), &User::admin(), "delete g/r ns/x");
    assert!(decision.allowed);
}

#[test]
fn aggregated_roles_consist_of_what_labels_say() {
    let mut extra = role(
        "extra",
        &json!([{ "apiGroups": ["g"], "resources": ["r"], "verbs": ["get"] }]),
    );
    extra["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] = "true".into();
    // Whoever may edit may view, and whoever administers may edit.
    for name in ["view", "edit", "admin"] {
        let store = store(&[extra.clone(), bind("ns", name, &alice())]);
        assert!(allowed(&store, "get g/r ns"), "{name}");
    }
    let store = store(&[extra]);
    let written = aggregated(&store);
    let names: Vec<_> = written
        .iter()
        .map(|role| &role["metadata"]["name"])
        .collect();
    assert_eq!(names, ["admin", "edit", "view"]);
    for role in written {
        store.put(&CLUSTER_ROLES, role);
    }
    assert_eq!(aggregated(&store), Vec::<Value>::new());
}

#[test]
fn an_index_is_made_again_when_a_role_changes_only() {
    let store = store(&[bind("", "r", &alice())]);
    let cache = Cache::default();
    let before = cache.current(&store);
    store.put(
        &GroupResource::new("", "pods"),
        json!({ "metadata": { "name": "p" } }),
    );
    assert!(Arc::ptr_eq(&before, &cache.current(&store)));
    let rules = json!([{ "apiGroups": ["g"], "resources": ["r"], "verbs": ["get"] }]);
    store.put(&CLUSTER_ROLES, role("r", &rules));
    assert!(!Arc::ptr_eq(&before, &cache.current(&store)));
}

fn write(store: &Store, old: Option<&Value>, new: &Value) -> Result<(), Status> {
    let user = User::new("alice").member_of(group::AUTHENTICATED);
    escalation::check(&Index::of(store), &user, old, new)
}

#[test]
fn nobody_grants_what_they_do_not_hold() {
    let held = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"] }]);
    let store = store(&[role("held", &held), bind("", "held", &alice())]);
    assert_eq!(write(&store, None, &role("new", &held)), Ok(()));
    let more = json!([
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "create", "delete"] },
        { "nonResourceURLs": ["/x"], "verbs": ["get"] },
    ]);
    let refused = write(&store, None, &role("new", &more)).unwrap_err();
    let message = "clusterroles.rbac.authorization.k8s.io \"new\" is forbidden: user \"alice\" \
        (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
        {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"create\" \"delete\"]}\n\
        {NonResourceURLs:[\"/x\"], Verbs:[\"get\"]}";
    assert_eq!(
        (refused.code.as_u16(), refused.message.as_str()),
        (403, message)
    );
}

#[test]
fn a_right_to_one_name_does_not_cover_all_names() {
    let one = json!([
        { "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"], "verbs": ["get"] },
    ]);
    let all = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }]);
    let few = store(&[role("held", &one), bind("", "held", &alice())]);
    assert!(write(&few, None, &role("new", &all)).is_err());
    let many = store(&[role("held", &all), bind("", "held", &alice())]);
    assert_eq!(write(&many, None, &role("new", &one)), Ok(()));
}

#[test]
fn escalate_and_bind_lift_the_limit() {
    let wide = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
    let right = |verb| {
        json!([{
            "apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": ["wide"],
            "verbs": [verb],
        }])
    };
    let wide_role = role("wide", &wide);
    let binding = bind("", "wide", &alice());
    for (verb, object, other) in [
        ("escalate", &wide_role, &binding),
        ("bind", &binding, &wide_role),
    ] {
        let store = store(&[
            wide_role.clone(),
            role("right", &right(verb)),
            bind("", "right", &alice()),
        ]);
        assert_eq!(write(&store, None, object), Ok(()), "{verb}");
        assert!(write(&store, None, other).is_err(), "{verb}");
    }
}

#[test]
fn a_binding_keeps_its_role() {
    let store = store(&[]);
    let (old, new) = (bind("", "view", &alice()), bind("", "edit", &alice()));
    let refused = escalation::check(&Index::of(&store), &User::admin(), Some(&old), &new);
    let refused = refused.unwrap_err();
    assert_eq!(refused.code.as_u16(), 422);
    assert!(
        refused.message.contains("cannot change roleRef"),
        "{refused}"
    );
    assert_eq!(
        refused.details["causes"][0]["reason"],
        Reason::Invalid.as_str()
    );
}

#[test]
fn labels_of_a_role_may_be_written_by_anyone_who_may_write_it() {
    let wide = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
    let old = role("wide", &wide);
    let mut new = old.clone();
    new["metadata"]["labels"]["a"] = "b".into();
    let store = store(std::slice::from_ref(&old));
    assert_eq!(write(&store, Some(&old), &new), Ok(()));
}
