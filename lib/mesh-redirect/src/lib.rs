//! Traffic redirection as data.
//!
//! A pod joins the mesh when its network namespace holds a few packet-filter rules and one policy
//! route. This crate says which: [`in_pod`] builds the rules as a [`RuleSet`], which is rendered for
//! nftables or iptables, compared with what a namespace really holds, and removed again. Nothing is
//! executed here: what comes out is text for `nft` or `iptables-restore`, and the caller runs it inside
//! the pod's namespace.
//!
//! The flow is the same for both backends, and [`Backend`] offers it in one shape:
//!
//! 1. run [`Backend::listing`] and keep its output;
//! 2. give it to [`Backend::apply`] or [`Backend::remove`] and run the resulting [`Command`]s, or to
//!    [`Backend::compare`] to learn whether the pod is enrolled and unharmed.
//!
//! Both are idempotent by construction: everything that is ours is replaced as a whole, and what belongs
//! to others is neither read for a decision nor touched.

pub mod backend;
pub mod compare;
pub mod contract;
pub mod iptables;
pub mod model;
pub mod netlink;
pub mod nftables;
pub mod options;
pub mod routing;
pub mod rules;

pub use backend::{Backend, Command};
pub use compare::{Difference, Verdict};
pub use model::RuleSet;
pub use options::{Families, Family, Options};
pub use routing::PolicyRoute;
pub use rules::{in_pod, on_host};
