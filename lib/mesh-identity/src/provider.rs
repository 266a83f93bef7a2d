//! The cryptography that rustls uses: OpenSSL's, restricted to what the mesh wants to speak.

use std::{
    fs,
    sync::{Arc, OnceLock},
};

use rustls::{
    CipherSuite, NamedGroup, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, SecureRandom as _, SupportedKxGroup},
    version::{TLS12, TLS13},
};
use rustls_openssl::{SecureRandom, available_cipher_suites, custom_provider, kx_group};

/// Which protocol versions are spoken. The newer one is always preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// TLS 1.3 alone: what every ambient proxy and control plane speaks.
    #[default]
    Tls13,
    /// TLS 1.2 too, with ephemeral keys and AES-GCM, for sites whose policy or middleboxes ask for it.
    Tls12AndTls13,
}

/// Preferred first: AES-256 is what upstream's proxies prefer too, and costs little with AES-NI.
const TLS13_SUITES: [CipherSuite; 2] = [
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_AES_128_GCM_SHA256,
];

const TLS12_SUITES: [CipherSuite; 4] = [
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// The curves of SP 800-186 that every validated OpenSSL module implements.
const APPROVED_GROUPS: [NamedGroup; 3] = [
    NamedGroup::secp256r1,
    NamedGroup::secp384r1,
    NamedGroup::secp521r1,
];

/// Where Linux says that the whole host is to use validated cryptography: `1` or nothing.
const KERNEL_FLAG: &str = "/proc/sys/crypto/fips_enabled";

// === impl Versions ===

impl Versions {
    /// The versions in rustls' terms.
    pub fn protocol(self) -> &'static [&'static SupportedProtocolVersion] {
        static ALONE: [&SupportedProtocolVersion; 1] = [&TLS13];
        static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match self {
            Self::Tls13 => &ALONE,
            Self::Tls12AndTls13 => &BOTH,
        }
    }

    /// The provider with the suites of these versions, shared by all connections of the process.
    ///
    /// What OpenSSL offers is asked once, at the first call: a change of its configuration needs a
    /// restart.
    pub fn provider(self) -> Arc<CryptoProvider> {
        static TLS13_ONLY: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
        static BOTH: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
        let cell = match self {
            Self::Tls13 => &TLS13_ONLY,
            Self::Tls12AndTls13 => &BOTH,
        };
        Arc::clone(cell.get_or_init(|| Arc::new(build(self, is_fips()))))
    }

    fn suites(self) -> Vec<CipherSuite> {
        match self {
            Self::Tls13 => TLS13_SUITES.to_vec(),
            Self::Tls12AndTls13 => [&TLS13_SUITES[..], &TLS12_SUITES[..]].concat(),
        }
    }
}

/// OpenSSL's cryptography with TLS 1.3 AES-GCM suites: the provider of everything in the mesh unless
/// TLS 1.2 is asked for.
pub fn provider() -> Arc<CryptoProvider> {
    Versions::Tls13.provider()
}

/// Whether this process has to keep to approved cryptography: OpenSSL runs in FIPS mode, or the host
/// does.
///
/// Either is enough: a container may lack the kernel's flag file, and a host in FIPS mode may run an
/// OpenSSL whose configuration was forgotten.
pub fn is_fips() -> bool {
    SecureRandom.fips() || fs::read_to_string(KERNEL_FLAG).is_ok_and(|flag| flag.trim() == "1")
}

fn build(versions: Versions, fips: bool) -> CryptoProvider {
    custom_provider(suites(versions), groups(fips))
}

fn suites(versions: Versions) -> Vec<SupportedCipherSuite> {
    let available = available_cipher_suites();
    let find = |wanted| available.iter().copied().find(|s| s.suite() == wanted);
    versions.suites().into_iter().filter_map(find).collect()
}

fn groups(fips: bool) -> Vec<&'static dyn SupportedKxGroup> {
    if !fips {
        return kx_group::available_default_groups();
    }
    let mut groups = kx_group::available_groups();
    groups.retain(|group| APPROVED_GROUPS.contains(&group.name()));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite_names(provider: &CryptoProvider) -> Vec<CipherSuite> {
        let suites = &provider.cipher_suites;
        suites.iter().map(SupportedCipherSuite::suite).collect()
    }

    #[test]
    fn only_tls13_aes_gcm_is_offered_unless_asked() {
        assert_eq!(suite_names(&provider()), TLS13_SUITES);
    }

    #[test]
    fn tls12_adds_only_ephemeral_aes_gcm() {
        let names = suite_names(&Versions::Tls12AndTls13.provider());
        assert_eq!(names, [&TLS13_SUITES[..], &TLS12_SUITES[..]].concat());
    }

    #[test]
    fn a_fips_host_is_offered_approved_groups_alone() {
        let provider = build(Versions::Tls13, true);
        let groups: Vec<_> = provider.kx_groups.iter().map(|g| g.name()).collect();
        assert_eq!(groups, APPROVED_GROUPS);
        assert_eq!(suite_names(&provider), TLS13_SUITES);
    }

    #[test]
    fn the_provider_is_built_once() {
        assert!(Arc::ptr_eq(&provider(), &provider()));
    }
}
