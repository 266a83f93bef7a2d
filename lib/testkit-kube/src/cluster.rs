//! What the verbs do to objects: admission, storage, and what controllers make of it.
//!
//! A cluster's controllers run here within the write that concerns them: when a write is answered, its
//! namespace has its service account, its dependents are gone, its CRD is served. Nothing happens later on
//! its own, which a real cluster does not promise and a test may enjoy. All writes take turns.

mod admit;
mod builtin;
mod collect;
mod definition;
mod delete;
mod namespace;
mod patch;
mod scale;
mod service;
mod update;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    auth::{Authority, User},
    convert,
    registry::{Registry, Resource},
    status::Status,
    store::Store,
};

pub use delete::{DeleteOptions, Propagation, Removal};
pub use patch::Patch;

/// The state of one API server, and the rules for changing it.
#[derive(Debug)]
pub struct Cluster {
    /// The objects.
    pub store: Store,
    /// The resources.
    pub registry: Registry,
    /// Who callers are and what they may do.
    pub authority: Authority,
    turn: Mutex<Turn>,
    graceful: AtomicBool,
}

/// A request about one resource, decoded and authorized.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Who asks.
    pub user: &'a User,
    /// About what.
    pub resource: &'a Resource,
    /// Empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// Empty for creations and collections.
    pub name: &'a str,
    /// `status` and the like, or empty.
    pub subresource: &'a str,
    /// How.
    pub options: &'a Options,
    /// Whether it is a server-side apply, which keeps its own books of fields.
    pub applies: bool,
}

/// What only the one whose turn it is to write may touch.
#[derive(Debug, Default)]
struct Turn {
    addresses: service::Addresses,
}

/// How to write.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Answer as if it had been done.
    pub dry_run: bool,
    /// The field manager.
    pub manager: String,
    /// What to do about fields that the schema does not know.
    pub unknown_fields: UnknownFields,
    /// Keys that the body has twice, by their paths: treated like unknown fields.
    pub duplicates: Vec<String>,
    /// Take fields from other managers.
    pub force: bool,
}

/// What `fieldValidation` asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnknownFields {
    /// Drop them.
    Ignore,
    /// Drop them and say so.
    #[default]
    Warn,
    /// Refuse the object.
    Strict,
}

/// What a write came to.
#[derive(Debug)]
pub struct Outcome {
    /// The object in the version of the call.
    pub object: Value,
    /// Whether it is new.
    pub created: bool,
    /// For the `Warning` headers.
    pub warnings: Vec<String>,
}

/// How often a generated name is tried.
const NAME_ATTEMPTS: usize = 8;
/// The letters of generated names, as in a cluster: no vowels, no words.
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

// === impl Cluster ===

impl Cluster {
    /// A new cluster with its system namespaces and roles.
    pub fn new(authority: Authority, store: Store) -> Self {
        let cluster = Self {
            store,
            registry: Registry::default(),
            authority,
            turn: Mutex::default(),
            graceful: AtomicBool::new(false),
        };
        cluster.bootstrap();
        cluster
    }

    /// From now on there are nodes: pods that run on one are deleted when somebody deletes them with no
    /// grace, as a kubelet does after their containers have ended.
    pub fn delete_pods_gracefully(&self) {
        self.graceful.store(true, Ordering::Relaxed);
    }

    fn deletes_gracefully(&self) -> bool {
        self.graceful.load(Ordering::Relaxed)
    }

    /// One object in the version of the call.
    pub fn get(&self, call: &Call<'_>) -> Result<Value, Status> {
        let live = self.live(call)?;
        if call.subresource == "scale" {
            return Ok(scale::of(&live));
        }
        Ok(Value::clone(&convert::present(call.resource, &live)))
    }

