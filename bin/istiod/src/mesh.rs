//! The mesh configuration: read at the start, and again whenever its ConfigMap changes.

use std::{path::Path, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use mesh_api::{
    control_plane::{MESH_CONFIG_MAP, suffixed},
    mesh_config::{self, MeshConfig, Warning},
};
use mesh_index::{Settings, settings::WaypointUnready};
use mesh_kube::{
    error::Explained,
    watch::{self, Event},
};
use serde::Serialize;
use tokio::sync::watch as state;

use crate::{authn::TrustDomains, config::Config, metrics::Metrics, world::World};

/// The configuration in force.
#[derive(Clone, Debug)]
pub(crate) struct Mesh {
    pub(crate) config: Arc<MeshConfig>,
    /// Where it comes from, in words.
    pub(crate) origin: Arc<str>,
    /// Why a newer one is not in force.
    pub(crate) refused: Option<Arc<str>>,
}

/// What `/debug/mesh` shows.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dump {
    origin: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Arc<str>>,
    trust_domain: String,
    trust_domain_aliases: Vec<String>,
    root_namespace: String,
    discovery_selectors: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
}

/// Tells the parts of the program what is in force. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct InForce {
    mesh: state::Sender<Mesh>,
    domains: state::Sender<TrustDomains>,
    /// Grows with each configuration.
    generation: state::Sender<u64>,
}

/// Follows the ConfigMap and puts what it says in force.
#[derive(Debug)]
pub(crate) struct Follower {
    config: Arc<Config>,
    world: World,
    in_force: InForce,
    metrics: Metrics,
}

/// Why there is no configuration to start with. Whoever wrote the file is at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is there and cannot be read.
    #[error("reading the mesh configuration {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a mesh configuration.
    #[error("reading the mesh configuration {path}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: mesh_config::Error,
    },
}

/// The key of the ConfigMap.
const KEY: &str = "mesh";

/// The name of the ConfigMap.
pub(crate) fn config_map(config: &Config) -> String {
    suffixed(MESH_CONFIG_MAP, &config.revision)
}

/// The configuration until the ConfigMap is seen, and where there is none: the file's, or the defaults.
pub(crate) fn initial(config: &Config) -> Result<Mesh, Error> {
    let path = config.mesh_file.display().to_string();
    let text = match read(&config.mesh_file) {
        Ok(Some(text)) => text,
        Ok(None) => {
            return Ok(Mesh {
                config: Arc::new(with_namespace(config)),
                origin: "defaults".into(),
                refused: None,
            });
        }
        Err(source) => return Err(Error::Read { path, source }),
    };
    match mesh_config::parse(&text) {
        Ok(parsed) => {
            warn(&path, &parsed.warnings);
            Ok(Mesh {
                config: Arc::new(parsed.config),
                origin: path.into(),
                refused: None,
            })
        }
        Err(source) => Err(Error::Content { path, source }),
    }
}

/// The defaults in a control plane that is not in `istio-system`: its namespace is then the root.
fn with_namespace(config: &Config) -> MeshConfig {
    MeshConfig {
        root_namespace: config.pod.namespace.to_string(),
        ..MeshConfig::default()
    }
}

fn read(path: &Path) -> std::io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn warn(origin: &str, warnings: &[Warning]) {
    for warning in warnings {
        tracing::warn!(origin, %warning, "mesh configuration");
    }
}

/// What the index has to know of it.
pub(crate) fn settings(config: &Config, mesh: &MeshConfig) -> Settings {
    Settings {
        cluster_id: config.cluster_id.to_string(),
        domain: config.domain.to_string(),
        trust_domain: mesh.trust_domain.clone(),
        trust_domain_aliases: mesh.trust_domain_aliases.clone(),
        root_namespace: mesh.root_namespace.clone(),
        system_namespace: config.pod.namespace.to_string(),
        discovery_selectors: mesh.discovery_selectors.clone(),
        service_entry_visibility: mesh.service_entry_visibility.clone(),
        allocate_addresses: config.features.allocate_addresses,
        waypoint_unready: if config.features.bypass_unready_waypoints {
            WaypointUnready::Bypass
        } else {
            WaypointUnready::Close
        },
        dry_run_policies: config.features.dry_run_policies,
    }
}

