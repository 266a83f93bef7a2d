//! Namespaces: what their objects inherit, and whether they are looked at.

use std::sync::Arc;

use k8s_openapi::api::core::v1;
use mesh_api::labels;

use super::{
    Reader,
    binding::{Binding, Choice},
    service::{Distribution, distribution},
};
use crate::text::Labels;

/// What is kept of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Namespace {
    /// For discovery selectors and for Gateways that choose whom they serve.
    pub(crate) labels: Labels,
    /// The waypoint of objects that do not choose one.
    pub(crate) binding: Option<Box<Binding>>,
    /// The preference of services that do not state one.
    pub(crate) distribution: Option<Distribution>,
}

impl Namespace {
    pub(crate) fn read(namespace: &v1::Namespace, reader: &mut Reader<'_>) -> Self {
        let meta = &namespace.metadata;
        let name = reader.key().name.clone();
        Self {
            labels: reader.labels(meta),
            binding: Binding::read(meta, &name, reader),
            distribution: distribution(meta, reader),
        }
    }

    /// The network that this namespace names, if it is the control plane's.
    pub(crate) fn network(&self) -> Option<&Arc<str>> {
        self.labels.get(labels::NETWORK)
    }

    /// The Gateway that objects of this namespace use unless they choose otherwise.
    pub(crate) fn waypoint(&self) -> Option<String> {
        match &self.binding.as_ref()?.choice {
            Choice::Gateway(gateway) => Some(gateway.to_string()),
            Choice::Inherit | Choice::OptOut => None,
        }
    }
}
