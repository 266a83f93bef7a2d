//! `/debug/syncz`: which proxies are connected, and whether they have what was sent.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mesh_xds::server::{Connection, Mode, Moment, Streams, TypeStatus};
use serde::Serialize;

/// One proxy.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Proxy {
    /// The proxy's name for itself.
    #[serde(rename = "proxy")]
    id: String,
    identity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    version: String,
    connected_at: Timestamp,
    types: BTreeMap<String, Type>,
}

/// One type of resource on a proxy's stream.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Type {
    /// `SYNCED`, `STALE` while a response is not acknowledged, `NOT SENT`, `ERROR` after a refusal.
    status: &'static str,
    /// `*`, or how many names.
    subscribed: String,
    resources_sent: u64,
    removals_sent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_sent: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_acknowledged: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// All connected proxies.
pub(crate) fn show(streams: &Streams) -> Vec<Proxy> {
    streams.snapshot().into_iter().map(Proxy::from).collect()
}

impl From<Connection> for Proxy {
    fn from(connection: Connection) -> Self {
        let types = connection.types.into_iter();
        Self {
            id: connection.node,
            identity: connection.client.identity.to_string(),
            node: connection.client.node.map(|node| node.to_string()),
            address: connection.client.address.map(|address| address.to_string()),
            version: connection.version,
            connected_at: time(connection.since),
            types: types
                .map(|(url, status)| (url, Type::from(status)))
                .collect(),
        }
    }
}

impl From<TypeStatus> for Type {
    fn from(status: TypeStatus) -> Self {
        let at = |moment: &Option<Moment>| moment.as_ref().map(|moment| time(moment.at));
        Self {
            status: word(&status),
            subscribed: match status.mode {
                Mode::Everything => "*".to_owned(),
                Mode::Names(count) => count.to_string(),
            },
            resources_sent: status.resources,
            removals_sent: status.removals,
            last_sent: at(&status.sent),
            last_acknowledged: at(&status.acknowledged),
            refused: status.refused.map(|refused| refused.text),
        }
    }
}

fn word(status: &TypeStatus) -> &'static str {
    let text = |moment: &Option<Moment>| moment.as_ref().map(|moment| moment.text.clone());
    let refused = status.refused.as_ref().map(|refused| refused.at);
    let acknowledged = status.acknowledged.as_ref().map(|moment| moment.at);
    match (text(&status.sent), text(&status.acknowledged)) {
        (None, _) => "NOT SENT",
        (sent, acknowledged) if sent != acknowledged => "STALE",
        _ if refused.is_some() && refused >= acknowledged => "ERROR",
        _ => "SYNCED",
    }
}

fn time(at: std::time::SystemTime) -> Timestamp {
    Timestamp::try_from(at).unwrap_or_default()
}
