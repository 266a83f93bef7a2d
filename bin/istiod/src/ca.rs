//! The certificate authority: where its root comes from and how it is replaced, who gets which
//! certificate, and how the cluster learns what to trust.
//!
//! ```text
//! cacerts files or ──▶ keeper ──▶ issuer ──▶ certificates of workloads (who: authorizer)
//! istio-ca-secret        │          ├──────▶ own serving certificate
//!                    rotation       └──────▶ istio-ca-root-cert in each namespace (leader)
//! ```

pub mod authorizer;
pub mod files;
pub mod keeper;
pub mod material;
pub mod metrics;
pub mod namespaces;
pub mod rotation;
pub mod secret;
pub mod serving;

pub use self::{
    authorizer::NodeAuthorizer,
    keeper::{Authority, Keeper, Settings},
    metrics::Metrics,
};
