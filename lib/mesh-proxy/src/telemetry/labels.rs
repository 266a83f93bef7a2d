//! The labels of the traffic counters, in the contract's order.

use std::{fmt::Write as _, sync::Arc};

use mesh_core::{identity::Identity, route::ServiceRef, workload::Workload};
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};

use crate::baggage::Baggage;

/// What the counters of a connection are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Which end reports.
    pub reporter: Reporter,
    /// The client.
    pub source: Peer,
    /// The server.
    pub destination: Peer,
    /// The service that was addressed.
    pub service: Option<Arc<ServiceRef>>,
    /// Why the connection failed.
    pub flag: ResponseFlag,
    /// Whether the connection crossed the network in a tunnel.
    pub security: SecurityPolicy,
}

/// One end of a connection; what is not known is told as `unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The owner's name.
    pub workload: Option<Arc<str>>,
    /// The canonical service; also the `app` label.
    pub service: Option<Arc<str>>,
    /// The canonical revision; also the `version` label.
    pub revision: Option<Arc<str>>,
    /// The namespace.
    pub namespace: Option<Arc<str>>,
    /// The identity.
    pub principal: Option<Identity>,
    /// The cluster.
    pub cluster: Option<Arc<str>>,
    /// The region.
    pub region: Option<Arc<str>>,
    /// The zone.
    pub zone: Option<Arc<str>>,
}

/// Which end of a connection reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's proxy.
    Source,
    /// The server's proxy.
    Destination,
}

/// Whether a connection crossed the network in a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecurityPolicy {
    /// It did not.
    Unknown,
    /// It did.
    MutualTls,
}

/// Why a connection failed, as the `response_flags` label says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseFlag {
    /// It did not, or it ended with a drain.
    None,
    /// A policy denied it.
    Deny,
    /// The other side could not be reached, or refused; and whatever has no flag of its own.
    Connect,
    /// TLS could not be agreed on.
    TlsFailure,
    /// HTTP/2 could not be agreed on.
    H2HandshakeFailure,
    /// The tunnel's port did not answer, as when a NetworkPolicy blocks it.
    NetworkPolicy,
    /// No certificate could be had.
    IdentityError,
}

/// What stands where nothing is known.
const UNKNOWN: &str = "unknown";

// === impl Labels ===

impl Labels {
    /// The same labels with a reason for failure.
    #[must_use]
    pub fn flagged(&self, flag: ResponseFlag) -> Self {
        Self {
            flag,
            ..self.clone()
        }
    }

    /// The same labels without what discovery or the peers themselves say of the two ends: only what they
    /// have proved is left, and of that nobody can make up more.
    #[must_use]
    pub fn proven(&self) -> Self {
        let proven = |peer: &Peer| Peer {
            principal: peer.principal.clone(),
            ..Peer::default()
        };
        Self {
            source: proven(&self.source),
            destination: proven(&self.destination),
            ..self.clone()
        }
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut out = Writer(encoder);
        out.text("reporter", self.reporter.as_str())?;
        out.peer(&self.source, &SOURCE)?;
        let service = self.service.as_deref();
        out.known("destination_service", service.map(|s| &*s.hostname))?;
        out.known(
            "destination_service_namespace",
            service.map(|s| &*s.namespace),
        )?;
        out.known("destination_service_name", service.map(|s| &*s.name))?;
        out.peer(&self.destination, &DESTINATION)?;
        out.text("request_protocol", "tcp")?;
        out.text("response_flags", self.flag.as_str())?;
        out.text("connection_security_policy", self.security.as_str())?;
        out.locality(&self.source, &SOURCE)?;
        out.locality(&self.destination, &DESTINATION)
    }
}

// === impl Peer ===

impl Peer {
    /// What discovery says about a workload; `principal` is what it proved, or is expected to prove.
    pub fn of_workload(workload: &Workload, principal: Option<Identity>) -> Self {
        Self {
            workload: known(&workload.workload_name),
            service: known(&workload.canonical_name),
            revision: known(&workload.canonical_revision),
            namespace: known(&workload.namespace),
            principal,
            cluster: known(&workload.cluster_id),
            region: known(&workload.locality.region),
            zone: known(&workload.locality.zone),
        }
    }

