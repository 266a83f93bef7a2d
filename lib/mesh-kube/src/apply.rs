//! Server-side apply that writes nothing when nothing changes.
//!
//! [`apply`] compares what is wanted with what lives, by the fields that our manager owns, and sends a
//! patch only if that would change something. A reconcile of an unchanged object is one read, or none
//! if the caller knows the object. When in doubt it writes: an apply that changes nothing is recognised
//! by the API server and leaves the object's version alone.

use std::time::Duration;

use kube::{
    Api, Client, Resource,
    api::{GetParams, Patch, PatchParams, Request},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::error::Fault;

mod fields;

/// Who applies, and to what part of the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// The field manager: what an apply leaves out of what it named before under this name is removed.
    pub name: String,
    /// Whether to take fields that others own rather than to fail with [`Error::Conflict`]. Right for
    /// objects that are ours alone.
    pub force: bool,
    /// The subresource that is written.
    pub part: Part,
}

/// What part of an object is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All but the status.
    #[default]
    Object,
    /// The status alone.
    Status,
}

/// An object as it is after [`apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied<K> {
    /// The live object.
    pub object: K,
    /// Whether something was written.
    pub changed: bool,
}

/// A field that is wanted with one value and owned by somebody else with another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The other field manager, as the server names it.
    pub manager: String,
    /// The field, as a path like `.spec.replicas`.
    pub field: String,
}

/// Why an object was not applied.
#[derive(Debug, Error)]
pub enum Error {
    /// The object has no name, or cannot be written as JSON: a defect of the program.
    #[error("writing {object} as a patch: it needs apiVersion, kind and metadata.name")]
    Form {
        /// Which object, as far as it is known.
        object: String,
        /// What went wrong.
        #[source]
        source: Option<serde_json::Error>,
    },

    /// Others own fields that are wanted with another value. Either they are right and we should not
    /// name the field, or [`Manager::force`] is wanted.
    #[error(
        "applying {object} as {manager}: {} owned by others: {}",
        fields_of(owners),
        list(owners)
    )]
    Conflict {
        /// Which object.
        object: String,
        /// Our field manager.
        manager: String,
        /// Who owns which field.
        owners: Vec<Owner>,
        /// What went wrong.
        #[source]
        source: Box<kube::Error>,
    },

    /// The server did not take the patch; [`Error::fault`] says whose fault it is.
    #[error("applying {object} as {manager}")]
    Request {
        /// Which object.
        object: String,
        /// Our field manager.
        manager: String,
        /// What went wrong.
        #[source]
        source: Box<kube::Error>,
    },

    /// The server did not answer. Whether it has written is not known; applying again finds out.
    #[error("applying {object}: no answer of the API server within {ANSWER:?}")]
    Silent {
        /// Which object.
        object: String,
    },

    /// The live object is not of the kind that the caller expects.
    #[error("reading {object} after it was applied")]
    Decode {
        /// Which object.
        object: String,
        /// What went wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// Longest time for one request.
const ANSWER: Duration = Duration::from_secs(30);

struct Target<'a> {
    client: Client,
    request: Request,
    manager: &'a Manager,
    /// `Kind namespace/name`, for errors.
    object: String,
    name: String,
    wanted: Value,
}

/// Makes the live object hold what `wanted` names, as `manager`.
///
/// `wanted` names only what we care about, with `apiVersion`, `kind` and `metadata.name`; it may be of
/// another type than `K`, such as a status without a spec. An object that does not exist is created,
/// except for a status, whose object has to exist. A reporter that wants an empty status withdraws what
/// it has reported.
pub async fn apply<K>(
    api: &Api<K>,
    wanted: &impl Serialize,
    manager: &Manager,
) -> Result<Applied<K>, Error>
where
    K: Resource + DeserializeOwned + Clone,
{
    let target = Target::new(api, wanted, manager)?;
    let live = target.live().await?;
    if let Some(live) = live.filter(|live| target.holds(live)) {
        return target.applied(live, false);
    }
    let object = target.patch().await?;
    target.applied(object, true)
}

/// Like [`apply`], with the object as the caller knows it, such as from a watch. It has to hold its
/// `managedFields`; without them, the patch is sent. An outdated object costs a patch too many, or one
/// too few until the caller learns of the newer one and applies again.
pub async fn apply_over<K>(
    api: &Api<K>,
    wanted: &impl Serialize,
    manager: &Manager,
    live: K,
) -> Result<Applied<K>, Error>
where
    K: Resource + Serialize + DeserializeOwned + Clone,
{
    let target = Target::new(api, wanted, manager)?;
    let known = serde_json::to_value(&live).map_err(|source| target.decode(source))?;
    if target.holds(&known) {
        return Ok(Applied {
            object: live,
            changed: false,
        });
    }
    let object = target.patch().await?;
    target.applied(object, true)
}

/// Applies without looking: one request, for a caller who knows that it changes something.
pub async fn send<K>(api: &Api<K>, wanted: &impl Serialize, manager: &Manager) -> Result<K, Error>
where
    K: Resource + DeserializeOwned + Clone,
{
    let target = Target::new(api, wanted, manager)?;
    let object = target.patch().await?;
    Ok(target.applied(object, true)?.object)
}

/// Whether applying `wanted` to `live` would change nothing, by the fields that `manager` owns. Pure, and
/// false in doubt, such as for an object without its `managedFields`.
pub fn holds(wanted: &Value, live: &Value, manager: &Manager) -> bool {
    fields::holds(wanted, live, &manager.name, manager.part)
}

// === impl Manager ===

