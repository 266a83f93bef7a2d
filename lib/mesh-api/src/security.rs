//! Who may speak to whom: AuthorizationPolicy and PeerAuthentication of `security.istio.io`.

mod authorization_policy;
mod peer_authentication;

pub use authorization_policy::{
    AuthorizationPolicy, AuthorizationPolicySpec, Condition, From, Operation, Provider, Rule,
    Source, TargetReference, To,
};
pub use peer_authentication::{MutualTls, PeerAuthentication, PeerAuthenticationSpec};

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Most rules of one policy, as in Istio.
pub const MAX_RULES: usize = 512;
/// Most entries of a rule's `from`, `to` or `when`. Istio limits `from` alone, to the same number.
pub const MAX_ENTRIES: usize = 512;
/// Most values in one list of a rule. Istio has no limit here; an object holds 1.5 MiB at most.
pub const MAX_VALUES: usize = 4096;

/// Which workloads of the namespace are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadSelector {
    /// Labels that a workload must have, all of them. None select every workload.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::selector_labels")]
    pub match_labels: BTreeMap<String, String>,
}
