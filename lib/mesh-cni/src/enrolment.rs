//! Which pods belong in the mesh: by their labels and those of their namespace.

use std::collections::BTreeMap;

/// Labels of a pod or a namespace.
pub type Labels = BTreeMap<String, String>;

/// What is known of a pod when it is asked whether it belongs in the mesh.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The namespace it is in.
    pub namespace: &'a str,
    /// The namespace's labels.
    pub namespace_labels: &'a Labels,
    /// Its own labels; none if they are not known, as to the plugin when it cannot reach the agent.
    pub labels: Option<&'a Labels>,
    /// Whether it has the node's network instead of its own.
    pub host_network: bool,
    /// Whether it has a sidecar: the annotation `sidecar.istio.io/status`.
    pub sidecar: bool,
}

/// Whether a pod belongs in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belongs {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// It depends on its labels, which are not known.
    Perhaps,
}
