//! What a policy's status says.

use std::fmt::Write as _;

use mesh_api::condition::reason;

use super::{Finding, RuleFinding};

/// The condition that tells the author what is enforced.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    /// Whether ztunnel enforces all of it as written.
    pub accepted: bool,
    /// A word for machines.
    pub reason: &'static str,
    /// Sentences for people, of about 1 KiB at most.
    pub message: String,
}

/// Longest message, in bytes. Kubernetes takes 32 KiB; people do not.
const MAX_MESSAGE: usize = 1024;

/// Most findings that are told for one rule.
const MAX_FINDINGS: usize = 3;

// === impl Report ===

impl Report {
    /// The report on a policy that ztunnel enforces, in part or as written.
    pub(super) fn of_rules(rules: usize, findings: &[Finding], changed: &[RuleFinding]) -> Self {
        if findings.is_empty() && changed.is_empty() {
            let message = "enforced by ztunnel as written".to_owned();
            return Self {
                accepted: true,
                reason: reason::ACCEPTED,
                message,
            };
        }
        let mut sentences: Vec<_> = findings.iter().map(ToString::to_string).collect();
        sentences.extend(changed.iter().map(rule_sentence));
        let as_written = rules.saturating_sub(changed.len());
        if !changed.is_empty() && as_written > 0 {
            sentences.push(format!(
                "the other {as_written} of {rules} rules are enforced as written"
            ));
        }
        let rules = changed.iter().flat_map(|rule| &rule.findings);
        Self::refusal(findings.iter().chain(rules), &sentences)
    }

    /// The report on an object without rules.
    pub(super) fn of_object(findings: &[Finding]) -> Self {
        Self::of_rules(0, findings, &[])
    }

    /// The report on a policy that ztunnel does not get.
    pub(super) fn withheld(findings: &[Finding]) -> Self {
        let mut sentences = vec!["nothing of this policy is enforced by ztunnel".to_owned()];
        sentences.extend(findings.iter().map(ToString::to_string));
        Self::refusal(findings.iter(), &sentences)
    }

    fn refusal<'a>(mut findings: impl Iterator<Item = &'a Finding>, sentences: &[String]) -> Self {
        let reason = if findings.any(|finding| finding.problem.is_fault()) {
            reason::INVALID
        } else {
            reason::UNSUPPORTED_VALUE
        };
        Self {
            accepted: false,
            reason,
            message: bounded(sentences),
        }
    }
}

/// `rules[2] allows nothing: from[0].source.requestPrincipals needs a waypoint …`.
fn rule_sentence(rule: &RuleFinding) -> String {
    let path = format!("spec.rules[{}]", rule.index);
    let mut text = format!("rules[{}] {}: ", rule.index, rule.effect);
    for (i, finding) in rule.findings.iter().take(MAX_FINDINGS).enumerate() {
        let field = finding.field.strip_prefix(&path).unwrap_or(&finding.field);
        let field = field.strip_prefix('.').unwrap_or(field);
        let separator = if i == 0 { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{field} {}", finding.problem);
    }
    let more = rule.findings.len().saturating_sub(MAX_FINDINGS);
    if more > 0 {
        let _ = write!(text, ", and {more} more");
    }
    text
}

/// Sentences until the message is long enough, and how many are left out.
fn bounded(sentences: &[String]) -> String {
    let mut message = String::new();
    for (i, sentence) in sentences.iter().enumerate() {
        if i > 0 && message.len() + sentence.len() > MAX_MESSAGE {
            let _ = write!(message, "; and {} more", sentences.len() - i);
            break;
        }
        if i > 0 {
            message.push_str("; ");
        }
        message.push_str(sentence);
    }
    message
}
