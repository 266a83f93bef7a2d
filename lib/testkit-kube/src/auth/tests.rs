use http::HeaderMap;
use jiff::SignedDuration;
use openssl::x509::X509;
use serde_json::{Value, json};

use super::{
    token::{SERVICE_ACCOUNTS, Wanted},
    *,
};

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn store() -> Store {
    let store = Store::default();
    for object in bootstrap() {
        let resource = match object["kind"].as_str() {
            Some("ClusterRole") => &rbac::CLUSTER_ROLES,
            _ => &rbac::CLUSTER_ROLE_BINDINGS,
        };
        store.put(resource, object);
    }
    let account = json!({ "metadata": { "name": "sa", "namespace": "ns" } });
    store.put(&SERVICE_ACCOUNTS, account);
    store
}

fn sign(authority: &Authority, store: &Store, audience: Option<&str>) -> String {
    let wanted = Wanted {
        audiences: audience.map(str::to_owned).into_iter().collect(),
        lifetime: SignedDuration::from_secs(60),
        bound: None,
    };
    let issued = authority.tokens().issue(store, "ns", "sa", &wanted);
    issued.unwrap().token
}

fn certificate(authority: &Authority, user: &User) -> Peer {
    let identity = authority.ca.user_identity(user).unwrap();
    let certificate = X509::from_pem(identity.certificate.as_bytes()).unwrap();
    authority.identify(Some(&certificate))
}

#[test]
fn who_shows_nothing_is_anonymous() {
    let authority = Authority::generate().unwrap();
    let user = authority.authenticate(&store(), &Peer::Nobody, &HeaderMap::new());
    assert_eq!(user, Ok(User::anonymous()));
}

#[test]
fn certificates_and_tokens_make_known() {
    let (authority, store) = (authority(), store());
    authority.agree("secret", User::new("bob"));
    let alice = certificate(&authority, &User::new("alice").member_of("devs"));
    let user = authority.authenticate(&store, &alice, &HeaderMap::new());
    assert_eq!(user.unwrap().groups, ["devs", "system:authenticated"]);
    let token = sign(&authority, &store, None);
    for (token, name) in [("secret", "bob"), (&token, "system:serviceaccount:ns:sa")] {
        let headers = headers(&[("authorization", &format!("Bearer {token}"))]);
        let user = authority
            .authenticate(&store, &Peer::Nobody, &headers)
            .unwrap();
        assert_eq!(user.name, name);
        assert!(user.is_in(group::AUTHENTICATED));
    }
}

#[test]
fn bad_credentials_are_refused_and_do_not_become_anonymous() {
    let (authority, store) = (authority(), store());
    let foreign = Authority::generate().unwrap();
    let identity = foreign.ca.user_identity(&User::admin()).unwrap();
    let foreign = X509::from_pem(identity.certificate.as_bytes()).unwrap();
    let peer = authority.identify(Some(&foreign));
    let refused = authority.authenticate(&store, &peer, &HeaderMap::new());
    assert_eq!(refused.unwrap_err(), Status::unauthorized());
    let for_others = sign(&authority, &store, Some("istio-ca"));
    for token in ["wrong", &for_others] {
        let headers = headers(&[("authorization", &format!("Bearer {token}"))]);
        let refused = authority.authenticate(&store, &Peer::Nobody, &headers);
        assert_eq!(refused.unwrap_err(), Status::unauthorized());
    }
}

