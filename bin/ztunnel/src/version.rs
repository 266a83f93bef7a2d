//! What this build calls itself.

use std::fmt;

use serde::Serialize;

/// The version, as `ztunnel version` and the dump show it.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Version of the program.
    pub version: &'static str,
    /// Commit it was built from, where the build said so.
    pub git_revision: &'static str,
    /// Version of the compiler.
    pub rust_version: &'static str,
    /// `debug` or `release`.
    pub build_profile: &'static str,
    /// OpenSSL as it is loaded.
    pub crypto_provider: &'static str,
}

// === impl Version ===

impl Version {
    /// The version of this build.
    pub fn of_this_build() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            git_revision: option_env!("LATEEN_REVISION").unwrap_or("unknown"),
            rust_version: env!("LATEEN_RUST_VERSION"),
            build_profile: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
            crypto_provider: openssl::version::version(),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            git_revision,
            rust_version: _,
            build_profile,
            crypto_provider,
        } = self;
        write!(
            f,
            "ztunnel {version} (revision {git_revision}, {build_profile}, {crypto_provider})"
        )
    }
}
