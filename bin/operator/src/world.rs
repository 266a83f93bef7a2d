//! What is known of the cluster, and what reconcilers see of it.
//!
//! The watches fill [`World`]. A reconciler reads it through a [`View`], which remembers what was asked
//! for, found or not: exactly that wakes the resource again when it changes. Nobody keeps a list of what
//! depends on what.

use std::{borrow::Cow, cell::RefCell, collections::BTreeMap, fmt::Debug, sync::Arc};

use jiff::Timestamp;
use kube::Resource;
use mesh_api::sail::{Istio, IstioCNI, IstioRevision, IstioRevisionTag, ZTunnel};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    images::Overrides,
    key::{Key, Managed, ObjectRef},
    outcome::Status,
    platform::Detected,
    store::Changes,
    usage::Usage,
};

mod depends;
mod owned;

pub use self::{
    depends::{Depends, Sight},
    owned::{Live, Owned},
};

/// Resources of one kind by name.
pub type Table<K> = BTreeMap<String, Arc<K>>;

/// Everything that reconcilers may ask about.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The control planes that are wanted.
    pub istios: Table<Istio>,
    /// The control planes.
    pub revisions: Table<IstioRevision>,
    /// The names of control planes.
    pub tags: Table<IstioRevisionTag>,
    /// The CNI agent; there is one of the name `default` at most.
    pub cnis: Table<IstioCNI>,
    /// The node proxy; there is one of the name `default` at most.
    pub ztunnels: Table<ZTunnel>,
    /// The objects that the operator has made, as they are.
    pub owned: Owned,
    /// All namespaces.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Pods of the mesh's own components that do not come up, by namespace and name.
    pub stuck: BTreeMap<(String, String), Stuck>,
    /// Who uses the mesh.
    pub usage: Usage,
    /// What kind of cluster this is, once that is known.
    pub platform: Option<Arc<Detected>>,
}

/// A namespace as far as it matters whether objects can be made in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its identity, which changes when it is deleted and made again.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// It is being deleted: nothing new can be made in it.
    pub terminating: bool,
}

/// A pod of a component that does not come up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stuck {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The DaemonSet or ReplicaSet that made it.
    pub controller: String,
    /// Where it runs, if it is scheduled.
    pub node: Option<String>,
    /// Why, as the kubelet or the scheduler says: `ImagePullBackOff`, `CrashLoopBackOff`,
    /// `Unschedulable` and the like.
    pub reason: String,
    /// What they say about it.
    pub message: String,
}

/// What the operator was told at its start, as far as reconcilers care.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// The operator's own namespace.
    pub namespace: String,
    /// Images in the place of the released ones.
    pub images: Overrides,
}

/// A kind of custom resources, where it lies in the world, and its status.
pub trait Custom:
    Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Which of ours it is.
    const MANAGED: Managed;
    /// Its status.
    type Status: Status;
    /// The status that it has now.
    fn status(&self) -> Option<&Self::Status>;
    /// All of the kind.
    fn table(world: &World) -> &Table<Self>;
    /// All of the kind, to be changed.
    fn table_mut(world: &mut World) -> &mut Table<Self>;
}

/// What a reconciler sees. Every question is remembered, see [`View::seen`].
#[derive(Debug)]
pub struct View<'a> {
    world: &'a World,
    defaults: &'a Defaults,
    now: Timestamp,
    seen: RefCell<Sight>,
}

// === impl View ===

impl<'a> View<'a> {
    /// A view at `now` on which nothing has been asked yet.
    pub fn new(world: &'a World, defaults: &'a Defaults, now: Timestamp) -> Self {
        Self {
            world,
            defaults,
            now,
            seen: RefCell::default(),
        }
    }

    /// What has been asked for so far, whether it was there or not.
    pub fn seen(self) -> Sight {
        self.seen.into_inner()
    }

    /// The time. Nothing wakes a reconciler because time passes: see
    /// [`Outcome::again`](crate::outcome::Outcome::again).
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// What the operator was told at its start.
    pub fn defaults(&self) -> &'a Defaults {
        self.defaults
    }

    /// The custom resource of this name.
    pub fn get<K: Custom>(&self, name: &str) -> Option<&'a Arc<K>> {
        self.saw(Depends::Resource(K::MANAGED.named(name)));
        K::table(self.world).get(name)
    }

    /// All custom resources of a kind, by name.
    pub fn all<K: Custom>(&self) -> impl Iterator<Item = &'a Arc<K>> + use<'a, K> {
        self.saw(Depends::Kind(K::MANAGED));
        K::table(self.world).values()
    }

    /// An object that the operator has made, as it is. Objects of others are not seen.
    pub fn live(&self, object: &ObjectRef) -> Option<&'a Live> {
        self.saw(Depends::Object(object.clone()));
        self.world.owned.get(object)
    }

    /// The objects whose controlling owner has this uid.
    pub fn owned_by(&self, uid: &str) -> impl Iterator<Item = (&'a ObjectRef, &'a Live)> + use<'a> {
        // Whoever owns an object is woken by it anyway.
        self.world.owned.of_owner(uid)
    }

    /// The namespace of this name.
    pub fn namespace(&self, name: &str) -> Option<&'a Namespace> {
        self.saw(Depends::Namespace(name.to_owned()));
        self.world.namespaces.get(name)
    }

    /// Pods of the mesh's own components in `namespace` that do not come up, by name.
    pub fn stuck(&self, namespace: &str) -> impl Iterator<Item = (&'a str, &'a Stuck)> + use<'a> {
        self.saw(Depends::Stuck(namespace.to_owned()));
        let from = (namespace.to_owned(), String::new());
        let namespace = namespace.to_owned();
        let pods = self.world.stuck.range(from..);
        let pods = pods.take_while(move |((of, _), _)| *of == namespace);
        pods.map(|((_, name), stuck)| (name.as_str(), stuck))
    }

    /// Who uses the mesh, to be asked about the revision or tag of this name.
    pub fn usage_of(&self, name: &str) -> &'a Usage {
        self.saw(Depends::Usage(name.to_owned()));
        &self.world.usage
    }

    /// Who uses the mesh, to be asked about pods that are enrolled.
    pub fn enrolment(&self) -> &'a Usage {
        self.saw(Depends::Enrolment);
        &self.world.usage
    }

    /// What kind of cluster this is, once that is known.
    pub fn platform(&self) -> Option<&'a Detected> {
        self.saw(Depends::Platform);
        self.world.platform.as_deref()
    }

    fn saw(&self, what: Depends) {
        self.seen.borrow_mut().insert(what);
    }
}

