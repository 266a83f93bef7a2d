//! AuthorizationPolicies, translated.
//!
//! | written | ALLOW | DENY |
//! |---|---|---|
//! | an attribute of requests | the rule is left out | the attribute is left out |
//! | a malformed value | does not match | matches |
//! | an empty list or object | its entry does not match | matches everything |
//!
//! An entry of which nothing is left in a DENY rule matches everything. It is never sent as an empty
//! match, which would match nothing.

use std::sync::Arc;

use mesh_api::{
    annotations,
    security::{
        AuthorizationPolicy, AuthorizationPolicySpec, Condition, MAX_ENTRIES, MAX_RULES, Operation,
        Rule, Source,
    },
    selector::Selector,
};
use mesh_core::policy::{Action, Authorization, Clause, Match, PolicyScope, Rule as L4Rule};

use super::{
    Context, Effect, Finding, Leaning, Problem, Report, RuleFinding,
    entry::{Entry, List, Term, any_of},
    quote, value,
};

/// What ztunnel is told about a policy, and what its author is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The policy for ztunnel; `None` if it is nothing that ztunnel enforces.
    pub authorization: Option<Authorization>,
    /// Which workloads name the policy; `None` if it concerns all of its scope.
    pub selector: Option<Selector>,
    /// What is wrong with the policy as a whole.
    pub findings: Vec<Finding>,
    /// The rules that are not in force as written.
    pub rules: Vec<RuleFinding>,
    /// The condition ZtunnelAccepted; `None` for a policy with targets, which is the waypoints' alone.
    pub report: Option<Report>,
}

/// What stays the same within one policy.
struct Translator<'a> {
    context: &'a Context,
    namespace: &'a str,
    leaning: Leaning,
}

/// Translates one policy. Its cost is that of the policy, not of the mesh.
pub fn translate(policy: &AuthorizationPolicy, context: &Context) -> Translation {
    let spec = &policy.spec;
    if spec.target_ref.is_some() || !spec.target_refs.is_empty() {
        return Translation::nothing();
    }
    let mut findings = unknown_fields("spec", &spec.other);
    let action = match spec.action.as_deref() {
        None | Some("" | "ALLOW") => Action::Allow,
        Some("DENY") => Action::Deny,
        Some(other) => {
            let problem = Problem::Action(quote(other));
            findings.push(Finding::new("spec.action", problem));
            return Translation::withheld(findings);
        }
    };
    let dry_run = is_dry_run(policy, &mut findings);
    if dry_run && !context.dry_run {
        let field = format!("metadata.annotations[{}]", annotations::DRY_RUN);
        findings.push(Finding::new(field, Problem::DryRunOff));
        return Translation::withheld(findings);
    }
    let namespace: Arc<str> = policy
        .metadata
        .namespace
        .as_deref()
        .unwrap_or_default()
        .into();
    let selector = selector(spec, &mut findings);
    let (rules, rule_findings) = Translator {
        context,
        namespace: &namespace,
        leaning: Leaning::of(action),
    }
    .rules(spec, &mut findings);
    let authorization = Authorization {
        name: policy.metadata.name.as_deref().unwrap_or_default().into(),
        scope: scope(&namespace, selector.as_ref(), context),
        namespace,
        action,
        rules,
        dry_run,
    };
    Translation {
        report: Some(Report::of_rules(
            spec.rules.len(),
            &findings,
            &rule_findings,
        )),
        authorization: Some(authorization),
        selector,
        findings,
        rules: rule_findings,
    }
}

// === impl Translation ===

impl Translation {
    fn nothing() -> Self {
        Self {
            authorization: None,
            selector: None,
            findings: Vec::new(),
            rules: Vec::new(),
            report: None,
        }
    }

    fn withheld(findings: Vec<Finding>) -> Self {
        Self {
            report: Some(Report::withheld(&findings)),
            findings,
            ..Self::nothing()
        }
    }

