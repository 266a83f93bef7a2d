//! Names and labels that the objects of one component share.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_api::control_plane;

/// Labels or annotations.
pub type Texts = BTreeMap<String, String>;

/// One component as it is installed: what its objects have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The component: `istiod`, `cni`, `ztunnel`, `base` or `revisiontags`.
    pub component: &'static str,
    /// What is installed, under the name that Helm's release has: `default-istiod`, `istio-cni`, `ztunnel`.
    pub instance: String,
    /// Its version, such as `1.30.3`.
    pub version: String,
    /// The revision; empty for the default one.
    pub revision: String,
    /// The namespace of what is not of the cluster.
    pub namespace: String,
}

// === impl Installation ===

impl Installation {
    /// The labels of every object.
    pub fn labels(&self) -> Texts {
        texts([
            ("app.kubernetes.io/instance", self.instance.as_str()),
            ("app.kubernetes.io/name", self.component),
            ("app.kubernetes.io/part-of", "istio"),
            ("app.kubernetes.io/version", self.version.as_str()),
        ])
    }

    /// Name and labels of an object in the namespace.
    pub fn meta(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            namespace: Some(self.namespace.clone()),
            ..self.cluster_meta(name)
        }
    }

    /// Name and labels of an object of the cluster.
    pub fn cluster_meta(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(self.labels()),
            ..ObjectMeta::default()
        }
    }

    /// `name`, with the revision behind it if it is not the default one.
    pub fn suffixed(&self, name: &str) -> String {
        control_plane::suffixed(name, &self.revision)
    }
}

/// Labels or annotations from pairs.
pub fn texts<const N: usize>(pairs: [(&str, &str); N]) -> Texts {
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    pairs.map(owned).into()
}
