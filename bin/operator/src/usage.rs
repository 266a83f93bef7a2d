//! Who uses the mesh: which names of revisions and tags namespaces, pods and waypoints refer to, and which
//! pods are enrolled.
//!
//! Fed with metadata alone. Of the many pods only what counts is kept.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Who uses the mesh.
#[derive(Clone, Debug, Default)]
pub struct Usage {}

/// What a change may have changed for those who look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Names of revisions or tags that are now referred to by more or fewer.
    pub names: BTreeSet<String>,
    /// Pods have entered or left the mesh.
    pub enrolment: bool,
}

// === impl Usage ===

impl Usage {
    /// A namespace exists with these labels.
    pub fn apply_namespace(&mut self, _namespace: &ObjectMeta) -> Touched {
        Touched::default()
    }

    /// A namespace is gone.
    pub fn delete_namespace(&mut self, _name: &str) -> Touched {
        Touched::default()
    }

    /// A pod exists that has not come to its end.
    pub fn apply_pod(&mut self, _pod: &ObjectMeta) -> Touched {
        Touched::default()
    }

    /// A pod is gone, or has come to its end.
    pub fn delete_pod(&mut self, _namespace: &str, _name: &str) -> Touched {
        Touched::default()
    }

    /// A Gateway exists.
    pub fn apply_gateway(&mut self, _gateway: &ObjectMeta) -> Touched {
        Touched::default()
    }

    /// A Gateway is gone.
    pub fn delete_gateway(&mut self, _namespace: &str, _name: &str) -> Touched {
        Touched::default()
    }
}
