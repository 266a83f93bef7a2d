//! What kind of cluster this is, as far as the mesh cares.

/// What is known of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detected {}
