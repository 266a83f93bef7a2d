//! The order of proofs.

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::TokenReviewStatus;

use super::{
    metrics::Metrics,
    review::{Reviewer, Unreachable},
    *,
};

/// Knows one service account, or nobody.
struct Server(Option<&'static str>);

impl Reviewer for Server {
    fn review<'a>(
        &'a self,
        _token: &'a str,
    ) -> BoxFuture<'a, Result<TokenReviewStatus, Unreachable>> {
        let status = self.0.map(review::tests::mk_status).unwrap_or_default();
        Box::pin(std::future::ready(Ok(status)))
    }
}

fn mk_authenticator(account: Option<&'static str>) -> Authenticator {
    let audiences = vec!["istio-ca".to_owned()];
    let reviews = TokenReviews::new(Arc::new(Server(account)), audiences, Metrics::default());
    let domains = TrustDomains {
        own: "new.example".into(),
        aliases: vec!["old.example".into()],
    };
    Authenticator::new(reviews, watch::channel(domains).1)
}

fn mk_metadata() -> MetadataMap {
    let token = token::tests::mk_token(&serde_json::json!({}));
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
    metadata
}

const ACCOUNT: Option<&str> = Some("system:serviceaccount:shop:cart");

#[tokio::test]
async fn a_token_gives_an_identity_in_the_trust_domain_of_now() {
    let caller = mk_authenticator(ACCOUNT)
        .authenticate(&mk_metadata(), None)
        .await
        .unwrap();
    assert_eq!(
        caller.identity.to_string(),
        "spiffe://new.example/ns/shop/sa/cart"
    );
    assert_eq!(
        (caller.namespace(), caller.service_account()),
        ("shop", "cart")
    );
    assert!(caller.pod.is_some());
}

#[tokio::test]
async fn a_certificate_goes_before_a_token_and_tells_no_pod() {
    for domain in ["new.example", "old.example"] {
        let peer = Identity::try_new(domain, "shop", "bank").unwrap();
        let authenticator = mk_authenticator(ACCOUNT);
        let caller = authenticator
            .authenticate(&mk_metadata(), Some(&peer))
            .await
            .unwrap();
        assert_eq!(
            caller,
            Caller {
                identity: peer,
                pod: None
            }
        );
    }
}

#[tokio::test]
async fn a_certificate_of_another_mesh_leaves_it_to_the_token() {
    let peer = Identity::try_new("foreign.example", "shop", "bank").unwrap();
    let authenticator = mk_authenticator(ACCOUNT);
    let caller = authenticator
        .authenticate(&mk_metadata(), Some(&peer))
        .await
        .unwrap();
    assert_eq!(caller.service_account(), "cart");
    let refused = authenticator
        .authenticate(&MetadataMap::new(), Some(&peer))
        .await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("another trust domain"), "{refused}");
}

#[tokio::test]
async fn whoever_proves_nothing_is_nobody() {
    let nothing = mk_authenticator(ACCOUNT)
        .authenticate(&MetadataMap::new(), None)
        .await;
    assert!(
        matches!(nothing, Err(Error::Unauthenticated(_))),
        "{nothing:?}"
    );
    let refused = mk_authenticator(None)
        .authenticate(&mk_metadata(), None)
        .await;
    assert!(
        matches!(refused, Err(Error::Unauthenticated(_))),
        "{refused:?}"
    );
}
