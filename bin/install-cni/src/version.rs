//! What this build calls itself.

/// The program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, where the build said so.
pub fn revision() -> &'static str {
    option_env!("LATEEN_REVISION").unwrap_or("unknown")
}

/// What `install-cni version` prints.
pub fn line() -> String {
    let openssl = openssl::version::version();
    format!("install-cni {VERSION} (revision {}, {openssl})", revision())
}