    /// Everything that is not in force as written, field by field.
    pub fn all_findings(&self) -> impl Iterator<Item = &Finding> {
        let rules = self.rules.iter().flat_map(|rule| &rule.findings);
        self.findings.iter().chain(rules)
    }
}

// === impl Translator ===

impl Translator<'_> {
    /// The rules that are left, and what became of those that are not in force as written.
    fn rules(
        &self,
        spec: &AuthorizationPolicySpec,
        findings: &mut Vec<Finding>,
    ) -> (Vec<L4Rule>, Vec<RuleFinding>) {
        let mut rules = Vec::new();
        let mut changed = Vec::new();
        for (index, rule) in spec.rules.iter().take(MAX_RULES).enumerate() {
            let mut found = Vec::new();
            let translated = self.rule(&format!("spec.rules[{index}]"), rule, &mut found);
            if !found.is_empty() {
                changed.push(RuleFinding {
                    index,
                    effect: self.effect(translated.as_ref()),
                    findings: found,
                });
            }
            rules.extend(translated);
        }
        if let Some(problem) = Problem::too_many(spec.rules.len(), MAX_RULES) {
            findings.push(Finding::new("spec.rules", problem));
            // What the others say is not looked at: they might match anything.
            if self.leaning == Leaning::Wide {
                rules = vec![L4Rule::default()];
            }
        }
        (rules, changed)
    }

    /// The rule, or `None` if it matches nothing.
    fn rule(&self, path: &str, rule: &Rule, findings: &mut Vec<Finding>) -> Option<L4Rule> {
        let from = rule.from.as_deref().map(|entries| {
            self.entries(
                &format!("{path}.from"),
                entries,
                findings,
                |path, from, findings| {
                    findings.extend(unknown_fields(path, &from.other));
                    let path = format!("{path}.source");
                    self.source(&path, from.source.as_ref(), findings)
                },
            )
        });
        let to = rule.to.as_deref().map(|entries| {
            self.entries(
                &format!("{path}.to"),
                entries,
                findings,
                |path, to, findings| {
                    findings.extend(unknown_fields(path, &to.other));
                    let path = format!("{path}.operation");
                    self.operation(&path, to.operation.as_ref(), findings)
                },
            )
        });
        let when = rule.when.as_deref().map_or_else(Vec::new, |conditions| {
            self.conditions(&format!("{path}.when"), conditions, findings)
        });
        findings.extend(unknown_fields(path, &rule.other));
        let beyond = |finding: &Finding| !finding.problem.is_fault();
        if self.leaning == Leaning::Narrow && findings.iter().any(beyond) {
            return None;
        }
        let mut clauses = Vec::new();
        for term in from.into_iter().chain(to).chain(when) {
            match term {
                Term::Never => return None,
                Term::Always => {}
                Term::Some(clause) => clauses.push(clause),
            }
        }
        Some(L4Rule { clauses })
    }

    /// The clause of a rule's `from` or `to`.
    fn entries<T>(
        &self,
        path: &str,
        entries: &[T],
        findings: &mut Vec<Finding>,
        entry: impl Fn(&str, &T, &mut Vec<Finding>) -> Term<Match>,
    ) -> Term<Clause> {
        if let Some(problem) = bad_length(entries.len()) {
            findings.push(Finding::new(path, problem));
            return Term::unclear(self.leaning);
        }
        let entries = entries.iter().enumerate();
        // All entries are looked at, so that all findings are told.
        let terms: Vec<_> = entries
            .map(|(i, value)| entry(&format!("{path}[{i}]"), value, findings))
            .collect();
        any_of(terms)
    }

    fn source(&self, path: &str, source: Option<&Source>, found: &mut Vec<Finding>) -> Term<Match> {
        let mut entry = Entry::new(path, self.leaning, found);
        let Some(source) = source else {
            return entry.finish();
        };
        let text = |value: &str| Ok(vec![value::text(value)?]);
        let block = |value: &str| Ok(vec![value::ip_block(value)?]);
        let account = |value: &str| Ok(vec![value::service_account(value, self.namespace)?]);
        let principal = |value: &str| self.principal(value);
        entry.add(
            List::one_of("principals", source.principals.as_deref()),
            principal,
            |m| &mut m.principals,
        );
        entry.add(
            List::none_of("notPrincipals", source.not_principals.as_deref()),
            principal,
            |m| &mut m.not_principals,
        );
        entry.add(
            List::one_of("namespaces", source.namespaces.as_deref()),
            text,
            |m| &mut m.namespaces,
        );
        entry.add(
            List::none_of("notNamespaces", source.not_namespaces.as_deref()),
            text,
            |m| &mut m.not_namespaces,
        );
        entry.add(
            List::one_of("ipBlocks", source.ip_blocks.as_deref()),
            block,
            |m| &mut m.source_ips,
        );
        entry.add(
            List::none_of("notIpBlocks", source.not_ip_blocks.as_deref()),
            block,
            |m| &mut m.not_source_ips,
        );
        entry.add(
            List::one_of("serviceAccounts", source.service_accounts.as_deref()),
            account,
            |m| &mut m.service_accounts,
        );
        entry.add(
            List::none_of("notServiceAccounts", source.not_service_accounts.as_deref()),
            account,
            |m| &mut m.not_service_accounts,
        );
        entry.add_beyond(&[
            ("requestPrincipals", &source.request_principals),
            ("notRequestPrincipals", &source.not_request_principals),
            ("remoteIpBlocks", &source.remote_ip_blocks),
            ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
            ("trustDomains", &source.trust_domains),
            ("notTrustDomains", &source.not_trust_domains),
        ]);
        entry.add_unknown(&source.other);
        entry.finish()
    }

    fn operation(
        &self,
        path: &str,
        operation: Option<&Operation>,
        found: &mut Vec<Finding>,
    ) -> Term<Match> {
        let mut entry = Entry::new(path, self.leaning, found);
        let Some(operation) = operation else {
            return entry.finish();
        };
        let port = |value: &str| Ok(vec![value::port(value)?]);
        let ports = List::one_of("ports", operation.ports.as_deref());
        let not_ports = List::none_of("notPorts", operation.not_ports.as_deref());
        entry.add(ports, port, |m| &mut m.destination_ports);
        entry.add(not_ports, port, |m| &mut m.not_destination_ports);
        entry.add_beyond(&[
            ("hosts", &operation.hosts),
            ("notHosts", &operation.not_hosts),
            ("methods", &operation.methods),
            ("notMethods", &operation.not_methods),
            ("paths", &operation.paths),
            ("notPaths", &operation.not_paths),
        ]);
        entry.add_unknown(&operation.other);
        entry.finish()
    }

    /// The clauses of a rule's `when`, which must all match.
    fn conditions(
        &self,
        path: &str,
        conditions: &[Condition],
        found: &mut Vec<Finding>,
    ) -> Vec<Term<Clause>> {
        if let Some(problem) = bad_length(conditions.len()) {
            found.push(Finding::new(path, problem));
            return vec![Term::unclear(self.leaning)];
        }
        let conditions = conditions.iter().enumerate();
        conditions
            .map(|(i, condition)| {
                any_of([self.condition(&format!("{path}[{i}]"), condition, found)])
            })
            .collect()
    }

    fn condition(
        &self,
        path: &str,
        condition: &Condition,
        found: &mut Vec<Finding>,
    ) -> Term<Match> {
        let mut entry = Entry::new(path, self.leaning, found);
        let values = List::one_of("values", condition.values.as_deref());
        let not_values = List::none_of("notValues", condition.not_values.as_deref());
        let text = |value: &str| Ok(vec![value::text(value)?]);
        let block = |value: &str| Ok(vec![value::ip_block(value)?]);
        let port = |value: &str| Ok(vec![value::port(value)?]);
        let principal = |value: &str| self.principal(value);
        match condition.key.as_str() {
            "source.ip" => {
                entry.add(values, block, |m| &mut m.source_ips);
                entry.add(not_values, block, |m| &mut m.not_source_ips);
            }
            "source.namespace" => {
                entry.add(values, text, |m| &mut m.namespaces);
                entry.add(not_values, text, |m| &mut m.not_namespaces);
            }
            "source.principal" => {
                entry.add(values, principal, |m| &mut m.principals);
                entry.add(not_values, principal, |m| &mut m.not_principals);
            }
            "destination.ip" => {
                entry.add(values, block, |m| &mut m.destination_ips);
                entry.add(not_values, block, |m| &mut m.not_destination_ips);
            }
            "destination.port" => {
                entry.add(values, port, |m| &mut m.destination_ports);
                entry.add(not_values, port, |m| &mut m.not_destination_ports);
            }
            _ => entry.add_unsupported("key", Problem::NeedsWaypoint),
        }
        entry.add_unknown(&condition.other);
        entry.finish()
    }

    fn principal(&self, value: &str) -> Result<Vec<mesh_core::policy::StringMatch>, value::Error> {
        Ok(self.context.trust_domains.expand(value::principal(value)?))
    }

    fn effect(&self, translated: Option<&L4Rule>) -> Effect {
        match (self.leaning, translated) {
            (Leaning::Narrow, None) => Effect::AllowsNothing,
            (Leaning::Narrow, Some(_)) => Effect::AllowsLess,
            (Leaning::Wide, Some(rule)) if rule.clauses.is_empty() => Effect::DeniesAll,
            (Leaning::Wide, _) => Effect::DeniesMore,
        }
    }
}

