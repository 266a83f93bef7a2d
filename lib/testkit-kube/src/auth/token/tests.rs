use serde_json::json;

use super::*;
use crate::auth::Authority;
use crate::status::Status;

/// A store with a service account, a pod of it on a node, and a secret.
fn store() -> Store {
    let store = Store::default();
    let named = |name: &str| json!({ "metadata": { "name": name, "namespace": "ns" } });
    store.put(&SERVICE_ACCOUNTS, named("sa"));
    store.put(&SECRETS, named("secret"));
    store.put(&NODES, json!({ "metadata": { "name": "node" } }));
    let mut pod = named("pod");
    pod["spec"] = json!({ "serviceAccountName": "sa", "nodeName": "node" });
    store.put(&PODS, pod);
    store
}

fn wanted(bound: Option<BoundKind>) -> Wanted {
    let name = |kind| match kind {
        BoundKind::Pod => "pod".to_owned(),
        BoundKind::Secret => "secret".to_owned(),
    };
    Wanted {
        audiences: vec!["istio-ca".to_owned(), "other".to_owned()],
        lifetime: SignedDuration::from_secs(60),
        bound: bound.map(|kind| Bound {
            kind,
            name: name(kind),
            uid: None,
        }),
    }
}

fn audience() -> Vec<String> {
    vec!["istio-ca".to_owned(), "third".to_owned()]
}

fn uid_of(store: &Store, resource: &GroupResource, namespace: &str, name: &str) -> String {
    uid(&store.get(resource, namespace, name).unwrap()).to_owned()
}

#[test]
fn a_token_speaks_of_its_service_account_pod_and_node() {
    let (issuer, store) = (Issuer::new().unwrap(), store());
    let issued = issuer.issue(&store, "ns", "sa", &wanted(Some(BoundKind::Pod)));
    let token = issued.unwrap().token;
    let mut believed = issuer.identify(&store, &token, &audience()).unwrap();
    let id = believed
        .user
        .extra
        .remove("authentication.kubernetes.io/credential-id")
        .unwrap();
    assert!(id[0].starts_with("JTI="), "{id:?}");
    let fact = |key: &str, value: String| {
        let key = format!("authentication.kubernetes.io/{key}");
        (key, vec![value])
    };
    let user = User {
        uid: uid_of(&store, &SERVICE_ACCOUNTS, "ns", "sa"),
        extra: Extra::from([
            fact("pod-name", "pod".to_owned()),
            fact("pod-uid", uid_of(&store, &PODS, "ns", "pod")),
            fact("node-name", "node".to_owned()),
            fact("node-uid", uid_of(&store, &NODES, "", "node")),
        ]),
        ..User::service_account("ns", "sa")
    };
    let audiences = vec!["istio-ca".to_owned()];
    assert_eq!(believed, Believed { user, audiences });
}

#[test]
fn a_token_for_others_is_not_believed() {
    let (issuer, store) = (Issuer::new().unwrap(), store());
    let token = issuer
        .issue(&store, "ns", "sa", &wanted(None))
        .unwrap()
        .token;
    let refused = issuer.identify(&store, &token, &["x".to_owned()]);
    let text = "[invalid bearer token, token audiences [\"istio-ca\" \"other\"] is invalid for the \
                target audiences [\"x\"]]";
    assert_eq!(refused.unwrap_err().to_string(), text);
}

#[test]
fn a_token_counts_in_its_time_only() {
    let (issuer, store) = (Issuer::new().unwrap(), store());
    let issued = issuer.issue(&store, "ns", "sa", &wanted(None)).unwrap();
    let at = |now| issuer.identify_at(&store, &issued.token, &audience(), now);
    let second = SignedDuration::from_secs(1);
    assert!(at(issued.expires - second).is_ok());
    assert_eq!(at(issued.expires), Err(Unbelievable::Expired));
    let start = issued.expires - SignedDuration::from_secs(60);
    assert_eq!(at(start - second), Err(Unbelievable::Early));
}

