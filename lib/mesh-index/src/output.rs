//! What comes out: changes for the proxies, conditions for the users, and what was wrong with the input.

use std::{net::IpAddr, sync::Arc};

use mesh_core::change::Change;
use serde::Serialize;

use crate::object::{Key, Kind};

/// What differs from the last time it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// For discovery: policies first, then services, then workloads; removals last.
    pub changes: Vec<Change>,
    /// For the objects' status; only the leader writes them.
    pub statuses: Vec<StatusUpdate>,
    /// What was wrong with objects that came in, once for each time that it came or changed.
    pub problems: Vec<Problem>,
}

/// What the mesh has to say about an object in its status.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StatusUpdate {
    /// The object's kind.
    pub kind: Kind,
    /// The object.
    pub key: Key,
    /// The generation that was looked at; 0 for kinds without generations.
    pub generation: i64,
    /// The field manager to write as, one of [`mesh_api::condition::reporter`] or
    /// [`ADDRESS_REPORTER`]. It owns exactly what this update holds.
    pub reporter: &'static str,
    /// All conditions of this reporter; none to withdraw what it wrote before.
    pub conditions: Vec<Condition>,
    /// All addresses that are allocated to a ServiceEntry, in order; empty in every other update.
    pub addresses: Vec<AllocatedAddress>,
}

/// One condition, without the times that only the writer knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Condition {
    /// The condition's type, such as `istio.io/WaypointBound`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whether it holds.
    pub status: bool,
    /// A word for machines.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// A virtual address that belongs to one host of a ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct AllocatedAddress {
    /// The host.
    pub host: Arc<str>,
    /// The address.
    pub value: IpAddr,
}

/// Something in an object that could not be used. Whoever wrote the object can repair it; until then the
/// part that is named here is not in force, and nothing is opened because of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, thiserror::Error)]
#[error("{kind} {key}: {field}: {reason}")]
pub struct Problem {
    /// The object's kind.
    pub kind: Kind,
    /// The object.
    pub key: Key,
    /// The path of the field, such as `spec.hosts[3]`.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub reason: String,
}

/// Field manager of the addresses of ServiceEntries.
pub const ADDRESS_REPORTER: &str = "istio-ip-autoallocate";
