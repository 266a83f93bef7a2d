//! The reconcilers in a cluster that does what they say.

mod fixture;
mod istio;
mod life;
mod node;
mod refusals;
mod revision;
