//! Custom resources to the Kubernetes objects of each component: a pure function of specification,
//! platform and version.
//!
//! ```text
//! defaults < profile < compatibility < platform < user's values ── merged as JSON ──▶ typed values
//!                                                                                        │
//!                                      settings (platform, release, images) ─────────────┴──▶ objects
//! ```
//!
//! The operator applies what comes out, `operator render` prints it, and `manifests/` holds it. The same
//! input gives the same bytes. Nothing here reads a file, a clock or the network.

pub mod cni;
pub mod decode;
pub mod image;
pub mod istiod;
pub mod layers;
pub mod meta;
mod node;
pub mod object;
mod pod;
pub mod rbac;
pub mod scc;
pub mod settings;
mod yaml;
pub mod ztunnel;

pub use self::{
    image::Distribution,
    object::{Kind, Object},
    settings::{Images, Platform, PlatformKind, Settings, TlsProfile},
};

/// The objects of a component, and what its author should know about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// In the order in which they are to be applied: accounts and rights before what needs them.
    pub objects: Vec<Object>,
    /// Values without effect, or with one that needs care.
    pub notes: Vec<Note>,
}

/// A value that was given and has no effect, or not the one that may be expected. Holds its path, such as
/// `pilot.autoscaleMax`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Note {
    /// Nobody knows it: misspelt, or of a newer version.
    #[error("spec.values.{0} is not known and has no effect")]
    Unknown(String),
    /// Istio has it and this distribution does not do what it asks for.
    #[error("spec.values.{path} has no effect: {why}")]
    WithoutEffect {
        /// The path of the value.
        path: String,
        /// Why not, and what to use instead.
        why: &'static str,
    },
    /// It has an effect that its author may not be aware of.
    #[error("spec.values.{path}: {what}")]
    Caution {
        /// The path of the value.
        path: String,
        /// What it does, and what to do about it.
        what: &'static str,
    },
}

/// Why nothing can be rendered. The author of the resource can repair it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value is of another kind than its path takes.
    #[error("spec.values.{path}: {problem}")]
    Value {
        /// The path of the value.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A profile that does not exist.
    #[error("spec.profile: there is no profile `{0}`: use one of {known}", known = layers::PROFILES.join(", "))]
    Profile(String),
    /// A profile for a control plane that runs elsewhere.
    #[error(
        "spec.profile: `{0}` is not supported: a cluster runs its own control plane, use `ambient`"
    )]
    ProfileRefused(String),
}

// === impl Note ===

impl Note {
    /// The path of the value below `spec.values`.
    pub fn path(&self) -> &str {
        match self {
            Self::Unknown(path) | Self::WithoutEffect { path, .. } | Self::Caution { path, .. } => {
                path
            }
        }
    }
}

// === impl Rendered ===

impl Rendered {
    /// What of it is of one of `kinds`.
    #[must_use]
    pub fn only(mut self, kinds: &[Kind]) -> Self {
        self.objects.retain(|object| kinds.contains(&object.kind));
        self
    }

    /// All objects as a stream of YAML documents. The same objects give the same bytes.
    pub fn to_yaml(&self) -> String {
        self.objects.iter().map(Object::to_yaml).collect()
    }
}
