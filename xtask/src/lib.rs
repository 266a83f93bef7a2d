//! Automation longer than a few lines: what holds the workspace to its own rules, and what generates
//! files from its code.
//!
//! Each check is a function from what was read to a list of [`Violation`]s; `cargo xtask` prints them
//! and the tests of this crate expect there to be none.

use std::fmt;

pub mod bans;
pub mod generate;
pub mod layers;
pub mod lint;
pub mod promises;
pub mod source;
pub mod workspace;

/// One place where the workspace does not keep a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Where: a file, a file and line, or a crate.
    pub place: String,
    /// Which rule, and what to do.
    pub rule: String,
}

// === impl Violation ===

impl Violation {
    /// A violation at `place`.
    pub fn new(place: impl Into<String>, rule: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            rule: rule.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.rule)
    }
}
