//! Names that the operator puts on what it makes.

/// The operator's field manager, and the value of [`MANAGED_BY`] on what it makes.
pub const MANAGER: &str = mesh_api::sail::OPERATOR;

/// Kubernetes' label for what manages an object. Only objects that carry it with [`MANAGER`] are watched.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Sail's label on what it makes, with [`SAIL`]: kept, so that its users' scripts find the objects, and
/// honoured, so that what Sail has made is taken over.
pub const MANAGED_BY_SAIL: &str = "managed-by";
/// The value of [`MANAGED_BY_SAIL`].
pub const SAIL: &str = "sail-operator";

/// The Lease of the replica that leads: Sail's, so that the two operators never work at the same time.
pub const LOCK: &str = "sail-operator-lock";