// === impl Mesh ===

impl Mesh {
    pub(crate) fn dump(&self) -> Dump {
        Dump {
            origin: self.origin.clone(),
            refused: self.refused.clone(),
            trust_domain: self.config.trust_domain.clone(),
            trust_domain_aliases: self.config.trust_domain_aliases.clone(),
            root_namespace: self.config.root_namespace.clone(),
            discovery_selectors: self.config.discovery_selectors.clone(),
        }
    }
}

// === impl InForce ===

impl InForce {
    pub(crate) fn new(mesh: Mesh) -> Self {
        Self {
            domains: state::Sender::new(trust_domains(&mesh.config)),
            mesh: state::Sender::new(mesh),
            generation: state::Sender::new(0),
        }
    }

    pub(crate) fn mesh(&self) -> state::Receiver<Mesh> {
        self.mesh.subscribe()
    }

    pub(crate) fn trust_domains(&self) -> state::Receiver<TrustDomains> {
        self.domains.subscribe()
    }

    pub(crate) fn generation(&self) -> state::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Says whether anything is different now.
    fn replace(&self, new: Mesh) -> bool {
        let domains = trust_domains(&new.config);
        let changed = self.mesh.send_if_modified(|mesh| {
            let changed =
                mesh.config != new.config || mesh.origin != new.origin || mesh.refused.is_some();
            *mesh = new;
            changed
        });
        if changed {
            self.domains.send_replace(domains);
            self.generation.send_modify(|generation| *generation += 1);
        }
        changed
    }

    fn refuse(&self, reason: Arc<str>) {
        self.mesh.send_modify(|mesh| mesh.refused = Some(reason));
    }
}

fn trust_domains(config: &MeshConfig) -> TrustDomains {
    let aliases = config.trust_domain_aliases.iter();
    TrustDomains {
        own: config.trust_domain.as_str().into(),
        aliases: aliases.map(|alias| alias.as_str().into()).collect(),
    }
}

// === impl Follower ===

impl Follower {
    pub(crate) fn new(
        config: Arc<Config>,
        world: World,
        in_force: InForce,
        metrics: Metrics,
    ) -> Self {
        Self {
            config,
            world,
            in_force,
            metrics,
        }
    }

    fn take(&self, object: &ConfigMap) {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let origin = format!("ConfigMap {}/{name}", self.config.pod.namespace);
        let text = object.data.as_ref().and_then(|data| data.get(KEY));
        let parsed = match text {
            None => Err(format!("it has no key `{KEY}`")),
            Some(text) => mesh_config::parse(text).map_err(|e| Explained(&e).to_string()),
        };
        match parsed {
            Ok(parsed) => {
                warn(&origin, &parsed.warnings);
                self.metrics.mesh_config(true);
                self.put_in_force(parsed.config, origin);
            }
            Err(reason) => {
                self.metrics.mesh_config(false);
                tracing::error!(origin, reason, "the mesh configuration is not in force");
                let refused = format!("{origin}: {reason}").into();
                self.in_force.refuse(refused);
            }
        }
    }

    fn put_in_force(&self, config: MeshConfig, origin: String) {
        let mesh = Mesh {
            config: Arc::new(config),
            origin: origin.into(),
            refused: None,
        };
        if self.in_force.replace(mesh.clone()) {
            let Mesh { config, origin, .. } = mesh;
            tracing::info!(%origin, trust_domain = config.trust_domain, "mesh configuration");
            self.world.configure(settings(&self.config, &config));
        }
    }
}

impl watch::Index<ConfigMap> for Follower {
    fn update(&mut self, events: Vec<Event<ConfigMap>>) {
        let ours = config_map(&self.config);
        for event in events {
            match event {
                Event::Apply(object) if object.metadata.name.as_ref() == Some(&ours) => {
                    self.take(&object);
                }
                // A mesh that loses its configuration keeps the one it has.
                Event::Delete(key) if key.name == ours => {
                    tracing::warn!(
                        config_map = ours,
                        "the mesh configuration is gone; what it said stays in force"
                    );
                }
                _ => {}
            }
        }
    }
}
