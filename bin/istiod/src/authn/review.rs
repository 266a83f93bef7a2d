//! The API server's judgement of a token.

use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{
    TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::timeout;

use super::Pod;

/// Whom a token is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The namespace of the service account.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// The pod to which the token is bound.
    pub pod: Option<Pod>,
}

/// Asks somebody who knows what a token is worth: the API server, or a fake of it in tests.
pub trait Reviewer: Send + Sync + 'static {
    /// Reviews a token for our audiences.
    fn review<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<TokenReviewStatus, Unreachable>>;
}

/// The API server does not answer, or not to us: it is away, or our service account may not create
/// TokenReviews. Says nothing about the token.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the API server cannot review tokens now: {0}")]
pub struct Unreachable(pub String);

/// Why a token is not accepted. The caller is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The API server does not know it: it is forged, expired, for other audiences, or its pod is gone.
    #[error("the API server does not accept the bearer token: {0}")]
    NotAuthenticated(String),
    /// It accepts the token for audiences other than those that were asked for.
    #[error("the bearer token is valid only for audiences {0:?}")]
    Audience(Vec<String>),
    /// It is a good token of somebody who is not a service account.
    #[error("`{0}` is not a service account")]
    NotAServiceAccount(String),
}

/// Reviews tokens with the API server.
#[derive(Clone)]
pub struct ApiServer {
    reviews: Api<TokenReview>,
    audiences: Vec<String>,
}

/// The group of all service accounts.
const GROUP: &str = "system:serviceaccounts";
/// Under which keys the API server tells the pod of a bound token.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// How long a review may take. A caller waits 10 s and more for its answer.
const TIMEOUT: Duration = Duration::from_secs(8);

// === impl ApiServer ===

impl ApiServer {
    /// Reviews with `client`, for tokens that are good for one of `audiences`.
    pub fn new(client: Client, audiences: Vec<String>) -> Self {
        Self {
            reviews: Api::all(client),
            audiences,
        }
    }

    async fn ask(&self, token: &str) -> Result<TokenReviewStatus, Unreachable> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(self.audiences.clone()),
            },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        let asked = self.reviews.create(&params, &review);
        match timeout(TIMEOUT, asked).await {
            Ok(Ok(review)) => Ok(review.status.unwrap_or_default()),
            Ok(Err(error)) => Err(Unreachable(error.to_string())),
            Err(_elapsed) => Err(Unreachable(format!("no answer within {TIMEOUT:?}"))),
        }
    }
}

impl Reviewer for ApiServer {
    fn review<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<TokenReviewStatus, Unreachable>> {
        Box::pin(self.ask(token))
    }
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer")
            .field("audiences", &self.audiences)
            .finish_non_exhaustive()
    }
}

// === impl Subject ===

impl Subject {
    /// Whom an answer of the API server names.
    pub(super) fn of(status: TokenReviewStatus, audiences: &[String]) -> Result<Self, Rejection> {
        if status.authenticated != Some(true) {
            let reason = status.error.unwrap_or_else(|| "no reason is given".into());
            return Err(Rejection::NotAuthenticated(excerpt(&reason)));
        }
        // A server that ignores audiences tells none: then the token is good for the server itself.
        let granted = status.audiences.unwrap_or_default();
        if !granted.iter().any(|audience| audiences.contains(audience)) {
            return Err(Rejection::Audience(granted));
        }
        let user = status.user.unwrap_or_default();
        Self::of_user(&user).ok_or_else(|| {
            Rejection::NotAServiceAccount(excerpt(&user.username.unwrap_or_default()))
        })
    }

    fn of_user(user: &UserInfo) -> Option<Self> {
        let groups = user.groups.as_deref().unwrap_or_default();
        if !groups.iter().any(|group| group == GROUP) {
            return None;
        }
        let name: Vec<&str> = user.username.as_deref()?.split(':').collect();
        let ["system", "serviceaccount", namespace, account] = name[..] else {
            return None;
        };
        let extra = |key: &str| {
            let values = user.extra.as_ref()?.get(key)?;
            values.first().cloned()
        };
        let pod = extra(POD_NAME).zip(extra(POD_UID));
        Some(Self {
            namespace: namespace.to_owned(),
            service_account: account.to_owned(),
            pod: pod.map(|(name, uid)| Pod { name, uid }),
        })
    }
}

/// The beginning of a text from outside, short enough for a log line.
fn excerpt(text: &str) -> String {
    text.chars().take(256).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::authn) fn mk_status(username: &str) -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec!["istio-ca".into()]),
            error: None,
            user: Some(UserInfo {
                username: Some(username.into()),
                groups: Some(vec![GROUP.into(), "system:authenticated".into()]),
                extra: Some(
                    [(POD_NAME, "ztunnel-x"), (POD_UID, "u-1")]
                        .map(|(key, value)| (key.into(), vec![value.into()]))
                        .into(),
                ),
                uid: None,
            }),
        }
    }

    fn read(status: TokenReviewStatus) -> Result<Subject, Rejection> {
        Subject::of(status, &["istio-ca".into()])
    }

    const ZTUNNEL: &str = "system:serviceaccount:istio-system:ztunnel";

    #[test]
    fn a_service_account_is_known_with_its_pod() {
        let subject = Subject {
            namespace: "istio-system".into(),
            service_account: "ztunnel".into(),
            pod: Some(Pod {
                name: "ztunnel-x".into(),
                uid: "u-1".into(),
            }),
        };
        assert_eq!(read(mk_status(ZTUNNEL)), Ok(subject.clone()));
        let mut unbound = mk_status(ZTUNNEL);
        unbound.user.as_mut().unwrap().extra = None;
        assert_eq!(
            read(unbound),
            Ok(Subject {
                pod: None,
                ..subject
            })
        );
    }

    #[test]
    fn whoever_is_no_service_account_is_refused() {
        for name in [
            "admin",
            "system:node:a",
            "system:serviceaccount:a",
            "system:serviceaccount:a:b:c",
        ] {
            let refused = read(mk_status(name));
            assert_eq!(refused, Err(Rejection::NotAServiceAccount(name.into())));
        }
        let mut outsider = mk_status(ZTUNNEL);
        outsider.user.as_mut().unwrap().groups = Some(vec!["system:authenticated".into()]);
        assert!(matches!(
            read(outsider),
            Err(Rejection::NotAServiceAccount(_))
        ));
    }

    #[test]
    fn a_server_that_ignores_audiences_or_says_no_is_not_believed() {
        for granted in [None, Some(vec![]), Some(vec!["api".into()])] {
            let refused = read(TokenReviewStatus {
                audiences: granted,
                ..mk_status(ZTUNNEL)
            });
            assert!(
                matches!(refused, Err(Rejection::Audience(_))),
                "{refused:?}"
            );
        }
        for said in [None, Some(false)] {
            let refused = read(TokenReviewStatus {
                authenticated: said,
                ..mk_status(ZTUNNEL)
            });
            assert!(
                matches!(refused, Err(Rejection::NotAuthenticated(_))),
                "{refused:?}"
            );
        }
    }
}
