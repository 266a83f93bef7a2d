//! Nodes: where they are, and whether they are alive.

use k8s_openapi::api::core::v1;
use mesh_api::labels;
use mesh_core::workload::Locality;

use super::Reader;

/// What is kept of a node. A heartbeat changes none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// Where the node is.
    pub(crate) locality: Locality,
    /// Whether the cluster has lost the node: it says that it is not ready, or nothing is heard of it.
    /// A node that has not said anything yet counts as alive.
    pub(crate) lost: bool,
}

impl Node {
    pub(crate) fn read(node: &v1::Node, reader: &mut Reader<'_>) -> Self {
        let known = reader.labels(&node.metadata);
        let mut part = |key| match known.get(key) {
            Some(value) => value.clone(),
            None => reader.text(""),
        };
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        Self {
            locality: Locality {
                region: part(labels::REGION),
                zone: part(labels::ZONE),
                subzone: part(labels::SUBZONE),
            },
            lost: conditions.any(|c| c.type_ == "Ready" && c.status != "True"),
        }
    }
}