    /// Creates an object.
    pub fn create(&self, call: &Call<'_>, mut object: Value) -> Result<Outcome, Status> {
        let mut turn = self.turn.lock();
        let warnings = admit::decode(call, &mut object, admit::Encoding::Object)?;
        if !crate::meta::text(&object, "resourceVersion").is_empty() {
            let message = "resourceVersion should not be set on objects to be created";
            // As in a cluster, where nobody gave it a reason.
            return Err(Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", message));
        }
        self.create_decoded(call, object, &mut turn)
            .map(|object| Outcome {
                object,
                created: true,
                warnings,
            })
    }

    fn create_decoded(
        &self,
        call: &Call<'_>,
        mut object: Value,
        turn: &mut Turn,
    ) -> Result<Value, Status> {
        admit::place(call, &mut object)?;
        self.name(call, &mut object)?;
        self.check_namespace(call)?;
        admit::begin(call.resource, &mut object);
        self.complete(call, &mut object, None, turn)?;
        let name = crate::meta::text(&object, "name");
        if self
            .store
            .get(&call.resource.storage, call.namespace, name)
            .is_some()
        {
            return Err(already_exists(call.resource, name));
        }
        admit::track(call, None, &mut object);
        Ok(self.commit(call, object))
    }

    /// Stores a new object and lets controllers act on it.
    fn commit(&self, call: &Call<'_>, object: Value) -> Value {
        let object = convert::to_storage(call.resource, object);
        if call.options.dry_run {
            let mut object = object;
            crate::meta::set(&mut object, "uid", Some(crate::store::new_uid().into()));
            return Value::clone(&convert::present(call.resource, &Arc::new(object)));
        }
        let stored = self.store.put(&call.resource.storage, object);
        self.after_write(&call.resource.storage, &stored);
        Value::clone(&convert::present(call.resource, &stored))
    }

    /// Makes up a name that is not taken, where only the start of one is given.
    fn name(&self, call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
        let metadata = &object["metadata"];
        let start = metadata["generateName"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if !metadata["name"].as_str().unwrap_or_default().is_empty() || start.is_empty() {
            return Ok(());
        }
        let start: String = start.chars().take(58).collect();
        for _ in 0..NAME_ATTEMPTS {
            let end = (0..5).filter_map(|_| fastrand::choice(NAME_LETTERS));
            let name: String = start
                .chars()
                .chain(end.map(|&letter| char::from(letter)))
                .collect();
            if self
                .store
                .get(&call.resource.storage, call.namespace, &name)
                .is_none()
            {
                crate::meta::set(object, "name", Some(name.into()));
                return Ok(());
            }
        }
        Err(already_exists(call.resource, &start))
    }

    /// The object that a call is about.
    fn live(&self, call: &Call<'_>) -> Result<Arc<Value>, Status> {
        self.store
            .get(&call.resource.storage, call.namespace, call.name)
            .ok_or_else(|| not_found(call.resource, call.name))
    }
}

/// There is no such object.
pub fn not_found(resource: &Resource, name: &str) -> Status {
    about(
        resource,
        name,
        Status::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("{} \"{name}\" not found", resource.qualified()),
        ),
    )
}

/// There is one already.
pub fn already_exists(resource: &Resource, name: &str) -> Status {
    about(
        resource,
        name,
        Status::new(
            StatusCode::CONFLICT,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", resource.qualified()),
        ),
    )
}

/// The object is not what the caller took it for.
pub fn conflict(resource: &Resource, name: &str, why: &str) -> Status {
    about(
        resource,
        name,
        Status::new(
            StatusCode::CONFLICT,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {} \"{name}\": {why}",
                resource.qualified()
            ),
        ),
    )
}

/// The rules, not the caller's rights, forbid it.
pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Status {
    about(
        resource,
        name,
        Status::new(
            StatusCode::FORBIDDEN,
            "Forbidden",
            format!("{} \"{name}\" is forbidden: {why}", resource.qualified()),
        ),
    )
}

fn about(resource: &Resource, name: &str, status: Status) -> Status {
    let mut details = json!({"name": name, "kind": resource.plural});
    if !resource.kind.group.is_empty() {
        details["group"] = resource.kind.group.clone().into();
    }
    Status { details, ..status }
}
