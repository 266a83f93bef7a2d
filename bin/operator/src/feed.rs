//! What the watches tell, put into the world: one feed for each sort of object.

use std::{marker::PhantomData, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Namespace, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, api::DynamicObject, core::PartialObjectMeta};
use mesh_api::{gateway::Gateway, sail::GROUP};
use mesh_kube::{
    owned::Owner,
    watch::{Event, Index, Invalid, ObjectKey, State},
};
use mesh_render::Kind;
use tokio::sync::watch as news;

use crate::{
    component_pod::ComponentPod,
    key::{Managed, ObjectRef},
    platform::Detected,
    store::{Changes, Store},
    usage::Touched,
    world::{self, Custom, Depends, Live, World},
};

/// Custom resources of one kind.
#[derive(Debug)]
pub(crate) struct Resources<K> {
    store: Store,
    kind: PhantomData<fn() -> K>,
}

/// Objects of one kind that the operator has made.
#[derive(Debug)]
pub(crate) struct Objects {
    pub(crate) store: Store,
    pub(crate) kind: Kind,
}

/// Who uses the mesh, by the metadata of namespaces, pods and Gateways.
#[derive(Clone, Debug)]
pub(crate) struct Users {
    pub(crate) store: Store,
}

/// Pods of the mesh's own components.
#[derive(Debug)]
pub(crate) struct Components {
    pub(crate) store: Store,
}

/// Tells what kind of cluster this is, each time that something else is known of it. Ends when nobody finds
/// out any more.
pub(crate) async fn platform(
    mut known: news::Receiver<Option<Arc<Detected>>>,
    state: news::Sender<State>,
    store: Store,
) {
    while known.changed().await.is_ok() {
        let found = known.borrow_and_update().clone();
        store.change(|world, changes| {
            world.platform = found;
            changes.thing(Depends::Platform);
        });
        state.send_modify(|state| state.synced = true);
    }
}

// === impl Resources ===

impl<K> Resources<K> {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            kind: PhantomData,
        }
    }
}

impl<K: Custom> Index<K> for Resources<K> {
    fn update(&mut self, events: Vec<Event<K>>) {
        self.store.change(|world, changes| {
            for event in events {
                match event {
                    Event::Apply(resource) => world.put(resource, changes),
                    Event::Delete(key) => world.take::<K>(&key.name, changes),
                    Event::Invalid(invalid) => unreadable(K::MANAGED.kind().kind, &invalid),
                }
            }
        });
    }
}

// === impl Objects ===

impl Objects {
    fn object(&self, key: ObjectKey) -> ObjectRef {
        ObjectRef {
            kind: self.kind,
            namespace: self.kind.namespaced.then_some(key.namespace),
            name: key.name,
        }
    }
}

impl Index<DynamicObject> for Objects {
    fn update(&mut self, events: Vec<Event<DynamicObject>>) {
        self.store.change(|world, changes| {
            for event in events {
                match event {
                    Event::Apply(live) => {
                        let key = ObjectKey::of(&live).unwrap_or_default();
                        let Ok(body) = serde_json::to_value(live) else {
                            continue;
                        };
                        learn(world, self.object(key), Live { body }, changes);
                    }
                    Event::Delete(key) => {
                        let object = self.object(key);
                        let last = world.owned.remove(&object);
                        let owner = last.as_ref().and_then(owner_of);
                        concerns(object, [owner, None], changes);
                    }
                    Event::Invalid(invalid) => unreadable(self.kind.kind, &invalid),
                }
            }
        });
    }
}

/// An object with our label exists in this form. Anybody can write a label: what no resource of ours
/// controls is not kept, however much of it there is.
fn learn(world: &mut World, object: ObjectRef, live: Live, changes: &mut Changes) {
    let known = world.owned.get(&object);
    let news = [known.and_then(owner_of), owner_of(&live)];
    if is_controlled(&live) {
        if world.owned.insert(object.clone(), live) {
            concerns(object, news, changes);
        }
    } else if known.and_then(Live::version) <= live.version() {
        world.owned.remove(&object);
        concerns(object, news, changes);
    }
}

fn owner_of(live: &Live) -> Option<Owner> {
    Owner::of(&live.body)
}

/// Whether a resource of ours controls it, or is said to.
fn is_controlled(live: &Live) -> bool {
    let Some(owner) = owner_of(live) else {
        return false;
    };
    let group = owner.api_version.split_once('/').map(|(group, _)| group);
    let mut kinds = Managed::ALL.into_iter();
    group == Some(GROUP) && kinds.any(|kind| kind.kind().kind == owner.kind)
}

/// Wakes who owns the object, who owned it, and who has asked about it. By name and not by identity: what a
/// resource of the same name has left stands in the way of the next one, and who is woken for nothing finds
/// nothing to do.
fn concerns(object: ObjectRef, owners: [Option<Owner>; 2], changes: &mut Changes) {
    changes.thing(Depends::Object(object));
    for owner in owners.into_iter().flatten() {
        let mut kinds = Managed::ALL.into_iter();
        if let Some(kind) = kinds.find(|kind| kind.kind().kind == owner.kind) {
            changes.key(kind.named(owner.name));
        }
    }
}

// === impl Users ===

