//! The CNI specification, versions 0.1.0 to 1.1.0, as a plugin sees it.
//!
//! ```text
//! environment ─► Call           what is asked, and of which sandbox
//! stdin       ─► NetworkConfig  by which configuration, and what the plugins before did
//! stdout      ◄─ outcome        a result, an answer to VERSION, or a Failure
//! ```

pub use self::{
    call::{Call, Pod, Sandbox},
    conf::NetworkConfig,
    failure::{Code, Coded, Failure},
    outcome::Outcome,
    version::Version,
};

pub mod call;
pub mod conf;
pub mod failure;
pub mod outcome;
pub mod version;
