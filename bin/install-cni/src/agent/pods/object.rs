//! Pods and namespaces as the API server sends them: what is not needed is never decoded.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1 as core;
use kube::{
    Resource,
    core::{ObjectMeta, PartialObjectMeta},
};
use mesh_core::workload::PodInfo;
use serde::Deserialize;

use super::{Pod, annotations::Annotations};

/// Of a namespace the metadata alone is asked for.
pub(crate) type NamespaceObject = PartialObjectMeta<core::Namespace>;

/// A pod, as it is sent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodObject {
    metadata: ObjectMeta,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    service_account_name: Option<String>,
    host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

/// The kubelet's own UID of a static pod, on the mirror that the API server has of it.
const STATIC_UID: &str = "kubernetes.io/config.hash";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The account of a pod that names none.
const DEFAULT_ACCOUNT: &str = "default";

impl Resource for PodObject {
    type DynamicType = ();
    type Scope = <core::Pod as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        core::Pod::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        core::Pod::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        core::Pod::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        core::Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

// === impl PodObject ===

impl PodObject {
    /// What is kept of it. None for an object without the names that every object has.
    pub(crate) fn into_pod(self) -> Option<Pod> {
        let Self {
            metadata,
            spec,
            status,
        } = self;
        let annotations = metadata.annotations.unwrap_or_default();
        let mirrored = annotations.contains_key(MIRROR);
        let static_uid = annotations.get(STATIC_UID).filter(|_| mirrored);
        let account = spec.service_account_name.filter(|name| !name.is_empty());
        let account = account.as_deref().unwrap_or(DEFAULT_ACCOUNT);
        Some(Pod {
            uid: metadata.uid?.into(),
            static_uid: static_uid.map(|uid| Arc::from(&**uid)),
            info: PodInfo {
                name: metadata.name?.into(),
                namespace: metadata.namespace?.into(),
                service_account: account.into(),
            },
            labels: metadata.labels.unwrap_or_default(),
            annotations: Annotations::read(&annotations),
            host_network: spec.host_network,
            ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            deleting: metadata.deletion_timestamp.is_some(),
            addresses: addresses(&status),
            version: version(metadata.resource_version.as_deref()),
        })
    }
}

fn addresses(status: &Status) -> std::collections::BTreeSet<IpAddr> {
    let listed = status.pod_ips.iter().map(|entry| entry.ip.as_str());
    let all = listed.chain(status.pod_ip.as_deref());
    let parsed = all.filter_map(|text| text.parse::<IpAddr>().ok());
    parsed.map(|address| address.to_canonical()).collect()
}

/// A resource version as a number, as every API server counts; 0 if it does not.
pub(crate) fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}
