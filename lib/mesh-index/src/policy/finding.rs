//! What was found wrong with a policy, and what became of it.

use std::fmt;

use super::value;

/// A part of a policy that is not in force as written. Its author can repair it, or use a waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The path of the field, such as `spec.rules[2].to[0].operation.ports[1]`.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is about requests, and ztunnel sees connections only. A waypoint can enforce it.
    #[error("needs a waypoint: ztunnel does not see requests")]
    NeedsWaypoint,
    /// A field of a newer version, or a misspelt one.
    #[error("is not known to this version")]
    UnknownField,
    /// A value that does not have the form it must have.
    #[error(transparent)]
    Value(#[from] value::Error),
    /// A list or object that is there and says nothing. What it was to say is unknown.
    #[error("is empty: state at least one value, or leave the field out")]
    Empty,
    /// More than is taken from one policy.
    #[error("has {count} entries, {most} at most: split the policy")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// An action that ztunnel does not have. Nothing of the policy is enforced by it.
    #[error("`{0}` is not enforced by ztunnel, which knows ALLOW and DENY: a waypoint is needed")]
    Action(String),
    /// Labels that no workload can have.
    #[error("`{0}` cannot be a label, so no workload is selected: wildcards are not supported")]
    Label(String),
    /// Neither `true` nor `false`; taken for `false`, so that the policy is enforced.
    #[error("`{0}` is neither true nor false: the policy is enforced")]
    DryRun(String),
    /// A policy that is only tried, where this is switched off.
    #[error("dry runs are switched off, so the policy is neither enforced nor tried")]
    DryRunOff,
    /// A mode of mutual TLS that does not exist; taken for STRICT.
    #[error("`{0}` is no mode, taken for STRICT: use UNSET, DISABLE, PERMISSIVE or STRICT")]
    Mode(String),
    /// Exceptions for ports can be made for selected workloads only.
    #[error(
        "is ignored, because it needs a selector with labels; a STRICT port makes all ports STRICT"
    )]
    PortsWithoutSelector,
    /// A key that is no port; with STRICT it makes all ports STRICT.
    #[error("`{0}` is no port from 1 to 65535; a STRICT one makes all other ports STRICT")]
    PortKey(String),
    /// Workloads of other namespaces cannot be selected from the root namespace.
    #[error("is ignored: in the root namespace a PeerAuthentication cannot select workloads")]
    SelectorInRoot,
}

/// What became of one rule that is not in force as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFinding {
    /// Which rule, counted from 0.
    pub index: usize,
    /// What it does now.
    pub effect: Effect,
    /// Why; never empty.
    pub findings: Vec<Finding>,
}

/// What a rule does that is not in force as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An ALLOW rule of which nothing is left.
    AllowsNothing,
    /// An ALLOW rule that allows less than written.
    AllowsLess,
    /// A DENY rule that denies more than written.
    DeniesMore,
    /// A DENY rule of which nothing but the denial is left: no connection reaches the workloads.
    DeniesAll,
}

// === impl Finding ===

impl Finding {
    pub(super) fn new(field: impl Into<String>, problem: impl Into<Problem>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.problem)
    }
}

// === impl Problem ===

impl Problem {
    pub(super) fn too_many(count: usize, most: usize) -> Option<Self> {
        (count > most).then_some(Self::TooMany { count, most })
    }

    /// Whether the policy is wrong, rather than right and beyond ztunnel.
    pub fn is_fault(&self) -> bool {
        !matches!(
            self,
            Self::NeedsWaypoint | Self::UnknownField | Self::Action(_) | Self::DryRunOff
        )
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllowsNothing => "allows nothing",
            Self::AllowsLess => "allows less than written",
            Self::DeniesMore => "denies more than written",
            Self::DeniesAll => "denies all connections",
        })
    }
}