#[test]
fn only_those_who_may_impersonate_do() {
    let (authority, store) = (authority(), store());
    let as_alice = headers(&[
        ("impersonate-user", "alice"),
        ("impersonate-group", "devs"),
        ("impersonate-group", "ops"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-scopes", "a"),
    ]);
    let admin = certificate(&authority, &User::admin());
    let user = authority.authenticate(&store, &admin, &as_alice).unwrap();
    let alice = User {
        uid: "7".to_owned(),
        extra: Extra::from([("scopes".to_owned(), vec!["a".to_owned()])]),
        ..User::new("alice")
            .member_of("devs")
            .member_of("ops")
            .member_of(group::AUTHENTICATED)
    };
    assert_eq!(user, alice);
    let bob = certificate(&authority, &User::new("bob"));
    let refused = authority.authenticate(&store, &bob, &as_alice).unwrap_err();
    let message = "users \"alice\" is forbidden: User \"bob\" cannot impersonate resource \"users\" \
                   in API group \"\" at the cluster scope";
    assert_eq!(
        (refused.code.as_u16(), refused.message.as_str()),
        (403, message)
    );
}

#[test]
fn a_refusal_is_worded_as_the_real_one() {
    let (authority, store) = (authority(), store());
    let user = User::new("x");
    let refusal = |verb, target| {
        let attributes = Attributes {
            user: &user,
            verb,
            target,
        };
        authority.require(&store, &attributes).unwrap_err().message
    };
    let pods = |subresource, namespace, name| Target::Resource {
        group: "",
        resource: "pods",
        subresource,
        namespace,
        name,
    };
    let list = "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" \
                in the namespace \"y\"";
    assert_eq!(refusal("list", pods("", "y", "")), list);
    let log = "pods \"p\" is forbidden: User \"x\" cannot get resource \"pods/log\" in API group \"\" \
               in the namespace \"y\"";
    assert_eq!(refusal("get", pods("log", "y", "p")), log);
    let path = "forbidden: User \"x\" cannot get path \"/metrics\"";
    assert_eq!(refusal("get", Target::Path("/metrics")), path);
}

fn authority() -> Authority {
    Authority::generate().unwrap()
}

fn review(kind: &str, spec: &Value) -> Result<Value, Status> {
    let (authority, store) = (authority(), store());
    let user = User::new("alice").member_of(group::AUTHENTICATED);
    let review = json!({ "kind": kind, "spec": spec });
    authority.review(&store, &user, "ns", review)
}

#[test]
fn a_token_is_reviewed() {
    let (authority, store) = (authority(), store());
    let review = |token: &str, audiences: &[&str]| {
        let spec = json!({ "token": token, "audiences": audiences });
        let review = json!({ "kind": "TokenReview", "spec": spec });
        let review = authority.review(&store, &User::admin(), "", review);
        review.unwrap()["status"].clone()
    };
    let token = sign(&authority, &store, Some("istio-ca"));
    let status = review(&token, &["istio-ca", "x"]);
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!(["istio-ca"]));
    assert_eq!(status["user"]["username"], "system:serviceaccount:ns:sa");
    let groups = json!([
        "system:serviceaccounts",
        "system:serviceaccounts:ns",
        "system:authenticated"
    ]);
    assert_eq!(status["user"]["groups"], groups);
    let status = review(&token, &[]);
    assert_eq!(status["authenticated"], Value::Null);
    assert!(
        status["error"]
            .as_str()
            .unwrap()
            .contains("token audiences"),
        "{status}"
    );
    assert_eq!(review("x", &["istio-ca"])["error"], "invalid bearer token");
}

#[test]
fn access_is_reviewed() {
    let spec = json!({
        "user": "alice", "groups": ["system:masters"],
        "resourceAttributes": { "verb": "get", "resource": "pods" },
    });
    let answer = review("SubjectAccessReview", &spec).unwrap();
    assert_eq!(answer["status"], json!({ "allowed": true }));
    let spec = json!({ "resourceAttributes": { "verb": "get", "resource": "pods" } });
    let answer = review("SelfSubjectAccessReview", &spec).unwrap();
    assert_eq!(answer["status"], json!({ "allowed": false }));
    let spec = json!({ "nonResourceAttributes": { "verb": "get", "path": "/healthz" } });
    let answer = review("SelfSubjectAccessReview", &spec).unwrap();
    assert_eq!(answer["status"]["allowed"], true);
    let answer = review("SelfSubjectRulesReview", &json!({ "namespace": "ns" })).unwrap();
    assert_eq!(
        answer["status"]["resourceRules"].as_array().unwrap().len(),
        2
    );
    let answer = review("SelfSubjectReview", &Value::Null).unwrap();
    assert_eq!(answer["status"]["userInfo"]["username"], "alice");
}

#[test]
fn a_review_that_asks_nothing_is_refused() {
    let attributes = json!({ "verb": "get", "resource": "pods", "namespace": "other" });
    for (kind, spec, code) in [
        ("TokenReview", json!({}), 400),
        ("SubjectAccessReview", json!({ "user": "a" }), 422),
        (
            "SubjectAccessReview",
            json!({ "resourceAttributes": attributes }),
            422,
        ),
        (
            "LocalSubjectAccessReview",
            json!({ "user": "a", "resourceAttributes": attributes }),
            422,
        ),
        ("SelfSubjectRulesReview", json!({}), 400),
        ("Pod", json!({}), 400),
    ] {
        let refused = review(kind, &spec).unwrap_err();
        assert_eq!(refused.code.as_u16(), code, "{kind}: {refused}");
    }
}
