//! The L4 authorization verdict: which connections may reach a workload.
//!
//! A policy is compiled once, when it arrives: texts, ranges and ports are sorted so that a match is a
//! binary search and never allocates. The policies that concern one workload form a [`PolicySet`],
//! and a verdict asks only that set, so its cost does not depend on the size of the mesh.
//!
//! The order of decision is the contract's:
//! 1. a DENY policy that matches denies,
//! 2. a policy the workload names but nobody has described denies (it might be a DENY, or the only ALLOW),
//! 3. without ALLOW policies everything else is allowed,
//! 4. an ALLOW policy that matches allows,
//! 5. what is left is denied.
//!
//! Dry-run policies take no part in this; those that match are reported beside the verdict.

use std::{
    cell::OnceCell,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    identity::Identity,
    policy::{Action, Authorization, Clause, Match, PolicyScope, Rule},
};

mod matcher;

use matcher::{Accounts, Ranges, Texts};

/// What authorization knows of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// The identity the peer proved; `None` for plain text.
    pub source_identity: Option<Identity>,
    /// The peer's address, as the pod would see it.
    pub source_ip: IpAddr,
    /// The pod's address and the real target port.
    pub destination: SocketAddr,
}

/// Whether a connection may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not.
    Deny(Denial),
}

/// Why a connection is denied. `Display` is the text for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// A DENY policy matches. Its owner wants this; nothing to retry.
    #[error("explicitly denied by: {0}")]
    Policy(Arc<str>),
    /// ALLOW policies exist and none matches. Nothing to retry.
    #[error("allow policies exist, but none allowed")]
    NoAllowMatched,
    /// The workload names this policy (`namespace/name`), but it has not arrived or was refused as
    /// invalid. What it says is unknown, so new connections are denied. It usually arrives within
    /// milliseconds: wait for the next policy change, and leave connections that an earlier verdict
    /// allowed alone until it is known.
    #[error("policy {0} is selected for this workload but not known")]
    UnknownPolicy(Arc<str>),
}

/// A verdict, and what dry-run policies would have to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub verdict: Verdict,
    /// Keys of the dry-run policies that match, for the log; an empty list allocates nothing.
    pub dry_run: Vec<Arc<str>>,
}

/// A policy in the form that is evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledPolicy {
    source: Authorization,
    key: Arc<str>,
    rules: Box<[CompiledRule]>,
}

/// The policies that concern one workload, sorted by what they do.
///
/// The order in which policies are given does not matter: a verdict that names one of several matching
/// policies names the first by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySet {
    deny: Box<[Arc<CompiledPolicy>]>,
    allow: Box<[Arc<CompiledPolicy>]>,
    dry_run: Box<[Arc<CompiledPolicy>]>,
    unknown: Option<Arc<str>>,
}

/// Clauses that must all match; none match.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CompiledRule(Box<[CompiledClause]>);

/// Matches of which one must match; none match.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CompiledClause(Box<[CompiledMatch]>);

/// Conditions that must all hold, each present only where its list was.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CompiledMatch(Box<[Condition]>);

/// One populated list of a match; with `negated`, none of it may match.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    attribute: Attribute,
    negated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Attribute {
    Namespace(Texts),
    Principal(Texts),
    SourceIp(Ranges),
    DestinationIp(Ranges),
    DestinationPort(Box<[u16]>),
    ServiceAccount(Accounts),
}

/// A connection while it is judged; the principal is printed at most once, and only when asked for.
struct Subject<'a> {
    connection: &'a Connection,
    principal: OnceCell<String>,
}

// === impl Verdict ===

impl Verdict {
    /// Whether the connection may be made.
    pub fn is_allow(&self) -> bool {
        matches!(self, Self::Allow)
    }
}

// === impl CompiledPolicy ===

impl CompiledPolicy {
    /// Prepares a policy for evaluation. The policy is taken as it stands: values were checked where
    /// they entered.
    pub fn compile(policy: &Authorization) -> Self {
        Self {
            source: policy.clone(),
            key: policy.key(),
            rules: policy.rules.iter().map(CompiledRule::compile).collect(),
        }
    }

