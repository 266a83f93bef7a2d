//! TokenRequest: `POST serviceaccounts/NAME/token`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::authentication::v1::{TokenRequest, TokenRequestSpec, TokenRequestStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::Value;

use super::{
    AUDIENCE, Bound, BoundKind, Issued, Issuer, NODES, Reference, SERVICE_ACCOUNTS, Wanted, claims,
    uid,
};
use crate::{
    auth::{Authority, refusal},
    schema::{Cause, Reason},
    status::Status,
    store::Store,
};

/// The API group of the request.
const GROUP: &str = "authentication.k8s.io";

/// What a token is valid for when nobody says, in seconds.
const DEFAULT_LIFETIME: i64 = 3600;
/// The shortest life that may be asked for, in seconds.
const MIN_LIFETIME: i64 = 600;
/// The longest, in seconds.
const MAX_LIFETIME: i64 = 1 << 32;

// === impl Authority ===

impl Authority {
    /// `POST serviceaccounts/NAME/token`: answers the TokenRequest with its status.
    pub fn request_token(
        &self,
        store: &Store,
        namespace: &str,
        name: &str,
        request: Value,
    ) -> Result<Value, Status> {
        let mut request = read(request)?;
        if request.spec.audiences.is_empty() {
            request.spec.audiences = vec![AUDIENCE.to_owned()];
        }
        let wanted = wanted(&request.spec)?;
        for (field, given, expected) in [
            ("metadata.name", &mut request.metadata.name, name),
            (
                "metadata.namespace",
                &mut request.metadata.namespace,
                namespace,
            ),
        ] {
            let given = given.get_or_insert_with(|| expected.to_owned());
            if given != expected {
                let why = format!("must match the service account {field}");
                return Err(invalid(field, given, &why));
            }
        }
        let issued = self.tokens.issue(store, namespace, name, &wanted)?;
        request.metadata.creation_timestamp = Some(Time(now()));
        request.spec.expiration_seconds = Some(wanted.lifetime.as_secs());
        request.status = Some(TokenRequestStatus {
            expiration_timestamp: Time(issued.expires),
            token: issued.token,
        });
        serde_json::to_value(request).map_err(|e| refusal::internal(&e.to_string()))
    }
}

// === impl Issuer ===

impl Issuer {
    /// A token for a service account, which must exist as must what the token is bound to. Any lifetime
    /// is granted.
    pub fn issue(
        &self,
        store: &Store,
        namespace: &str,
        name: &str,
        wanted: &Wanted,
    ) -> Result<Issued, Status> {
        let account = store
            .get(&SERVICE_ACCOUNTS, namespace, name)
            .ok_or_else(|| refusal::not_found("", "serviceaccounts", name))?;
        let account = Reference {
            name: name.to_owned(),
            uid: uid(&account).to_owned(),
        };
        let (mut bound, mut node) = (None, None);
        if let Some(to) = &wanted.bound {
            let object = find_bound(store, namespace, name, to)?;
            node = node_of(store, &object);
            let reference = Reference {
                name: to.name.clone(),
                uid: uid(&object).to_owned(),
            };
            bound = Some((to.kind, reference));
        }
        let audiences = match wanted.audiences.as_slice() {
            [] => vec![AUDIENCE.to_owned()],
            audiences => audiences.to_vec(),
        };
        let now = now();
        let expires = now
            .saturating_add(wanted.lifetime)
            .unwrap_or(Timestamp::MAX);
        let claims = claims(namespace, account, bound, node)(audiences, now, expires);
        let token = self.sign(&claims);
        Ok(Issued {
            token: token.map_err(|e| refusal::internal(&e.to_string()))?,
            expires,
        })
    }
}

fn read(request: Value) -> Result<TokenRequest, Status> {
    serde_json::from_value(request)
        .map_err(|e| Status::bad_request(format!("the TokenRequest cannot be read: {e}")))
}

fn wanted(spec: &TokenRequestSpec) -> Result<Wanted, Status> {
    let seconds = spec.expiration_seconds.unwrap_or(DEFAULT_LIFETIME);
    let wrong = |why| invalid("spec.expirationSeconds", &seconds, why);
    if seconds < MIN_LIFETIME {
        return Err(wrong("may not specify a duration less than 10 minutes"));
    }
    if seconds > MAX_LIFETIME {
        return Err(wrong("may not specify a duration larger than 2^32 seconds"));
    }
    let bound = spec.bound_object_ref.as_ref().map(|reference| {
        let kind = reference.kind.as_deref().unwrap_or_default();
        let kind = match (reference.api_version.as_deref(), kind) {
            (Some("v1"), "Pod") => BoundKind::Pod,
            (Some("v1"), "Secret") => BoundKind::Secret,
            (version, kind) => {
                let version = version.unwrap_or_default();
                let message = format!("cannot bind token to object of type {version}, Kind={kind}");
                return Err(Status::bad_request(message));
            }
        };
        Ok(Bound {
            kind,
            name: reference.name.clone().unwrap_or_default(),
            uid: reference.uid.clone().filter(|uid| !uid.is_empty()),
        })
    });
    Ok(Wanted {
        audiences: spec.audiences.clone(),
        lifetime: SignedDuration::from_secs(seconds),
        bound: bound.transpose()?,
    })
}

/// The object that a token is to be bound to, if it is the one that is meant and the account's own.
fn find_bound(
    store: &Store,
    namespace: &str,
    account: &str,
    to: &Bound,
) -> Result<std::sync::Arc<Value>, Status> {
    let resource = to.kind.resource();
    let object = store
        .get(resource, namespace, &to.name)
        .ok_or_else(|| refusal::not_found("", &resource.resource, &to.name))?;
    let runs_as = object.pointer("/spec/serviceAccountName");
    let runs_as = runs_as.and_then(Value::as_str).unwrap_or("default");
    if to.kind == BoundKind::Pod && runs_as != account {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different \
             serviceaccount name."
        )));
    }
    let actual = uid(&object);
    match &to.uid {
        Some(expected) if expected != actual => {
            let why = format!(
                "the UID in the bound object reference ({expected}) does not match the UID in record. \
                 The object might have been deleted and then recreated"
            );
            Err(refusal::conflict("", &resource.resource, &to.name, &why))
        }
        _ => Ok(object),
    }
}

/// The node that a pod runs on.
fn node_of(store: &Store, pod: &Value) -> Option<Reference> {
    let name = pod.pointer("/spec/nodeName")?.as_str()?;
    let node = store.get(&NODES, "", name);
    Some(Reference {
        name: name.to_owned(),
        uid: node.map(|node| uid(&node).to_owned()).unwrap_or_default(),
    })
}

fn invalid(field: &str, value: &dyn std::fmt::Debug, why: &str) -> Status {
    let cause = Cause {
        field: field.to_owned(),
        reason: Reason::Invalid,
        message: format!("Invalid value: {value:?}: {why}"),
    };
    Status::invalid(GROUP, "TokenRequest", "", &[cause])
}

/// Now, to the second, as times in the API are.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
