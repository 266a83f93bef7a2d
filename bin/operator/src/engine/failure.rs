//! What went wrong, whose fault it is, and what to tell the person who can help.

use std::fmt;

use mesh_api::sail::condition::{RECONCILED, StatusCondition, reason};
use mesh_kube::error::Fault;

use crate::{key::ObjectRef, outcome::Happening};

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// Another replica leads, or nobody: nothing may be written any more.
    #[error("this replica does not lead")]
    NotLeading,
    /// The API server did not do what it was asked for.
    #[error("{doing} {object}: {said}{}", remedy(*fault))]
    Request {
        /// What was asked for: `applying`, `deleting` and so on.
        doing: &'static str,
        /// Of which object.
        object: String,
        /// Whose fault it is.
        fault: Fault,
        /// What the server said.
        said: String,
    },
    /// Somebody else has made an object of this name.
    #[error(
        "{object} exists and belongs to {owner}: remove it, or, if this operator is to take it over, \
         remove its controlling owner and label it managed-by=sail-operator"
    )]
    Taken {
        /// The object.
        object: ObjectRef,
        /// Whose it is.
        owner: String,
    },
    /// Not everything that counts can be seen.
    #[error("not everything that counts has been seen: {0}")]
    Blind(String),
}

/// All that went wrong at once. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble(Vec<Failure>);

/// Most characters of a condition's message.
const MAX_MESSAGE: usize = 8 * 1024;

fn remedy(fault: Fault) -> &'static str {
    match fault {
        Fault::Denied => {
            "; the operator's permissions are printed by `operator rights` and are part of \
             manifests/operator.yaml, those for Istio's own images of manifests/rbac/istio-images.yaml"
        }
        _ => "",
    }
}

// === impl Failure ===

impl Failure {
    /// Whether there is no point in going on with other objects.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::NotLeading => true,
            Self::Request { fault, .. } => *fault == Fault::Unavailable,
            Self::Taken { .. } | Self::Blind(_) => false,
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::NotLeading => true,
            // A namespace that has just gone will come back or be reported by the reconciler.
            Self::Request { fault, .. } => fault.is_retryable() || *fault == Fault::Missing,
            Self::Taken { .. } | Self::Blind(_) => false,
        }
    }
}

// === impl Trouble ===

impl Trouble {
    pub(crate) fn of(failures: Vec<Failure>) -> Option<Self> {
        (!failures.is_empty()).then_some(Self(failures))
    }

    /// Nothing may be written any more.
    pub(crate) fn is_deposed(&self) -> bool {
        self.0.contains(&Failure::NotLeading)
    }

    /// Whether the same may succeed later without anybody's help.
    pub(crate) fn may_pass(&self) -> bool {
        self.0.iter().all(Failure::may_pass)
    }

    /// What the resource says about it.
    pub(crate) fn condition(&self) -> StatusCondition {
        StatusCondition::fails(RECONCILED, reason::RECONCILE_ERROR, self.message())
    }

    /// What people hear of it.
    pub(crate) fn happening(&self) -> Happening {
        Happening::warning(reason::RECONCILE_ERROR, self.message())
    }

    fn message(&self) -> String {
        self.to_string().chars().take(MAX_MESSAGE).collect()
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said: Vec<String> = Vec::new();
        for failure in &self.0 {
            let text = failure.to_string();
            if !said.contains(&text) {
                said.push(text);
            }
        }
        f.write_str(&said.join("\n"))
    }
}