#[test]
fn a_token_dies_with_what_it_is_bound_to() {
    let issuer = Issuer::new().unwrap();
    let cases = [
        (None, &SERVICE_ACCOUNTS, "sa"),
        (Some(BoundKind::Pod), &SERVICE_ACCOUNTS, "sa"),
        (Some(BoundKind::Pod), &PODS, "pod"),
        (Some(BoundKind::Secret), &SECRETS, "secret"),
    ];
    for (bound, resource, name) in cases {
        let store = store();
        let token = issuer
            .issue(&store, "ns", "sa", &wanted(bound))
            .unwrap()
            .token;
        let believed = || issuer.identify(&store, &token, &audience());
        assert!(believed().is_ok());
        let gone = store.remove(resource, "ns", name).unwrap();
        assert_eq!(believed(), Err(Unbelievable::Invalidated), "{name}");
        // Another one of the same name is not the one that was meant.
        let mut another = Value::clone(&gone);
        another["metadata"]["uid"] = "another".into();
        store.put(resource, another);
        assert_eq!(believed(), Err(Unbelievable::Invalidated), "{name}");
    }
}

#[test]
fn what_is_no_token_is_not_believed() {
    let (issuer, store) = (Issuer::new().unwrap(), store());
    let foreign = Issuer::new()
        .unwrap()
        .issue(&store, "ns", "sa", &wanted(None));
    let huge = "x".repeat(1 << 20);
    for token in ["", "a.b.c", "...", &foreign.unwrap().token, &huge] {
        let refused = issuer.identify(&store, token, &audience());
        assert_eq!(refused, Err(Unbelievable::Foreign));
    }
}

fn authority() -> Authority {
    Authority::generate().unwrap()
}

fn request(spec: &Value) -> Result<Value, Status> {
    let authority = authority();
    let request = json!({ "spec": spec });
    authority.request_token(&store(), "ns", "sa", request)
}

#[test]
fn a_request_is_answered_with_a_token() {
    let answer = request(&json!({ "audiences": ["istio-ca"], "expirationSeconds": 600 })).unwrap();
    assert_eq!(answer["kind"], "TokenRequest");
    assert_eq!(answer["metadata"]["name"], "sa");
    assert_eq!(answer["spec"]["audiences"], json!(["istio-ca"]));
    assert!(answer["status"]["token"].as_str().unwrap().len() > 100);
    assert!(
        answer["status"]["expirationTimestamp"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    let answer = request(&json!({ "audiences": [] })).unwrap();
    assert_eq!(answer["spec"]["audiences"], json!([AUDIENCE]));
    assert_eq!(answer["spec"]["expirationSeconds"], 3600);
}

#[test]
fn a_request_is_refused_for_its_reason() {
    let bound = |kind: &str, name: &str, uid: &str| {
        json!({ "audiences": [], "boundObjectRef": {
            "apiVersion": "v1", "kind": kind, "name": name, "uid": uid,
        }})
    };
    let cases = [
        (
            json!({ "audiences": [], "expirationSeconds": 599 }),
            422,
            "less than 10 minutes",
        ),
        (
            json!({ "audiences": [], "expirationSeconds": 4_294_967_297_i64 }),
            422,
            "larger than 2^32 seconds",
        ),
        (bound("Pod", "gone", ""), 404, "pods \"gone\" not found"),
        (
            bound("Pod", "pod", "other"),
            409,
            "does not match the UID in record",
        ),
        (
            bound("Node", "node", ""),
            400,
            "cannot bind token to object of type v1, Kind=Node",
        ),
        (json!({ "audiences": 1 }), 400, "cannot be read"),
    ];
    for (spec, code, text) in cases {
        let refused = request(&spec).unwrap_err();
        assert_eq!(refused.code.as_u16(), code, "{refused}");
        assert!(refused.message.contains(text), "{refused}");
    }
}

#[test]
fn a_token_is_bound_to_pods_of_its_account_only() {
    let (issuer, store) = (Issuer::new().unwrap(), store());
    let other = json!({ "metadata": { "name": "other", "namespace": "ns" } });
    store.put(&SERVICE_ACCOUNTS, other);
    let refused = issuer.issue(&store, "ns", "other", &wanted(Some(BoundKind::Pod)));
    let refused = refused.unwrap_err();
    assert!(
        refused.message.contains("different serviceaccount"),
        "{refused}"
    );
}
