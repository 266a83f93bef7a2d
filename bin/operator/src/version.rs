//! What this build calls itself.

/// The program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, where the build said so.
pub fn revision() -> &'static str {
    option_env!("LATEEN_REVISION").unwrap_or("unknown")
}

/// What `operator version` prints.
pub fn line() -> String {
    let openssl = openssl::version::version();
    format!("operator {VERSION} (revision {}, {openssl})", revision())
}