impl Index<PartialObjectMeta<Namespace>> for Users {
    fn update(&mut self, events: Vec<Event<PartialObjectMeta<Namespace>>>) {
        self.tell(events, |world, changes, told| match told {
            Told::There(namespace) => {
                put_namespace(world, &namespace, changes);
                world.usage.apply_namespace(&namespace)
            }
            Told::Gone(key) => {
                world.namespaces.remove(&key.name);
                changes.thing(Depends::Namespace(key.name.clone()));
                world.usage.delete_namespace(&key.name)
            }
        });
    }
}

impl Index<PartialObjectMeta<Pod>> for Users {
    fn update(&mut self, events: Vec<Event<PartialObjectMeta<Pod>>>) {
        self.tell(events, |world, _changes, told| match told {
            Told::There(pod) => world.usage.apply_pod(&pod),
            Told::Gone(key) => world.usage.delete_pod(&key.namespace, &key.name),
        });
    }
}

impl Index<PartialObjectMeta<Gateway>> for Users {
    fn update(&mut self, events: Vec<Event<PartialObjectMeta<Gateway>>>) {
        self.tell(events, |world, _changes, told| match told {
            Told::There(gateway) => world.usage.apply_gateway(&gateway),
            Told::Gone(key) => world.usage.delete_gateway(&key.namespace, &key.name),
        });
    }
}

/// One event about metadata.
enum Told {
    There(Box<ObjectMeta>),
    Gone(ObjectKey),
}

impl Users {
    fn tell<K: Resource<DynamicType = ()>>(
        &self,
        events: Vec<Event<PartialObjectMeta<K>>>,
        take: impl Fn(&mut World, &mut Changes, Told) -> Touched,
    ) {
        self.store.change(|world, changes| {
            for event in events {
                let told = match event {
                    Event::Apply(object) => Told::There(Box::new(object.metadata)),
                    Event::Delete(key) => Told::Gone(key),
                    Event::Invalid(invalid) => {
                        unreadable(&K::kind(&()), &invalid);
                        continue;
                    }
                };
                let touched = take(world, changes, told);
                for name in touched.names {
                    changes.thing(Depends::Usage(name));
                }
                if touched.enrolment {
                    changes.thing(Depends::Enrolment);
                }
            }
        });
    }
}

fn put_namespace(world: &mut World, meta: &ObjectMeta, changes: &mut Changes) {
    let name = meta.name.clone().unwrap_or_default();
    let namespace = world::Namespace {
        uid: meta.uid.clone().unwrap_or_default(),
        labels: meta.labels.clone().unwrap_or_default(),
        terminating: meta.deletion_timestamp.is_some(),
    };
    let known = world.namespaces.get(&name);
    if known != Some(&namespace) {
        world.namespaces.insert(name.clone(), namespace);
        changes.thing(Depends::Namespace(name));
    }
}

// === impl Components ===

impl Index<ComponentPod> for Components {
    fn update(&mut self, events: Vec<Event<ComponentPod>>) {
        self.store.change(|world, changes| {
            for event in events {
                let (key, stuck) = match event {
                    Event::Apply(pod) => (ObjectKey::of(&pod).unwrap_or_default(), pod.stuck()),
                    Event::Delete(key) => (key, None),
                    Event::Invalid(invalid) => {
                        unreadable("Pod", &invalid);
                        continue;
                    }
                };
                let namespace = key.namespace.clone();
                let key = (key.namespace, key.name);
                let before = match stuck {
                    Some(stuck) if world.stuck.get(&key) == Some(&stuck) => continue,
                    Some(stuck) => {
                        world.stuck.insert(key, stuck);
                        true
                    }
                    None => world.stuck.remove(&key).is_some(),
                };
                if before {
                    changes.thing(Depends::Stuck(namespace));
                }
            }
        });
    }
}

/// What it said before stays in force.
fn unreadable(kind: &str, invalid: &Invalid) {
    let Invalid { key, reason } = invalid;
    tracing::warn!(kind, object = %key, reason, "object cannot be read");
}

#[cfg(test)]
mod tests {
    use mesh_render::object::CONFIG_MAP;
    use serde_json::{Value, json};

    use super::*;

    fn mk_live(version: &str, owners: &Value) -> Live {
        let metadata = json!({"resourceVersion": version, "ownerReferences": owners});
        Live {
            body: json!({"metadata": metadata}),
        }
    }

    fn mk_owner(api_version: &str, kind: &str) -> Value {
        json!([{
            "apiVersion": api_version, "kind": kind, "name": "default", "uid": "u", "controller": true,
        }])
    }

    #[test]
    fn what_is_labelled_as_ours_and_is_not_controlled_by_us_is_not_kept() {
        let object = ObjectRef::namespaced(CONFIG_MAP, "shop", "x");
        let (ours, mut world) = (mk_owner("sailoperator.io/v1", "IstioCNI"), World::default());
        let mut see = |version: &str, owners: &Value| {
            let (live, mut changes) = (mk_live(version, owners), Changes::default());
            learn(&mut world, object.clone(), live, &mut changes);
            world.owned.get(&object).is_some()
        };
        assert!(!see("1", &Value::Null));
        assert!(!see("2", &mk_owner("v1", "ConfigMap")));
        assert!(!see("3", &mk_owner("example.com/v1", "IstioCNI")));
        assert!(see("5", &ours));
        // From before it was taken over.
        assert!(see("4", &Value::Null));
        assert!(!see("6", &Value::Null));
    }
}