// === impl World ===

impl World {
    /// A resource exists in this form.
    pub(crate) fn put<K: Custom>(&mut self, resource: K, changes: &mut Changes) {
        let Some(name) = resource.meta().name.clone() else {
            return;
        };
        let table = K::table_mut(self);
        let known = table.get(&name);
        if known.is_some_and(|known| is_newer(version_of(&**known), version_of(&resource))) {
            return;
        }
        table.insert(name.clone(), Arc::new(resource));
        changed(K::MANAGED.named(name), changes);
    }

    /// A resource is gone.
    pub(crate) fn take<K: Custom>(&mut self, name: &str, changes: &mut Changes) {
        K::table_mut(self).remove(name);
        changed(K::MANAGED.named(name), changes);
    }

    /// What a resource owns: objects, and the revisions of an Istio.
    pub(crate) fn children(&self, uid: &str) -> Vec<(ObjectRef, Cow<'_, Value>)> {
        let revisions = self.revisions.values().filter(|revision| {
            let mut owners = revision.meta().owner_references.iter().flatten();
            owners.any(|owner| owner.controller == Some(true) && owner.uid == uid)
        });
        let revisions = revisions.filter_map(|revision| {
            let name = revision.meta().name.clone()?;
            let object = ObjectRef::global(Managed::IstioRevision.kind(), name);
            Some((object, Cow::Owned(serde_json::to_value(&**revision).ok()?)))
        });
        let objects = self.owned.of_owner(uid);
        let objects = objects.map(|(object, live)| (object.clone(), Cow::Borrowed(&live.body)));
        objects.chain(revisions).collect()
    }

    /// An object as it is, if it is one of ours.
    pub(crate) fn live(&self, object: &ObjectRef) -> Option<Cow<'_, Value>> {
        if Managed::of(object.kind) == Some(Managed::IstioRevision) {
            let revision = self.revisions.get(&object.name)?;
            return Some(Cow::Owned(serde_json::to_value(&**revision).ok()?));
        }
        Some(Cow::Borrowed(&self.owned.get(object)?.body))
    }

    /// The keys of all resources.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        Managed::ALL.into_iter().flat_map(|kind| self.keys_of(kind))
    }

    fn keys_of(&self, kind: Managed) -> Vec<Key> {
        fn keys<K: Custom>(world: &World) -> Vec<Key> {
            let names = K::table(world).keys();
            names.map(|name| K::MANAGED.named(name)).collect()
        }
        match kind {
            Managed::Istio => keys::<Istio>(self),
            Managed::IstioRevision => keys::<IstioRevision>(self),
            Managed::IstioRevisionTag => keys::<IstioRevisionTag>(self),
            Managed::IstioCni => keys::<IstioCNI>(self),
            Managed::ZTunnel => keys::<ZTunnel>(self),
        }
    }
}

fn changed(key: Key, changes: &mut Changes) {
    changes.thing(Depends::Resource(key.clone()));
    changes.thing(Depends::Kind(key.kind));
    changes.key(key);
}

/// Versions of objects are numbers that grow, on every API server there is; where one is not, the later
/// word counts.
fn is_newer(known: Option<u64>, other: Option<u64>) -> bool {
    matches!((known, other), (Some(known), Some(other)) if known > other)
}

fn version_of<K: Custom>(resource: &K) -> Option<u64> {
    resource.meta().resource_version.as_deref()?.parse().ok()
}

// === impl Custom ===

macro_rules! customs {
    ($($kind:ty, $managed:ident, $status:ty, $table:ident;)*) => {$(
        impl Custom for $kind {
            const MANAGED: Managed = Managed::$managed;
            type Status = $status;

            fn status(&self) -> Option<&Self::Status> {
                self.status.as_ref()
            }

            fn table(world: &World) -> &Table<Self> {
                &world.$table
            }

            fn table_mut(world: &mut World) -> &mut Table<Self> {
                &mut world.$table
            }
        }
    )*};
}

customs! {
    Istio, Istio, mesh_api::sail::IstioStatus, istios;
    IstioRevision, IstioRevision, mesh_api::sail::ComponentStatus, revisions;
    IstioRevisionTag, IstioRevisionTag, mesh_api::sail::IstioRevisionTagStatus, tags;
    IstioCNI, IstioCni, mesh_api::sail::ComponentStatus, cnis;
    ZTunnel, ZTunnel, mesh_api::sail::ZTunnelStatus, ztunnels;
}