    /// `namespace/name`.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The policy's namespace.
    pub fn namespace(&self) -> &Arc<str> {
        &self.source.namespace
    }

    /// What a match means.
    pub fn action(&self) -> Action {
        self.source.action
    }

    /// Which workloads the policy concerns.
    pub fn scope(&self) -> PolicyScope {
        self.source.scope
    }

    /// Whether a match is only logged.
    pub fn is_dry_run(&self) -> bool {
        self.source.dry_run
    }

    /// The policy as it arrived.
    pub fn source(&self) -> &Authorization {
        &self.source
    }

    /// Whether any rule matches the connection; without rules, none does.
    pub fn matches(&self, connection: &Connection) -> bool {
        self.matches_subject(&Subject::new(connection))
    }

    fn matches_subject(&self, subject: &Subject<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(subject))
    }
}

// === impl PolicySet ===

impl PolicySet {
    /// The set of the given policies; a policy given twice counts once.
    pub fn new(policies: impl IntoIterator<Item = Arc<CompiledPolicy>>) -> Self {
        let mut policies: Vec<_> = policies.into_iter().collect();
        policies.sort_by(|a, b| a.key.cmp(&b.key));
        policies.dedup_by(|a, b| a.key == b.key);
        let (dry_run, enforced): (Vec<_>, Vec<_>) =
            policies.into_iter().partition(|policy| policy.is_dry_run());
        let (deny, allow): (Vec<_>, Vec<_>) = enforced
            .into_iter()
            .partition(|policy| policy.action() == Action::Deny);
        Self {
            deny: deny.into(),
            allow: allow.into(),
            dry_run: dry_run.into(),
            unknown: None,
        }
    }

    /// The same set for a workload that also names policies nobody has described. Until they are known
    /// the set allows nothing; of several, the verdict names the first by key.
    #[must_use]
    pub fn with_unknown(mut self, keys: impl IntoIterator<Item = Arc<str>>) -> Self {
        self.unknown = keys.into_iter().chain(self.unknown).min();
        self
    }

    /// The verdict for one connection.
    pub fn decide(&self, connection: &Connection) -> Decision {
        let subject = Subject::new(connection);
        let matching = |policy: &&Arc<CompiledPolicy>| policy.matches_subject(&subject);
        Decision {
            verdict: self.verdict(&subject),
            dry_run: self
                .dry_run
                .iter()
                .filter(matching)
                .map(|policy| policy.key.clone())
                .collect(),
        }
    }

    /// Whether no policy concerns the workload.
    pub fn is_empty(&self) -> bool {
        self.policies().next().is_none() && self.unknown.is_none()
    }

    /// All policies of the set: DENY, ALLOW, then dry-run ones, each by key.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<CompiledPolicy>> {
        self.deny.iter().chain(&self.allow).chain(&self.dry_run)
    }

    fn verdict(&self, subject: &Subject<'_>) -> Verdict {
        if let Some(policy) = self.deny.iter().find(|p| p.matches_subject(subject)) {
            return Verdict::Deny(Denial::Policy(policy.key.clone()));
        }
        if let Some(key) = &self.unknown {
            return Verdict::Deny(Denial::UnknownPolicy(key.clone()));
        }
        if self.allow.is_empty() || self.allow.iter().any(|p| p.matches_subject(subject)) {
            return Verdict::Allow;
        }
        Verdict::Deny(Denial::NoAllowMatched)
    }
}

// === impl CompiledRule ===

impl CompiledRule {
    fn compile(rule: &Rule) -> Self {
        Self(rule.clauses.iter().map(CompiledClause::compile).collect())
    }

    fn matches(&self, subject: &Subject<'_>) -> bool {
        self.0.iter().all(|clause| clause.matches(subject))
    }
}

// === impl CompiledClause ===

impl CompiledClause {
    fn compile(clause: &Clause) -> Self {
        Self(clause.matches.iter().map(CompiledMatch::compile).collect())
    }

