//! The cluster's TLS profile in the mesh's terms.

use mesh_api::openshift::{APIServerSpec, CustomTlsProfile};
use mesh_render::TlsProfile;

use super::{Finding, Reason, facts::Facts};
use crate::images::Component;

/// TLS 1.2, as mesh configurations name it. Nothing in the mesh speaks anything older.
const TLS_1_2: &str = "TLSV1_2";
/// TLS 1.3.
const TLS_1_3: &str = "TLSV1_3";

/// Cipher suites of TLS 1.2 that mesh configurations take, by their OpenSSL names, the approved ones of
/// FIPS first.
const SUITES: [(&str, bool); 6] = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", true),
    ("ECDHE-RSA-AES128-GCM-SHA256", true),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", true),
    ("ECDHE-RSA-AES256-GCM-SHA384", true),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", false),
    ("ECDHE-RSA-CHACHA20-POLY1305", false),
];

/// The profile that all components have to honour, if there is one; a finding if it cannot be honoured as
/// it is written.
pub(super) fn profile(facts: &Facts) -> (Option<TlsProfile>, Option<Finding>) {
    let wanted = facts.api_server.as_ref();
    let Some(wanted) = wanted.filter(|spec| spec.binds_all_components()) else {
        return (None, None);
    };
    match chosen(wanted) {
        Wanted::Tls13 => (Some(tls13()), None),
        Wanted::Any => (Some(tls12(facts, |_| true)), None),
        Wanted::Named(custom) => named(facts, custom),
    }
}

/// What an administrator wants.
enum Wanted<'a> {
    /// TLS 1.3 alone.
    Tls13,
    /// Every cipher suite that is any good.
    Any,
    /// Those of a list.
    Named(&'a CustomTlsProfile),
}

fn chosen(spec: &APIServerSpec) -> Wanted<'_> {
    let profile = spec.tls_security_profile.as_ref();
    let custom = profile.and_then(|profile| profile.custom.as_ref());
    match (profile.map(|profile| profile.type_.as_str()), custom) {
        (Some("Modern"), _) => Wanted::Tls13,
        (Some("Custom"), Some(custom)) if custom.min_tls_version == "VersionTLS13" => Wanted::Tls13,
        (Some("Custom"), Some(custom)) => Wanted::Named(custom),
        // `Intermediate`, the default, and `Old`, whose further suites are not secure.
        _ => Wanted::Any,
    }
}

fn named(facts: &Facts, custom: &CustomTlsProfile) -> (Option<TlsProfile>, Option<Finding>) {
    let profile = tls12(facts, |suite| {
        custom.ciphers.iter().any(|name| name == suite)
    });
    if !profile.ciphers.is_empty() {
        return (Some(profile), None);
    }
    // Rather too strict than what the administrator has not allowed.
    let finding = Finding {
        reason: Reason::NoCommonCipher,
        concerns: &[Component::Istiod],
        message:
            "The cluster's TLS profile has no cipher suite of TLS 1.2 that the mesh can use; it \
                  speaks TLS 1.3 alone"
                .to_owned(),
        remedy: format!(
            "If something needs TLS 1.2, a cluster administrator adds one of {} to spec.\
             tlsSecurityProfile.custom.ciphers of apiservers.config.openshift.io `cluster`",
            SUITES.map(|(name, _)| name).join(", ")
        ),
    };
    (Some(tls13()), Some(finding))
}

fn tls12(facts: &Facts, wanted: impl Fn(&str) -> bool) -> TlsProfile {
    let suites = SUITES.into_iter();
    let suites = suites.filter(|(name, approved)| (*approved || !facts.fips) && wanted(name));
    TlsProfile {
        min_version: TLS_1_2.to_owned(),
        ciphers: suites.map(|(name, _)| name.to_owned()).collect(),
    }
}

fn tls13() -> TlsProfile {
    TlsProfile {
        min_version: TLS_1_3.to_owned(),
        ciphers: Vec::new(),
    }
}
