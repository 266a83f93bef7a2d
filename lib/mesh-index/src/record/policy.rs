//! Policies. They are few, and what they mean depends on the settings, so their specs are kept whole.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_api::{
    annotations, condition,
    security::{AuthorizationPolicy, PeerAuthentication},
    status::Status,
};

use crate::{
    policy::{Context, authorization::translate},
    text::{Labels, Texts},
};

/// What is kept of an AuthorizationPolicy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Authorization {
    /// The policy, without what does not bear on its meaning.
    pub(crate) object: Arc<AuthorizationPolicy>,
    /// The labels of the workloads that must name the policy; nothing if none must.
    pub(crate) selector: Option<Labels>,
    /// Whether the object's status holds a condition of ours.
    pub(crate) reported: bool,
}

/// What is kept of a PeerAuthentication.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Peer {
    /// The policy, without what does not bear on its meaning.
    pub(crate) object: Arc<PeerAuthentication>,
    /// Whether the object's status holds a condition of ours.
    pub(crate) reported: bool,
}

// === impl Authorization ===

impl Authorization {
    pub(crate) fn read(policy: &AuthorizationPolicy, context: &Context, texts: &mut Texts) -> Self {
        let object = AuthorizationPolicy {
            metadata: slim(&policy.metadata),
            spec: policy.spec.clone(),
            status: None,
        };
        Self {
            reported: reported(policy.status.as_ref()),
            ..Self::of(Arc::new(object), context, texts)
        }
    }

    /// What is kept of a policy that was read under other settings.
    pub(crate) fn of(
        object: Arc<AuthorizationPolicy>,
        context: &Context,
        texts: &mut Texts,
    ) -> Self {
        let translation = translate(&object, context);
        let named = translation.authorization.is_some() && translation.selector.is_some();
        let selector = object.spec.selector.as_ref().filter(|_| named);
        Self {
            selector: selector.map(|selector| texts.labels(Some(&selector.match_labels))),
            object,
            reported: false,
        }
    }
}

// === impl Peer ===

impl Peer {
    pub(crate) fn read(policy: &PeerAuthentication) -> Self {
        let object = PeerAuthentication {
            metadata: slim(&policy.metadata),
            spec: policy.spec.clone(),
            status: None,
        };
        Self {
            object: Arc::new(object),
            reported: reported(policy.status.as_ref()),
        }
    }
}

/// The metadata that bear on the meaning of a policy or on what is said about it.
fn slim(meta: &ObjectMeta) -> ObjectMeta {
    let dry_run = meta.annotations.as_ref();
    let dry_run = dry_run.and_then(|annotations| annotations.get_key_value(annotations::DRY_RUN));
    ObjectMeta {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        generation: meta.generation,
        creation_timestamp: meta.creation_timestamp.clone(),
        annotations: dry_run.map(|(key, value)| [(key.clone(), value.clone())].into()),
        ..ObjectMeta::default()
    }
}

/// Whether a status holds a condition of ours.
fn reported(status: Option<&Status>) -> bool {
    status.is_some_and(|status| status.condition(condition::ZTUNNEL_ACCEPTED).is_some())
}