    fn matches(&self, subject: &Subject<'_>) -> bool {
        self.0.is_empty() || self.0.iter().any(|m| m.matches(subject))
    }
}

// === impl CompiledMatch ===

impl CompiledMatch {
    /// Cheap attributes come first, so that most connections are judged by a port or an address.
    fn compile(m: &Match) -> Self {
        let ports = |list: &[u16]| Attribute::DestinationPort(matcher::ports(list));
        let lists = [
            (
                m.destination_ports.len(),
                ports(&m.destination_ports),
                false,
            ),
            (
                m.not_destination_ports.len(),
                ports(&m.not_destination_ports),
                true,
            ),
            (
                m.source_ips.len(),
                Attribute::SourceIp(Ranges::new(&m.source_ips)),
                false,
            ),
            (
                m.not_source_ips.len(),
                Attribute::SourceIp(Ranges::new(&m.not_source_ips)),
                true,
            ),
            (
                m.destination_ips.len(),
                Attribute::DestinationIp(Ranges::new(&m.destination_ips)),
                false,
            ),
            (
                m.not_destination_ips.len(),
                Attribute::DestinationIp(Ranges::new(&m.not_destination_ips)),
                true,
            ),
            (
                m.namespaces.len(),
                Attribute::Namespace(Texts::new(&m.namespaces)),
                false,
            ),
            (
                m.not_namespaces.len(),
                Attribute::Namespace(Texts::new(&m.not_namespaces)),
                true,
            ),
            (
                m.service_accounts.len(),
                Attribute::ServiceAccount(Accounts::new(&m.service_accounts)),
                false,
            ),
            (
                m.not_service_accounts.len(),
                Attribute::ServiceAccount(Accounts::new(&m.not_service_accounts)),
                true,
            ),
            (
                m.principals.len(),
                Attribute::Principal(Texts::new(&m.principals)),
                false,
            ),
            (
                m.not_principals.len(),
                Attribute::Principal(Texts::new(&m.not_principals)),
                true,
            ),
        ];
        let populated = lists.into_iter().filter(|(length, ..)| *length > 0);
        Self(
            populated
                .map(|(_, attribute, negated)| Condition { attribute, negated })
                .collect(),
        )
    }

    /// A match that says nothing matches nothing, lest an empty one widen an ALLOW.
    fn matches(&self, subject: &Subject<'_>) -> bool {
        !self.0.is_empty()
            && self
                .0
                .iter()
                .all(|condition| condition.attribute.matches(subject) != condition.negated)
    }
}

// === impl Attribute ===

impl Attribute {
    /// Whether the list holds the connection's value. A peer without identity is in no list of
    /// identities, which is how `notPrincipals: ["*"]` finds plain text.
    fn matches(&self, subject: &Subject<'_>) -> bool {
        let connection = subject.connection;
        let identity = connection.source_identity.as_ref();
        match self {
            Self::Namespace(texts) => identity.is_some_and(|id| texts.contain(id.namespace())),
            Self::Principal(texts) => subject.principal().is_some_and(|p| texts.contain(p)),
            Self::SourceIp(ranges) => ranges.contain(connection.source_ip),
            Self::DestinationIp(ranges) => ranges.contain(connection.destination.ip()),
            Self::DestinationPort(ports) => {
                ports.binary_search(&connection.destination.port()).is_ok()
            }
            Self::ServiceAccount(accounts) => identity.is_some_and(|id| accounts.contain(id)),
        }
    }
}

// === impl Subject ===

impl<'a> Subject<'a> {
    fn new(connection: &'a Connection) -> Self {
        Self {
            connection,
            principal: OnceCell::new(),
        }
    }

    /// The peer's identity in the form of policies: `trust domain/ns/namespace/sa/account`.
    fn principal(&self) -> Option<&str> {
        let id = self.connection.source_identity.as_ref()?;
        let print = || {
            let (domain, ns, account) = (id.trust_domain(), id.namespace(), id.service_account());
            format!("{domain}/ns/{ns}/sa/{account}")
        };
        Some(self.principal.get_or_init(print))
    }
}

#[cfg(test)]
mod tests;
