//! What the mesh configuration and the program's flags say about discovery.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

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
    /// Namespaces that are looked at: those that match any of these; all if there are none.
    pub discovery_selectors: Vec<LabelSelector>,
    /// Who sees a ServiceEntry that does not say so itself.
    pub service_entry_visibility: EntryVisibility,
    /// Whether virtual addresses are given to ServiceEntries that have none.
    pub allocate_addresses: bool,
    /// What happens to traffic whose waypoint cannot take it.
    pub waypoint_unready: WaypointUnready,
    /// Whether policies on trial (`istio.io/dry-run`) are published, to be logged and not enforced.
    /// Proxies older than 1.29 enforce them.
    pub dry_run_policies: bool,
}

/// Who sees a ServiceEntry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EntryVisibility {
    /// Everyone.
    #[default]
    Public,
    /// Clients of its own namespace.
    Namespace,
    /// Nobody: it is not published.
    None,
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
            service_entry_visibility: EntryVisibility::Public,
            allocate_addresses: true,
            waypoint_unready: WaypointUnready::Close,
            dry_run_policies: false,
        }
    }
}
