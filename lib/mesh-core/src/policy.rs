//! L4 authorization policies, as the control plane states them. `rbac` compiles them for use.

use std::sync::Arc;

use ipnet::IpNet;

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authorization {
    /// The object's name.
    pub name: Arc<str>,
    /// The object's namespace; the root namespace for global ones.
    pub namespace: Arc<str>,
    /// Which workloads it concerns.
    pub scope: PolicyScope,
    /// What a match means.
    pub action: Action,
    /// Rules, of which any may match. A policy without rules never matches.
    pub rules: Vec<Rule>,
    /// Whether the policy is only logged and never enforced.
    pub dry_run: bool,
}

/// Which workloads a policy concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyScope {
    /// All of the mesh.
    Global,
    /// All of the policy's namespace.
    Namespace,
    /// Those that name it in their `authorization_policies`.
    WorkloadSelector,
}

/// What a match of a policy means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Allow; once one ALLOW policy exists, what none of them matches is denied.
    Allow,
    /// Deny, before any ALLOW is looked at.
    Deny,
}

/// Clauses that must all match. A rule without clauses matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The clauses.
    pub clauses: Vec<Clause>,
}

/// Matches of which any may match. A clause without matches matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Clause {
    /// The matches.
    pub matches: Vec<Match>,
}

/// Attributes that must all agree: a non-empty positive list needs one that matches, a negative list
/// none. A match whose lists are all empty matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    /// Namespaces of the peer.
    pub namespaces: Vec<StringMatch>,
    /// Namespaces the peer must not be in.
    pub not_namespaces: Vec<StringMatch>,
    /// Principals of the peer, without `spiffe://`.
    pub principals: Vec<StringMatch>,
    /// Principals the peer must not have.
    pub not_principals: Vec<StringMatch>,
    /// Source addresses.
    pub source_ips: Vec<IpNet>,
    /// Source addresses that do not match.
    pub not_source_ips: Vec<IpNet>,
    /// Destination addresses.
    pub destination_ips: Vec<IpNet>,
    /// Destination addresses that do not match.
    pub not_destination_ips: Vec<IpNet>,
    /// Destination ports.
    pub destination_ports: Vec<u16>,
    /// Destination ports that do not match.
    pub not_destination_ports: Vec<u16>,
    /// Service accounts of the peer, whatever its trust domain.
    pub service_accounts: Vec<ServiceAccountMatch>,
    /// Service accounts the peer must not have.
    pub not_service_accounts: Vec<ServiceAccountMatch>,
}

/// How a text is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Begins with.
    Prefix(Arc<str>),
    /// Ends with.
    Suffix(Arc<str>),
    /// Is there, and not empty.
    Presence,
}

/// A service account, named without a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAccountMatch {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The service account.
    pub service_account: Arc<str>,
}

// === impl Authorization ===

impl Authorization {
    /// The key under which discovery and workloads know this policy: `namespace/name`.
    pub fn key(&self) -> Arc<str> {
        format!("{}/{}", self.namespace, self.name).into()
    }
}
