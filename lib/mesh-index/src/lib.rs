//! Kubernetes and Istio objects to workloads, services and policies: pure indexes.
//!
//! Objects go in by [`Index::apply`], [`Index::delete`] and [`Index::reset`]; what proxies and users must
//! hear of comes out of [`Index::drain`]. No async, no client, no clock: every rule of discovery is a
//! function of the objects, and the order in which they came does not matter.

mod allocate;
mod build;
mod cluster;
pub mod dump;
pub mod index;
pub mod object;
pub mod output;
pub mod placement;
pub mod policy;
mod published;
mod record;
mod selector;
pub mod settings;
mod text;
mod unit;

pub use index::Index;
pub use object::{Key, Kind, Object};
pub use output::Output;
pub use placement::Placement;
pub use settings::Settings;