    /// What a peer says about itself; `principal` is what it proved.
    pub fn of_baggage(baggage: Baggage, principal: Option<Identity>) -> Self {
        Self {
            workload: baggage.workload,
            service: baggage.service,
            revision: baggage.revision,
            namespace: baggage.namespace,
            principal,
            cluster: baggage.cluster,
            region: baggage.region,
            zone: baggage.zone,
        }
    }
}

fn known(text: &Arc<str>) -> Option<Arc<str>> {
    Some(text).filter(|text| !text.is_empty()).cloned()
}

// === impl Reporter, SecurityPolicy, ResponseFlag ===

impl Reporter {
    /// As the label says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }

    /// As the access log says it.
    pub fn direction(self) -> &'static str {
        match self {
            Self::Source => "outbound",
            Self::Destination => "inbound",
        }
    }
}

impl SecurityPolicy {
    /// As the label says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => UNKNOWN,
            Self::MutualTls => "mutual_tls",
        }
    }
}

impl ResponseFlag {
    /// As the label says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
        }
    }
}

/// The names of one end's labels.
struct Names {
    workload: &'static str,
    canonical_service: &'static str,
    canonical_revision: &'static str,
    namespace: &'static str,
    principal: &'static str,
    app: &'static str,
    version: &'static str,
    cluster: &'static str,
    region: &'static str,
    zone: &'static str,
}

const SOURCE: Names = Names {
    workload: "source_workload",
    canonical_service: "source_canonical_service",
    canonical_revision: "source_canonical_revision",
    namespace: "source_workload_namespace",
    principal: "source_principal",
    app: "source_app",
    version: "source_version",
    cluster: "source_cluster",
    region: "source_region",
    zone: "source_zone",
};

const DESTINATION: Names = Names {
    workload: "destination_workload",
    canonical_service: "destination_canonical_service",
    canonical_revision: "destination_canonical_revision",
    namespace: "destination_workload_namespace",
    principal: "destination_principal",
    app: "destination_app",
    version: "destination_version",
    cluster: "destination_cluster",
    region: "destination_region",
    zone: "destination_zone",
};

struct Writer<'a, 'b>(&'a mut LabelSetEncoder<'b>);

impl Writer<'_, '_> {
    fn peer(&mut self, peer: &Peer, names: &Names) -> std::fmt::Result {
        self.known(names.workload, peer.workload.as_deref())?;
        self.known(names.canonical_service, peer.service.as_deref())?;
        self.known(names.canonical_revision, peer.revision.as_deref())?;
        self.known(names.namespace, peer.namespace.as_deref())?;
        match &peer.principal {
            Some(principal) => self.label(names.principal, principal)?,
            None => self.text(names.principal, UNKNOWN)?,
        }
        self.known(names.app, peer.service.as_deref())?;
        self.known(names.version, peer.revision.as_deref())?;
        self.known(names.cluster, peer.cluster.as_deref())
    }

    fn locality(&mut self, peer: &Peer, names: &Names) -> std::fmt::Result {
        self.known(names.region, peer.region.as_deref())?;
        self.known(names.zone, peer.zone.as_deref())
    }

    fn known(&mut self, name: &str, value: Option<&str>) -> std::fmt::Result {
        self.text(name, value.unwrap_or(UNKNOWN))
    }

    fn text(&mut self, name: &str, value: &str) -> std::fmt::Result {
        self.label(name, value)
    }

    fn label(&mut self, name: &str, value: impl std::fmt::Display) -> std::fmt::Result {
        let mut label = self.0.encode_label();
        let mut key = label.encode_label_key()?;
        key.write_str(name)?;
        let mut text = key.encode_label_value()?;
        write!(text, "{value}")?;
        text.finish()
    }
}
