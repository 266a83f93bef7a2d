//! What the mesh configuration and the program's flags say about discovery.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use mesh_api::{
    mesh_config::{MeshConfig, ServiceEntryVisibility, Visibility},
    selector::Selector,
};

use crate::text::Labels;

/// The settings of an index; they can be replaced while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The cluster's id as the proxies know it, first part of every workload's uid.
    pub cluster_id: String,
    /// The DNS domain of the cluster's services.
    pub domain: String,
    /// The trust domain of every workload's identity.
    pub trust_domain: String,
    /// Other names of the trust domain, from before a migration.
    pub trust_domain_aliases: Vec<String>,
    /// The namespace whose policies concern the whole mesh.
    pub root_namespace: String,
    /// The namespace in which the control plane runs. Its label `topology.istio.io/network` names the
    /// network of the cluster.
    pub system_namespace: String,
    /// Namespaces that are looked at: those that any of these selects; all if there are none. One that
    /// cannot be understood selects none.
    pub discovery_selectors: Vec<LabelSelector>,
    /// Who sees a ServiceEntry, unless it says less itself.
    pub service_entry_visibility: ServiceEntryVisibility,
    /// Whether virtual addresses are given to ServiceEntries that have none.
    pub allocate_addresses: bool,
    /// What happens to traffic whose waypoint cannot take it.
    pub waypoint_unready: WaypointUnready,
    /// Whether policies on trial (`istio.io/dry-run`) are published, to be logged and not enforced.
    /// Proxies older than 1.29 enforce them.
    pub dry_run_policies: bool,
}

/// What happens to traffic whose waypoint does not exist, is not ready or denies the attachment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WaypointUnready {
    /// It is closed, because policies that only the waypoint can enforce would be bypassed.
    #[default]
    Close,
    /// It goes directly to the destination, past the waypoint's policies.
    Bypass,
}

/// Which namespaces are looked at, and how far their ServiceEntries are seen.
#[derive(Debug)]
pub(crate) struct Scopes {
    /// `None` for all.
    discovery: Option<Vec<Selector>>,
    visibility: Vec<(Visibility, Vec<Option<Selector>>)>,
    default: Visibility,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_id: "Kubernetes".into(),
            domain: "cluster.local".into(),
            trust_domain: "cluster.local".into(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".into(),
            system_namespace: "istio-system".into(),
            discovery_selectors: Vec::new(),
            service_entry_visibility: ServiceEntryVisibility::default(),
            allocate_addresses: true,
            waypoint_unready: WaypointUnready::Close,
            dry_run_policies: false,
        }
    }
}

impl Settings {
    /// These settings, and what the mesh configuration says.
    #[must_use]
    pub fn with_mesh_config(self, mesh: &MeshConfig) -> Self {
        Self {
            trust_domain: mesh.trust_domain.clone(),
            trust_domain_aliases: mesh.trust_domain_aliases.clone(),
            root_namespace: mesh.root_namespace.clone(),
            discovery_selectors: mesh.discovery_selectors.clone(),
            service_entry_visibility: mesh.service_entry_visibility.clone(),
            ..self
        }
    }
}

// === impl Scopes ===

impl Scopes {
    pub(crate) fn new(settings: &Settings) -> Self {
        let read = |selector: &LabelSelector| Selector::try_new(selector).ok();
        let discovery = &settings.discovery_selectors;
        let visibility = &settings.service_entry_visibility;
        let policies = visibility.policies.iter();
        Self {
            discovery: (!discovery.is_empty()).then(|| discovery.iter().filter_map(read).collect()),
            visibility: policies
                .map(|policy| {
                    let namespaces = policy.namespaces.iter();
                    (policy.visibility, namespaces.map(read).collect())
                })
                .collect(),
            default: visibility.default,
        }
    }

    /// Whether a namespace with these labels is looked at; `None` stands for one that is not known yet.
    pub(crate) fn see(&self, namespace: Option<&Labels>) -> bool {
        match (&self.discovery, namespace) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(selectors), Some(labels)) => selectors.iter().any(|s| matches(s, labels)),
        }
    }

    /// How far the ServiceEntries of a namespace with these labels are seen.
    pub(crate) fn visibility(&self, namespace: &Labels) -> Visibility {
        let holds = |selector: &Option<Selector>| {
            let selector = selector.as_ref();
            selector.is_some_and(|selector| matches(selector, namespace))
        };
        let mut policies = self.visibility.iter();
        let first = policies.find(|(_, selectors)| selectors.iter().all(holds));
        first.map_or(self.default, |(visibility, _)| *visibility)
    }
}

/// Whether a selector selects these labels.
pub(crate) fn matches(selector: &Selector, labels: &Labels) -> bool {
    selector.matches_with(|key| labels.get(key).map(|value| &**value))
}
