//! The Istio and Gateway API types we read, their CRDs, and the vocabulary of labels, annotations and
//! conditions.
//!
//! Objects that are stored already may be worse than today's schema allows, so every type decodes
//! leniently: texts where the API has an enum or a number in a text, options where a field is required.
//! Whoever translates an object validates it. The schema of [`crds`] is strict: what we could not
//! translate is refused when it is applied.
//!
//! The schema holds every field of Istio's API, also those that only a waypoint reads. A schema that
//! kept unknown fields instead would store a misspelt one, and a policy whose only condition is misspelt
//! means something else than its author wrote.

pub mod annotations;
pub mod condition;
pub mod control_plane;
mod crd;
pub mod gateway;
pub mod labels;
pub mod mesh_config;
pub mod networking;
pub mod openshift;
pub mod sail;
mod schema;
pub mod security;
pub mod selector;
pub mod status;

pub use crd::{crds, gateway_stand_ins};
