//! The CNI specification, versions 0.1.0 to 1.1.0, as a plugin sees it.

pub use self::version::Version;

mod version;
