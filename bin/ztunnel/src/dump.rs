//! `/config_dump`: all that this process knows, in the form that `istioctl ztunnel-config` reads.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use jiff::Timestamp;
use mesh_identity::{
    CertManager,
    facts::Facts,
    manager::{Entry, State},
};
use mesh_state::{dump::Dump, snapshot::Snapshot, store::Store};
use serde::{Serialize, Serializer};

use crate::{
    config::Config,
    pods::{PodDump, Views},
    version::Version,
};

/// Where the parts of a dump come from.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Store,
    pub(crate) certificates: CertManager,
    pub(crate) pods: Views,
}

/// One dump, taken at one moment.
#[derive(Debug)]
pub(crate) struct ConfigDump {
    snapshot: Arc<Snapshot>,
    config: Arc<Config>,
    certificates: Vec<CertificateDump>,
    pods: BTreeMap<Arc<str>, PodDump>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    #[serde(flatten)]
    state: Dump<'a>,
    version: VersionDump<'a>,
    config: &'a Config,
    certificates: &'a [CertificateDump],
    workload_state: &'a BTreeMap<Arc<str>, PodDump>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionDump<'a> {
    #[serde(flatten)]
    build: Version,
    /// Of the mesh, as the deployment says it.
    istio_version: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateDump {
    identity: String,
    state: String,
    cert_chain: Vec<FactsDump>,
    root_certs: Vec<FactsDump>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FactsDump {
    pem: String,
    serial_number: String,
    valid_from: String,
    expiration_time: String,
}

// === impl Sources ===

impl Sources {
    /// Collects a dump.
    pub(crate) fn collect(&self) -> ConfigDump {
        let mut certificates = self.certificates.dump();
        certificates.sort_by(|a, b| a.identity.cmp(&b.identity));
        ConfigDump {
            snapshot: self.store.snapshot(),
            config: self.config.clone(),
            certificates: certificates.iter().map(CertificateDump::from).collect(),
            pods: self.pods.dump(),
        }
    }
}

// === impl ConfigDump ===

impl Serialize for ConfigDump {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let istio_version = self.config.node.metadata.get("ISTIO_VERSION");
        let istio_version = istio_version.and_then(serde_json::Value::as_str);
        let view = View {
            state: self.snapshot.dump(),
            version: VersionDump {
                build: Version::of_this_build(),
                istio_version: istio_version.unwrap_or("unknown"),
            },
            config: &self.config,
            certificates: &self.certificates,
            workload_state: &self.pods,
        };
        view.serialize(serializer)
    }
}

// === impl CertificateDump ===

impl From<&Entry> for CertificateDump {
    fn from(entry: &Entry) -> Self {
        let facts = |facts: Vec<Facts>| facts.into_iter().map(FactsDump::from).collect();
        let certificate = entry.certificate.as_ref();
        Self {
            identity: entry.identity.to_string(),
            state: match &entry.state {
                State::Initializing => "Initializing".to_owned(),
                State::Available => "Available".to_owned(),
                State::Unavailable(None) => "Unavailable".to_owned(),
                State::Unavailable(Some(error)) => format!("Unavailable: {error}"),
            },
            cert_chain: facts(certificate.map(|c| c.chain()).unwrap_or_default()),
            root_certs: facts(certificate.map(|c| c.roots()).unwrap_or_default()),
        }
    }
}

// === impl FactsDump ===

impl From<Facts> for FactsDump {
    fn from(facts: Facts) -> Self {
        Self {
            pem: openssl::base64::encode_block(facts.pem.as_bytes()),
            serial_number: facts.serial,
            valid_from: rfc3339(facts.not_before),
            expiration_time: rfc3339(facts.not_after),
        }
    }
}

fn rfc3339(time: SystemTime) -> String {
    Timestamp::try_from(time)
        .map(|time| time.to_string())
        .unwrap_or_default()
}
