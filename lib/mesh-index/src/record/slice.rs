//! EndpointSlices: the endpoints of services that no pod selector finds.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::discovery::v1;
use mesh_api::labels;

use super::{Reader, pod::is_tcp};
use crate::text::NamedPort;

/// What is kept of an EndpointSlice that belongs to a service. Endpoints that are pods are kept by name:
/// their addresses and health are the pods' own, so that a rollout does not change the slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The service, in the slice's namespace.
    pub(crate) service: Arc<str>,
    /// The ports by the names that the service gives them.
    pub(crate) ports: Arc<[NamedPort]>,
    /// Endpoints that are pods, by name, in order.
    pub(crate) pods: Box<[Arc<str>]>,
    /// All other endpoints, in order of their addresses.
    pub(crate) endpoints: Box<[Endpoint]>,
}

/// An endpoint that is no pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) ready: bool,
}

/// Endpoints of a slice that are looked at; Kubernetes allows as many.
const MAX_ENDPOINTS: usize = 1000;
/// Ports of a slice that are looked at; Kubernetes allows 100.
const MAX_PORTS: usize = 100;

impl Slice {
    /// What is kept of a slice; nothing if it belongs to no service or holds names instead of addresses.
    pub(crate) fn read(slice: &v1::EndpointSlice, reader: &mut Reader<'_>) -> Option<Self> {
        let service = slice.metadata.labels.as_ref()?.get(labels::SERVICE_NAME)?;
        if slice.address_type == "FQDN" || service.is_empty() {
            return None;
        }
        let mut pods = Vec::new();
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let all = reader.bounded("endpoints", &slice.endpoints, MAX_ENDPOINTS);
        for (at, endpoint) in all.iter().enumerate() {
            let target = endpoint.target_ref.as_ref();
            match target.filter(|target| target.kind.as_deref() == Some("Pod")) {
                Some(pod) => {
                    let own = |namespace: &str| *namespace == *reader.key().namespace;
                    if pod.namespace.as_deref().is_some_and(|n| !own(n)) {
                        reader.problem(
                            format!("endpoints[{at}].targetRef.namespace"),
                            "is another namespace than the slice's: such an endpoint is not used",
                        );
                        continue;
                    }
                    let name = pod.name.as_deref();
                    pods.extend(name.map(|name| reader.text(name)));
                }
                None => endpoints.extend(other(at, endpoint, reader)),
            }
        }
        pods.sort_unstable();
        pods.dedup();
        endpoints.sort_unstable();
        // Ready sorts last, and one endpoint that is ready makes its address so.
        endpoints.reverse();
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        Some(Self {
            service: reader.text(service),
            ports: ports(slice, reader),
            pods: pods.into(),
            endpoints: endpoints.into(),
        })
    }

    /// The number of the port that the service calls `name`.
    pub(crate) fn port(&self, name: &str) -> Option<u16> {
        let mut ports = self.ports.iter();
        ports.find(|port| *port.name == *name).map(|p| p.number)
    }
}

/// All addresses of an endpoint lead to the same place; consumers take the first.
fn other(at: usize, endpoint: &v1::Endpoint, reader: &mut Reader<'_>) -> Option<Endpoint> {
    let text = endpoint.addresses.first()?;
    let address = reader.ip(&format!("endpoints[{at}].addresses[0]"), text)?;
    let ready = endpoint.conditions.as_ref().and_then(|c| c.ready);
    Some(Endpoint {
        address,
        ready: ready.unwrap_or(true),
    })
}

fn ports(slice: &v1::EndpointSlice, reader: &mut Reader<'_>) -> Arc<[NamedPort]> {
    let all = slice.ports.as_deref().unwrap_or_default();
    let mut ports = Vec::new();
    for (at, port) in reader.bounded("ports", all, MAX_PORTS).iter().enumerate() {
        let (Some(number), true) = (port.port, is_tcp(port.protocol.as_deref())) else {
            continue;
        };
        let number = reader.port(&format!("ports[{at}].port"), number.into());
        let name = reader.optional(port.name.as_deref());
        ports.extend(number.map(|number| NamedPort { name, number }));
    }
    reader.texts().ports(ports)
}
