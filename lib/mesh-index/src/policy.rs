//! Policies of users to policies of ztunnel.
//!
//! ztunnel knows connections and no requests, and a policy may be malformed. What cannot be translated
//! exactly is approximated in the safe direction: an ALLOW rule matches less than was written, a DENY
//! rule more. So whatever the translation lets through, the policy as written lets through too; each
//! difference is a [`Finding`] and stands in the policy's status.
//!
//! [`authorization`] translates AuthorizationPolicies, [`peer`] turns PeerAuthentications into DENY
//! policies against plain text.

use std::sync::Arc;

pub mod authorization;
mod entry;
pub mod finding;
pub mod peer;
mod report;
mod trust;
pub mod value;

pub use finding::{Effect, Finding, Problem, RuleFinding};
pub use report::Report;
pub use trust::TrustDomains;

/// What a translation depends on beside the policy. When it changes, every policy is translated anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The namespace whose policies concern all of the mesh.
    pub root_namespace: Arc<str>,
    /// The names of the mesh's trust domain.
    pub trust_domains: TrustDomains,
    /// Whether policies that are only tried are sent. A ztunnel of Istio older than 1.29 would enforce
    /// them.
    pub dry_run: bool,
}

/// In which direction a translation may err.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaning {
    /// What is unclear does not match: ALLOW.
    Narrow,
    /// What is unclear matches: DENY.
    Wide,
}

/// Most of a foreign text that is repeated in a message, in characters.
const MAX_QUOTE: usize = 64;

/// A foreign text for a message.
fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(MAX_QUOTE).collect();
    if quoted.len() < text.len() {
        quoted.push('…');
    }
    quoted
}
