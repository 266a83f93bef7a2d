//! The reviews: questions about tokens and permissions, asked as objects that are answered at once and
//! never stored.

use k8s_openapi::api::{
    authentication::v1::{
        SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewSpec,
        TokenReviewStatus, UserInfo,
    },
    authorization::v1::{
        LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule, ResourceAttributes,
        ResourceRule, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
        SubjectAccessReviewSpec, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Attributes, Authority, Target, User, group, refusal,
    token::{AUDIENCE, Believed, Unbelievable},
};
use crate::{
    schema::{Cause, Reason},
    status::Status,
    store::Store,
};

/// The API group of the reviews about permissions.
const AUTHORIZATION: &str = "authorization.k8s.io";

// === impl Authority ===

impl Authority {
    /// The reviews: TokenReview, SubjectAccessReview, LocalSubjectAccessReview, SelfSubjectAccessReview,
    /// SelfSubjectRulesReview, SelfSubjectReview. `namespace` is empty for the cluster-scoped ones.
    pub fn review(
        &self,
        store: &Store,
        user: &User,
        namespace: &str,
        review: Value,
    ) -> Result<Value, Status> {
        match review
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or_default()
        {
            "TokenReview" => answer(review, |mut review: TokenReview| {
                review.status = Some(self.review_token(store, &review.spec)?);
                Ok(review)
            }),
            "SubjectAccessReview" => answer(review, |mut review: SubjectAccessReview| {
                let status = self.review_access(store, &review.spec)?;
                review.status = Some(status);
                Ok(review)
            }),
            "LocalSubjectAccessReview" => answer(review, |mut review: LocalSubjectAccessReview| {
                require_namespace(&review.spec, namespace)?;
                let status = self.review_access(store, &review.spec)?;
                review.status = Some(status);
                Ok(review)
            }),
            "SelfSubjectAccessReview" => answer(review, |mut review: SelfSubjectAccessReview| {
                let spec = SubjectAccessReviewSpec {
                    non_resource_attributes: review.spec.non_resource_attributes.clone(),
                    resource_attributes: review.spec.resource_attributes.clone(),
                    user: Some(user.name.clone()),
                    groups: Some(user.groups.clone()),
                    ..SubjectAccessReviewSpec::default()
                };
                let status = self.review_access(store, &spec)?;
                review.status = Some(status);
                Ok(review)
            }),
            "SelfSubjectRulesReview" => answer(review, |mut review: SelfSubjectRulesReview| {
                let namespace = review.spec.namespace.as_deref().unwrap_or_default();
                if namespace.is_empty() {
                    return Err(Status::bad_request("no namespace on request"));
                }
                review.status = Some(self.review_rules(store, user, namespace));
                Ok(review)
            }),
            "SelfSubjectReview" => answer(review, |mut review: SelfSubjectReview| {
                review.status = Some(SelfSubjectReviewStatus {
                    user_info: Some(user_info(user.clone())),
                });
                Ok(review)
            }),
            other => Err(Status::bad_request(format!("{other:?} is no review"))),
        }
    }

    fn review_token(
        &self,
        store: &Store,
        spec: &TokenReviewSpec,
    ) -> Result<TokenReviewStatus, Status> {
        let Some(token) = spec.token.as_deref().filter(|token| !token.is_empty()) else {
            let why = "token is required for TokenReview in authentication";
            return Err(Status::bad_request(why));
        };
        let audiences = match spec.audiences.as_deref() {
            None | Some([]) => vec![AUDIENCE.to_owned()],
            Some(audiences) => audiences.to_vec(),
        };
        Ok(match self.believe(store, token, &audiences) {
            Ok(believed) => TokenReviewStatus {
                authenticated: Some(true),
                audiences: Some(believed.audiences),
                user: Some(user_info(believed.user.member_of(group::AUTHENTICATED))),
                error: None,
            },
            Err(reason) => TokenReviewStatus {
                error: Some(reason.to_string()),
                user: Some(UserInfo::default()),
                ..TokenReviewStatus::default()
            },
        })
    }

    fn believe(
        &self,
        store: &Store,
        token: &str,
        audiences: &[String],
    ) -> Result<Believed, Unbelievable> {
        let agreed = self.agreed.read().get(token).cloned();
        let Some(user) = agreed else {
            return self.tokens.identify(store, token, audiences);
        };
        // What was agreed on says nothing of audiences, so it is for this server alone.
        let own = AUDIENCE.to_owned();
        if audiences.contains(&own) {
            return Ok(Believed {
                user,
                audiences: vec![own],
            });
        }
        Err(Unbelievable::Audience {
            has: vec![own],
            wanted: audiences.to_vec(),
        })
    }

    fn review_access(
        &self,
        store: &Store,
        spec: &SubjectAccessReviewSpec,
    ) -> Result<SubjectAccessReviewStatus, Status> {
        let user = User {
            name: spec.user.clone().unwrap_or_default(),
            uid: spec.uid.clone().unwrap_or_default(),
            groups: spec.groups.clone().unwrap_or_default(),
            extra: spec.extra.clone().unwrap_or_default(),
        };
        if user.name.is_empty() && user.groups.is_empty() {
            let why = "at least one of user or group must be specified";
            return Err(invalid("spec.user", "", why));
        }
        let attributes = match (&spec.resource_attributes, &spec.non_resource_attributes) {
            (Some(resource), None) => of_resource(&user, resource),
            (None, Some(path)) => of_path(&user, path),
            (_, _) => {
                let why = "exactly one of nonResourceAttributes or resourceAttributes must be \
                           specified";
                return Err(invalid("spec.resourceAttributes", "null", why));
            }
        };
        let decision = self.authorize(store, &attributes);
        Ok(SubjectAccessReviewStatus {
            allowed: decision.allowed,
            reason: Some(decision.reason).filter(|reason| !reason.is_empty()),
            ..SubjectAccessReviewStatus::default()
        })
    }

    fn review_rules(
        &self,
        store: &Store,
        user: &User,
        namespace: &str,
    ) -> SubjectRulesReviewStatus {
        let mut status = SubjectRulesReviewStatus::default();
        for rule in self.roles(store).rules(user, namespace) {
            if rule
                .non_resource_urls
                .as_ref()
                .is_some_and(|urls| !urls.is_empty())
            {
                status.non_resource_rules.push(NonResourceRule {
                    non_resource_urls: rule.non_resource_urls.clone(),
                    verbs: rule.verbs.clone(),
                });
            }
            if rule
                .resources
                .as_ref()
                .is_some_and(|resources| !resources.is_empty())
            {
                status.resource_rules.push(ResourceRule {
                    api_groups: rule.api_groups,
                    resource_names: rule.resource_names,
                    resources: rule.resources,
                    verbs: rule.verbs,
                });
            }
        }
        status
    }
}

/// Reads a review, answers it and writes it.
fn answer<T, F>(review: Value, fill: F) -> Result<Value, Status>
where
    T: DeserializeOwned + Serialize,
    F: FnOnce(T) -> Result<T, Status>,
{
    let review = serde_json::from_value(review)
        .map_err(|e| Status::bad_request(format!("the review cannot be read: {e}")))?;
    serde_json::to_value(fill(review)?).map_err(|e| refusal::internal(&e.to_string()))
}

fn require_namespace(spec: &SubjectAccessReviewSpec, namespace: &str) -> Result<(), Status> {
    let attributes = spec.resource_attributes.as_ref();
    let asked = attributes.and_then(|attributes| attributes.namespace.as_deref());
    if asked == Some(namespace) {
        return Ok(());
    }
    let field = "spec.resourceAttributes.namespace";
    Err(invalid(
        field,
        asked.unwrap_or_default(),
        "must match metadata.namespace",
    ))
}

fn of_resource<'a>(user: &'a User, attributes: &'a ResourceAttributes) -> Attributes<'a> {
    fn text(value: Option<&String>) -> &str {
        value.map_or("", String::as_str)
    }
    Attributes {
        user,
        verb: text(attributes.verb.as_ref()),
        target: Target::Resource {
            group: text(attributes.group.as_ref()),
            resource: text(attributes.resource.as_ref()),
            subresource: text(attributes.subresource.as_ref()),
            namespace: text(attributes.namespace.as_ref()),
            name: text(attributes.name.as_ref()),
        },
    }
}

fn of_path<'a>(user: &'a User, attributes: &'a NonResourceAttributes) -> Attributes<'a> {
    Attributes {
        user,
        verb: attributes.verb.as_deref().unwrap_or_default(),
        target: Target::Path(attributes.path.as_deref().unwrap_or_default()),
    }
}

fn user_info(user: User) -> UserInfo {
    UserInfo {
        username: Some(user.name),
        uid: Some(user.uid).filter(|uid| !uid.is_empty()),
        groups: Some(user.groups),
        extra: Some(user.extra).filter(|extra| !extra.is_empty()),
    }
}

/// The real server leaves the kind out, and so do we.
fn invalid(field: &str, value: &str, why: &str) -> Status {
    let cause = Cause {
        field: field.to_owned(),
        reason: Reason::Invalid,
        message: format!("Invalid value: {value:?}: {why}"),
    };
    Status::invalid(AUTHORIZATION, "", "", &[cause])
}