// === impl Leaning ===

impl Leaning {
    fn of(action: Action) -> Self {
        match action {
            Action::Allow => Self::Narrow,
            Action::Deny => Self::Wide,
        }
    }
}

/// Policies of the root namespace concern all namespaces, also those with a selector.
fn scope(namespace: &str, selector: Option<&Selector>, context: &Context) -> PolicyScope {
    match selector {
        Some(_) => PolicyScope::WorkloadSelector,
        None if *namespace == *context.root_namespace => PolicyScope::Global,
        None => PolicyScope::Namespace,
    }
}

/// A selector without labels selects everything, which is what the scope says already.
fn selector(spec: &AuthorizationPolicySpec, findings: &mut Vec<Finding>) -> Option<Selector> {
    let labels = &spec.selector.as_ref()?.match_labels;
    for (key, value) in labels {
        if key.is_empty() || key.contains('*') || value.contains('*') {
            let problem = Problem::Label(quote(&format!("{key}={value}")));
            findings.push(Finding::new("spec.selector.matchLabels", problem));
        }
    }
    (!labels.is_empty()).then(|| Selector::of_labels(labels))
}

fn is_dry_run(policy: &AuthorizationPolicy, findings: &mut Vec<Finding>) -> bool {
    let annotations = policy.metadata.annotations.as_ref();
    match annotations
        .and_then(|all| all.get(annotations::DRY_RUN))
        .map(String::as_str)
    {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let field = format!("metadata.annotations[{}]", annotations::DRY_RUN);
            findings.push(Finding::new(field, Problem::DryRun(quote(other))));
            false
        }
    }
}

fn unknown_fields(path: &str, other: &serde_json::Map<String, serde_json::Value>) -> Vec<Finding> {
    let names = other.keys().map(|name| quote(name));
    names
        .map(|name| Finding::new(format!("{path}.{name}"), Problem::UnknownField))
        .collect()
}

fn bad_length(length: usize) -> Option<Problem> {
    if length == 0 {
        return Some(Problem::Empty);
    }
    Problem::too_many(length, MAX_ENTRIES)
}

#[cfg(test)]
mod tests;
