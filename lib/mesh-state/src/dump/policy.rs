//! Policies in the form of `config_dump`.

use ipnet::IpNet;
use mesh_core::policy::{
    Action, Authorization, Match, PolicyScope, Rule, ServiceAccountMatch, StringMatch,
};
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyDump<'a> {
    name: &'a str,
    namespace: &'a str,
    scope: &'static str,
    action: &'static str,
    /// Rules, clauses, matches.
    rules: Vec<Vec<Vec<MatchDump<'a>>>>,
    dry_run: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MatchDump<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    namespaces: Vec<TextDump<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_namespaces: Vec<TextDump<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    principals: Vec<TextDump<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_principals: Vec<TextDump<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    source_ips: &'a [IpNet],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    not_source_ips: &'a [IpNet],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    destination_ips: &'a [IpNet],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    not_destination_ips: &'a [IpNet],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    destination_ports: &'a [u16],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    not_destination_ports: &'a [u16],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service_accounts: Vec<AccountDump<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_service_accounts: Vec<AccountDump<'a>>,
}

#[derive(Debug, Serialize)]
enum TextDump<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    Suffix(&'a str),
    Presence(),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AccountDump<'a> {
    namespace: &'a str,
    service_account: &'a str,
}

// === impl PolicyDump ===

impl<'a> PolicyDump<'a> {
    pub(super) fn of(policy: &'a Authorization) -> Self {
        Self {
            name: &policy.name,
            namespace: &policy.namespace,
            scope: match policy.scope {
                PolicyScope::Global => "Global",
                PolicyScope::Namespace => "Namespace",
                PolicyScope::WorkloadSelector => "WorkloadSelector",
            },
            action: match policy.action {
                Action::Allow => "Allow",
                Action::Deny => "Deny",
            },
            rules: policy.rules.iter().map(clauses).collect(),
            dry_run: policy.dry_run,
        }
    }

    pub(super) fn key(&self) -> (&'a str, &'a str) {
        (self.namespace, self.name)
    }
}

fn clauses(rule: &Rule) -> Vec<Vec<MatchDump<'_>>> {
    let clauses = rule.clauses.iter();
    clauses
        .map(|clause| clause.matches.iter().map(MatchDump::of).collect())
        .collect()
}

// === impl MatchDump ===

impl<'a> MatchDump<'a> {
    fn of(m: &'a Match) -> Self {
        Self {
            namespaces: texts(&m.namespaces),
            not_namespaces: texts(&m.not_namespaces),
            principals: texts(&m.principals),
            not_principals: texts(&m.not_principals),
            source_ips: &m.source_ips,
            not_source_ips: &m.not_source_ips,
            destination_ips: &m.destination_ips,
            not_destination_ips: &m.not_destination_ips,
            destination_ports: &m.destination_ports,
            not_destination_ports: &m.not_destination_ports,
            service_accounts: accounts(&m.service_accounts),
            not_service_accounts: accounts(&m.not_service_accounts),
        }
    }
}

fn texts(matches: &[StringMatch]) -> Vec<TextDump<'_>> {
    matches.iter().map(TextDump::of).collect()
}

fn accounts(accounts: &[ServiceAccountMatch]) -> Vec<AccountDump<'_>> {
    accounts.iter().map(AccountDump::of).collect()
}

// === impl TextDump ===

impl<'a> TextDump<'a> {
    fn of(m: &'a StringMatch) -> Self {
        match m {
            StringMatch::Exact(text) => Self::Exact(text),
            StringMatch::Prefix(text) => Self::Prefix(text),
            StringMatch::Suffix(text) => Self::Suffix(text),
            StringMatch::Presence => Self::Presence(),
        }
    }
}

// === impl AccountDump ===

impl<'a> AccountDump<'a> {
    fn of(m: &'a ServiceAccountMatch) -> Self {
        Self {
            namespace: &m.namespace,
            service_account: &m.service_account,
        }
    }
}
