//! The mesh configuration: key `mesh` of the ConfigMap `istio`.
//!
//! Most of it is for sidecars and gateways; those fields are known and left alone. A field that Istio
//! does not have is a warning, lest a misspelt one go unnoticed; a bad value of a field that we read is
//! an error, and the configuration before it stays in force.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::selector;

mod fields;
mod read;

pub use read::parse;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The configuration.
    pub config: MeshConfig,
    /// Fields that nobody reads.
    pub warnings: Vec<Warning>,
}

/// A field that has no effect, and whose author may think that it has. Holds its path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Istio's mesh configuration does not have it: misspelt, or of a newer version.
    #[error("{0} is not a field of the mesh configuration and has no effect")]
    Unknown(String),
    /// A root that is to be fetched. It is not trusted.
    #[error("{0} is not supported and has no effect: give the certificates as `pem`")]
    Bundle(String),
}

/// Why a mesh configuration is refused. Its author can repair it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Larger than any ConfigMap can be.
    #[error("the mesh configuration has {0} bytes, 1 MiB at most")]
    TooLarge(usize),
    /// Not YAML, or a field stands in it twice.
    #[error("the mesh configuration is not valid YAML")]
    Yaml(#[from] serde_yaml_ng::Error),
    /// A field has a value that it cannot have.
    #[error("{path}: {problem}")]
    Field {
        /// The path of the field, such as `discoverySelectors[1].matchExpressions[0]`.
        path: String,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A value of another kind.
    #[error("expected {expected}")]
    Kind {
        /// What should be there.
        expected: &'static str,
    },
    /// No trust domain.
    #[error("`{0}` is not a trust domain: use letters, digits, `.`, `-` and `_`")]
    TrustDomain(String),
    /// No namespace.
    #[error("`{0}` is not the name of a namespace: use small letters, digits and `-`")]
    Namespace(String),
    /// No address.
    #[error("`{0}` is not of the form host:port")]
    Address(String),
    /// None of the values that there are.
    #[error("`{value}` is none of {allowed}")]
    Choice {
        /// What was written.
        value: String,
        /// What may be written.
        allowed: &'static str,
    },
    /// A label selector that cannot be used.
    #[error(transparent)]
    Selector(#[from] selector::Error),
    /// Written under two spellings.
    #[error("stands here twice, under two spellings")]
    Twice,
    /// More than is taken.
    #[error("has {count} entries, {most} at most")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
}

/// What the control plane takes from the mesh configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshConfig {
    /// The trust domain of the mesh's identities.
    pub trust_domain: String,
    /// Trust domains whose identities are taken for those of the mesh.
    pub trust_domain_aliases: Vec<String>,
    /// The namespace whose policies concern all of the mesh.
    pub root_namespace: String,
    /// The namespaces that the control plane looks at: those that any of these selects, all if there
    /// are none.
    pub discovery_selectors: Vec<LabelSelector>,
    /// Where proxies find the control plane, `host:port`.
    pub discovery_address: Option<String>,
    /// Further roots to trust.
    pub ca_certificates: Vec<CaCertificate>,
    /// Which services other clusters see. The first entry that matches decides.
    pub service_scopes: Vec<ServiceScope>,
    /// How far ServiceEntries are seen.
    pub service_entry_visibility: ServiceEntryVisibility,
}

/// A root that is trusted beside the mesh's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaCertificate {
    /// The certificates.
    pub pem: String,
    /// The trust domains they are for; the mesh's and its aliases if there are none.
    pub trust_domains: Vec<String>,
}

/// Which services are seen from where.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceScope {
    /// Services with these labels.
    pub services: Option<LabelSelector>,
    /// In namespaces with these labels.
    pub namespaces: Option<LabelSelector>,
    /// Whether they are seen by all clusters.
    pub global: bool,
}

/// How far ServiceEntries are seen. The first policy that matches decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceEntryVisibility {
    /// Where no policy matches.
    pub default: Visibility,
    /// Policies in their order.
    pub policies: Vec<VisibilityPolicy>,
}

/// The visibility of ServiceEntries in some namespaces.
#[derive(Clone, Debug, PartialEq)]
pub struct VisibilityPolicy {
    /// How far they are seen.
    pub visibility: Visibility,
    /// Selectors that must all match the namespace.
    pub namespaces: Vec<LabelSelector>,
}

/// How far a ServiceEntry is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    /// By nobody.
    None,
    /// By its namespace.
    Namespace,
    /// By all.
    #[default]
    Public,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".to_owned(),
            discovery_selectors: Vec::new(),
            discovery_address: None,
            ca_certificates: Vec::new(),
            service_scopes: Vec::new(),
            service_entry_visibility: ServiceEntryVisibility::default(),
        }
    }
}

#[cfg(test)]
mod tests;