impl Manager {
    /// Applies objects that are ours alone, and takes fields that others have changed back.
    pub fn owner(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            force: true,
            part: Part::Object,
        }
    }

    /// Reports into the status of objects.
    pub fn reporter(name: impl Into<String>) -> Self {
        Self {
            part: Part::Status,
            ..Self::owner(name)
        }
    }

    /// Fails where others own a field.
    #[must_use]
    pub fn polite(self) -> Self {
        Self {
            force: false,
            ..self
        }
    }
}

// === impl Part ===

impl Part {
    pub(crate) const fn subresource(self) -> Option<&'static str> {
        match self {
            Self::Object => None,
            Self::Status => Some("status"),
        }
    }
}

// === impl Error ===

impl Error {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Form { .. } | Self::Decode { .. } => Fault::Protocol,
            Self::Conflict { .. } => Fault::Conflict,
            Self::Request { source, .. } => Fault::of(source),
            Self::Silent { .. } => Fault::Unavailable,
        }
    }
}

fn fields_of(owners: &[Owner]) -> &'static str {
    if owners.len() == 1 {
        "a field is"
    } else {
        "fields are"
    }
}

fn list(owners: &[Owner]) -> String {
    let each = owners
        .iter()
        .map(|owner| format!("{} by {}", owner.field, owner.manager));
    each.collect::<Vec<_>>().join(", ")
}

// === impl Target ===

impl<'a> Target<'a> {
    fn new<K: Resource + Clone>(
        api: &Api<K>,
        wanted: &impl Serialize,
        manager: &'a Manager,
    ) -> Result<Self, Error> {
        let mut wanted = serde_json::to_value(wanted).map_err(|source| Error::Form {
            object: "an object".to_owned(),
            source: Some(source),
        })?;
        if manager.part == Part::Status {
            drop_empty_status(&mut wanted);
        }
        let text = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").unwrap_or("object");
        let (object, name) = match (text("/metadata/namespace"), text("/metadata/name")) {
            (Some(namespace), Some(name)) => {
                (format!("{kind} {namespace}/{name}"), name.to_owned())
            }
            (_, name) => {
                let name = name.unwrap_or_default();
                (format!("{kind} {name}"), name.to_owned())
            }
        };
        if name.is_empty() || text("/kind").is_none() || text("/apiVersion").is_none() {
            return Err(Error::Form {
                object,
                source: None,
            });
        }
        Ok(Self {
            request: Request::new(api.resource_url()),
            client: api.clone().into_client(),
            manager,
            object,
            name,
            wanted,
        })
    }

    /// Whether `live` holds what is wanted, and nothing that we have named before and no longer do.
    fn holds(&self, live: &Value) -> bool {
        fields::holds(&self.wanted, live, &self.manager.name, self.manager.part)
    }

    async fn live(&self) -> Result<Option<Value>, Error> {
        let request = self.request.get(&self.name, &GetParams::default());
        match self.send(request).await {
            Ok(live) => Ok(Some(live)),
            Err(error) if error.fault() == Fault::Missing => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn patch(&self) -> Result<Value, Error> {
        let params = PatchParams {
            field_manager: Some(self.manager.name.clone()),
            force: self.manager.force,
            ..PatchParams::default()
        };
        let patch = Patch::Apply(&self.wanted);
        let request = match self.manager.part.subresource() {
            None => self.request.patch(&self.name, &params, &patch),
            Some(part) => self
                .request
                .patch_subresource(part, &self.name, &params, &patch),
        };
        self.send(request).await
    }

    async fn send(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Value, Error> {
        let failed = |error| self.failed(error);
        let request = request.map_err(kube::Error::BuildRequest).map_err(failed)?;
        let answer = tokio::time::timeout(ANSWER, self.client.request(request)).await;
        let answer = answer.map_err(|_elapsed| Error::Silent {
            object: self.object.clone(),
        })?;
        answer.map_err(failed)
    }

    fn failed(&self, error: kube::Error) -> Error {
        let (object, manager) = (self.object.clone(), self.manager.name.clone());
        let owners = owners(&error);
        let source = Box::new(error);
        if owners.is_empty() {
            return Error::Request {
                object,
                manager,
                source,
            };
        }
        Error::Conflict {
            object,
            manager,
            owners,
            source,
        }
    }

    fn applied<K: DeserializeOwned>(
        &self,
        live: Value,
        changed: bool,
    ) -> Result<Applied<K>, Error> {
        let object = serde_json::from_value(live).map_err(|source| self.decode(source))?;
        Ok(Applied { object, changed })
    }

    fn decode(&self, source: serde_json::Error) -> Error {
        Error::Decode {
            object: self.object.clone(),
            source,
        }
    }
}

/// A status in which nothing is reported is none: an apply of `{}` would own the status itself.
fn drop_empty_status(wanted: &mut Value) {
    if let Some(object) = wanted.as_object_mut()
        && object
            .get("status")
            .and_then(Value::as_object)
            .is_some_and(Map::is_empty)
    {
        object.remove("status");
    }
}

/// Who owns the fields over which an apply fails, as the server says.
fn owners(error: &kube::Error) -> Vec<Owner> {
    let kube::Error::Api(status) = error else {
        return Vec::new();
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let conflicts = causes.filter(|cause| cause.reason == "FieldManagerConflict");
    let owners = conflicts.map(|cause| Owner {
        // `conflict with "kubectl" using apps/v1`
        manager: cause
            .message
            .split('"')
            .nth(1)
            .unwrap_or(&cause.message)
            .to_owned(),
        field: cause.field.clone(),
    });
    owners.collect()
}
