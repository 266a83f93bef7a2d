//! The mesh configuration: key `mesh` of the ConfigMap `istio`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

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
