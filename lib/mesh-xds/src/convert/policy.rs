//! L4 policies.
//!
//! A policy is taken as a whole or not at all: leaving out a value that cannot be read would widen an
//! ALLOW or narrow a DENY.

use ipnet::IpNet;
use mesh_core::policy::{
    Action, Authorization, Clause, Match, PolicyScope, Rule, ServiceAccountMatch, StringMatch,
};
use mesh_proto::security as proto;

use super::{Error, InField, Interner, Problem, ip_bytes, known, list, port, range, required};

/// A policy of the wire.
pub fn from_proto(
    message: proto::Authorization,
    texts: &mut Interner,
) -> Result<Authorization, Error> {
    Ok(Authorization {
        name: required(&message.name).field("name")?.into(),
        namespace: texts.share(required(&message.namespace).field("namespace")?),
        scope: match known(message.scope).field("scope")? {
            proto::Scope::Global => PolicyScope::Global,
            proto::Scope::Namespace => PolicyScope::Namespace,
            proto::Scope::WorkloadSelector => PolicyScope::WorkloadSelector,
        },
        action: match known(message.action).field("action")? {
            proto::Action::Allow => Action::Allow,
            proto::Action::Deny => Action::Deny,
        },
        rules: list("rules", message.rules, |message| rule(message, texts))?,
        dry_run: message.dry_run,
    })
}

/// A policy for the wire.
pub fn to_proto(policy: &Authorization) -> proto::Authorization {
    proto::Authorization {
        name: policy.name.to_string(),
        namespace: policy.namespace.to_string(),
        scope: match policy.scope {
            PolicyScope::Global => proto::Scope::Global,
            PolicyScope::Namespace => proto::Scope::Namespace,
            PolicyScope::WorkloadSelector => proto::Scope::WorkloadSelector,
        }
        .into(),
        action: match policy.action {
            Action::Allow => proto::Action::Allow,
            Action::Deny => proto::Action::Deny,
        }
        .into(),
        rules: policy.rules.iter().map(rule_to_proto).collect(),
        dry_run: policy.dry_run,
    }
}

fn rule(message: proto::Rule, texts: &mut Interner) -> Result<Rule, Error> {
    Ok(Rule {
        clauses: list("clauses", message.clauses, |clause| {
            Ok::<_, Error>(Clause {
                matches: list("matches", clause.matches, |m| attributes(m, texts))?,
            })
        })?,
    })
}

fn rule_to_proto(rule: &Rule) -> proto::Rule {
    let clause = |clause: &Clause| proto::Clause {
        matches: clause.matches.iter().map(attributes_to_proto).collect(),
    };
    proto::Rule {
        clauses: rule.clauses.iter().map(clause).collect(),
    }
}

fn attributes(m: proto::Match, texts: &mut Interner) -> Result<Match, Error> {
    Ok(Match {
        namespaces: list("namespaces", &m.namespaces, |m| text(m, texts))?,
        not_namespaces: list("not_namespaces", &m.not_namespaces, |m| text(m, texts))?,
        principals: list("principals", &m.principals, |m| text(m, texts))?,
        not_principals: list("not_principals", &m.not_principals, |m| text(m, texts))?,
        source_ips: list("source_ips", &m.source_ips, cidr)?,
        not_source_ips: list("not_source_ips", &m.not_source_ips, cidr)?,
        destination_ips: list("destination_ips", &m.destination_ips, cidr)?,
        not_destination_ips: list("not_destination_ips", &m.not_destination_ips, cidr)?,
        destination_ports: list("destination_ports", m.destination_ports, port)?,
        not_destination_ports: list("not_destination_ports", m.not_destination_ports, port)?,
        service_accounts: list("service_accounts", &m.service_accounts, |m| {
            account(m, texts)
        })?,
        not_service_accounts: list("not_service_accounts", &m.not_service_accounts, |m| {
            account(m, texts)
        })?,
    })
}

fn attributes_to_proto(m: &Match) -> proto::Match {
    let texts = |list: &[StringMatch]| list.iter().map(text_to_proto).collect();
    let cidrs = |list: &[IpNet]| list.iter().map(cidr_to_proto).collect();
    let ports = |list: &[u16]| list.iter().copied().map(u32::from).collect();
    let accounts = |list: &[ServiceAccountMatch]| list.iter().map(account_to_proto).collect();
    proto::Match {
        namespaces: texts(&m.namespaces),
        not_namespaces: texts(&m.not_namespaces),
        principals: texts(&m.principals),
        not_principals: texts(&m.not_principals),
        source_ips: cidrs(&m.source_ips),
        not_source_ips: cidrs(&m.not_source_ips),
        destination_ips: cidrs(&m.destination_ips),
        not_destination_ips: cidrs(&m.not_destination_ips),
        destination_ports: ports(&m.destination_ports),
        not_destination_ports: ports(&m.not_destination_ports),
        service_accounts: accounts(&m.service_accounts),
        not_service_accounts: accounts(&m.not_service_accounts),
    }
}

fn text(message: &proto::StringMatch, texts: &mut Interner) -> Result<StringMatch, Problem> {
    use proto::string_match::MatchType;

    Ok(match message.match_type.as_ref().ok_or(Problem::Missing)? {
        MatchType::Exact(text) => StringMatch::Exact(texts.share(text)),
        MatchType::Prefix(text) => StringMatch::Prefix(texts.share(text)),
        MatchType::Suffix(text) => StringMatch::Suffix(texts.share(text)),
        MatchType::Presence(()) => StringMatch::Presence,
    })
}

fn text_to_proto(text: &StringMatch) -> proto::StringMatch {
    use proto::string_match::MatchType;

    let match_type = match text {
        StringMatch::Exact(text) => MatchType::Exact(text.to_string()),
        StringMatch::Prefix(text) => MatchType::Prefix(text.to_string()),
        StringMatch::Suffix(text) => MatchType::Suffix(text.to_string()),
        StringMatch::Presence => MatchType::Presence(()),
    };
    proto::StringMatch {
        match_type: Some(match_type),
    }
}

fn cidr(message: &proto::Address) -> Result<IpNet, Problem> {
    range(&message.address, message.length)
}

fn cidr_to_proto(net: &IpNet) -> proto::Address {
    proto::Address {
        address: ip_bytes(net.addr()),
        length: net.prefix_len().into(),
    }
}

fn account(
    message: &proto::ServiceAccountMatch,
    texts: &mut Interner,
) -> Result<ServiceAccountMatch, Error> {
    Ok(ServiceAccountMatch {
        namespace: texts.share(required(&message.namespace).field("namespace")?),
        service_account: texts.share(required(&message.service_account).field("service_account")?),
    })
}

fn account_to_proto(account: &ServiceAccountMatch) -> proto::ServiceAccountMatch {
    proto::ServiceAccountMatch {
        namespace: account.namespace.to_string(),
        service_account: account.service_account.to_string(),
    }
}
