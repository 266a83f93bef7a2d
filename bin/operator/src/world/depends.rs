//! What a resource depends on.

use std::collections::BTreeSet;

use crate::key::{Key, Managed, ObjectRef};

/// One thing that a reconciler has asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Depends {
    /// A custom resource.
    Resource(Key),
    /// Every custom resource of a kind.
    Kind(Managed),
    /// An object of ours.
    Object(ObjectRef),
    /// A namespace: whether it exists, its labels, whether it is being deleted.
    Namespace(String),
    /// Pods of components in a namespace that do not come up.
    Stuck(String),
    /// Who refers to the revision or tag of this name.
    Usage(String),
    /// Which pods are enrolled.
    Enrolment,
    /// What kind of cluster this is.
    Platform,
}

/// What one reconciler has asked about.
pub type Sight = BTreeSet<Depends>;
