//! Which pods belong in the mesh: by their labels and those of their namespace.
//!
//! The agent decides by what the API server says. The plugin decides only while it cannot reach the agent, by the
//! [`Snapshot`] that the agent left on the node; it does not know a pod's labels then, so that an answer may
//! be [`Belongs::Perhaps`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::selector::{Invalid, LabelSelector, Operator, Requirement, Selector};

mod selector;

/// Labels of a pod or a namespace.
pub type Labels = BTreeMap<String, String>;

/// What is known of a pod when it is asked whether it belongs in the mesh.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The namespace it is in.
    pub namespace: &'a str,
    /// The namespace's labels; none if they are not known.
    pub namespace_labels: Option<&'a Labels>,
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
    /// It depends on labels that are not known.
    Perhaps,
}

/// Who belongs in the mesh: the pods that a selector matches, outside the excluded namespaces. Without
/// selectors it is nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// One of them must match.
    pub selectors: Vec<Selector>,
    /// Namespaces whose pods stay outside, whatever their labels.
    pub excluded_namespaces: BTreeSet<String>,
}

/// The policy and the namespaces as the agent saw them last: `enrolment.json` in its run directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Who belongs in the mesh.
    pub policy: Policy,
    /// Every namespace of the cluster, with those of its labels whose keys are in
    /// [`Policy::namespace_keys`]. One that is not here is not known.
    pub namespaces: BTreeMap<String, Labels>,
}

/// Why a snapshot cannot be used. The plugin then treats every pod as one that may belong in the mesh; the
/// agent writes a new file when it starts.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It is longer than [`Snapshot::MAX_BYTES`]. Not written by our agent.
    #[error(
        "read an enrolment snapshot of {length} bytes, which is more than {}",
        Snapshot::MAX_BYTES
    )]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// It is not JSON, or a field has the wrong type. Not written by our agent, or damaged.
    #[error("read an enrolment snapshot")]
    Malformed(#[source] serde_json::Error),
    /// Another version of the agent wrote it, and this one does not know its form.
    #[error(
        "read an enrolment snapshot of version {found}; this plugin knows version {}",
        Snapshot::VERSION
    )]
    Version {
        /// What it says.
        found: u64,
    },
}

/// The file, as it is written.
#[derive(Serialize)]
struct Written<'a> {
    version: u64,
    #[serde(flatten)]
    policy: &'a Policy,
    namespaces: &'a BTreeMap<String, Labels>,
}

/// The file, as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Read {
    #[serde(rename = "version")]
    _version: u64,
    selectors: Vec<Selector>,
    excluded_namespaces: BTreeSet<String>,
    namespaces: BTreeMap<String, Labels>,
}

// === impl Policy ===

impl Policy {
    /// Whether a pod belongs in the mesh.
    pub fn belongs(&self, pod: &Candidate<'_>) -> Belongs {
        if pod.host_network || pod.sidecar || self.excluded_namespaces.contains(pod.namespace) {
            return Belongs::No;
        }
        let verdicts = self
            .selectors
            .iter()
            .map(|selector| selector.matches(pod.labels, pod.namespace_labels));
        verdicts.fold(Belongs::No, Belongs::or)
    }

    /// The keys of the labels of namespaces that it looks at; no other label of a namespace matters.
    pub fn namespace_keys(&self) -> BTreeSet<&str> {
        let requirements = self
            .selectors
            .iter()
            .flat_map(|s| s.namespace.requirements());
        requirements.map(Requirement::key).collect()
    }
}

// === impl Belongs ===

impl Belongs {
    /// Both must hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            (Self::Perhaps, _) | (_, Self::Perhaps) => Self::Perhaps,
        }
    }

    /// One must hold.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            (Self::No, Self::No) => Self::No,
            (Self::Perhaps, _) | (_, Self::Perhaps) => Self::Perhaps,
        }
    }
}

impl From<bool> for Belongs {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// The form that is written and read.
    pub const VERSION: u64 = 1;

    /// Most bytes of the file: ten times what 10,000 namespaces with one label each take.
    pub const MAX_BYTES: usize = 16 << 20;

    /// Reads the file's contents.
    pub fn parse(bytes: &[u8]) -> Result<Self, SnapshotError> {
        if bytes.len() > Self::MAX_BYTES {
            let length = bytes.len();
            return Err(SnapshotError::TooLong { length });
        }
        let value: Value = serde_json::from_slice(bytes).map_err(SnapshotError::Malformed)?;
        // A version that we do not know is told as such, whatever else is different.
        match value.get("version").and_then(Value::as_u64) {
            Some(found) if found != Self::VERSION => return Err(SnapshotError::Version { found }),
            _ => {}
        }
        let read: Read = serde_json::from_value(value).map_err(SnapshotError::Malformed)?;
        Ok(Self {
            policy: Policy {
                selectors: read.selectors,
                excluded_namespaces: read.excluded_namespaces,
            },
            namespaces: read.namespaces,
        })
    }

    /// The file's contents; the same for the same snapshot.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec(&Written {
            version: Self::VERSION,
            policy: &self.policy,
            namespaces: &self.namespaces,
        })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Whether a pod belongs in the mesh of which only the namespace is known.
    pub fn belongs(&self, namespace: &str) -> Belongs {
        self.policy.belongs(&Candidate {
            namespace,
            namespace_labels: self.namespaces.get(namespace),
            labels: None,
            host_network: false,
            sidecar: false,
        })
    }
}

#[cfg(test)]
mod tests;
