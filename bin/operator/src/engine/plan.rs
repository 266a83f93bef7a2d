//! What is to be written for a resource: pure comparisons of what should be with what is.

use std::collections::BTreeSet;

use mesh_api::sail::IGNORE_ANNOTATION;
use mesh_kube::{
    apply::Manager,
    owned::{self, Owner, Step},
    quantity,
};
use mesh_render::Object;
use serde_json::Value;

use crate::{
    key::ObjectRef,
    names::{MANAGED_BY, MANAGED_BY_SAIL, MANAGER, SAIL},
    outcome::Prune,
    world::World,
};

/// What is to be written for a resource that is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// What should exist, in order.
    pub(crate) wanted: Vec<Wanted>,
    /// What exists and should not.
    pub(crate) surplus: Vec<Doomed>,
}

/// One object that should exist.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// What names it.
    pub(crate) object: ObjectRef,
    /// All of it, with our labels and its owner.
    pub(crate) body: Value,
    /// What is to be done about it.
    pub(crate) step: Step,
    /// Whether it is known to exist. If not, somebody else may have made one of the same name, which no
    /// watch of ours would tell.
    pub(crate) known: bool,
}

/// One object that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doomed {
    /// What names it.
    pub(crate) object: ObjectRef,
    /// Its identity: not a later one of the same name.
    pub(crate) uid: String,
}

/// What is to be deleted for a resource that is not wanted any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removal {
    /// What can go now, in order.
    pub(crate) doomed: Vec<Doomed>,
    /// Nothing is left.
    pub(crate) is_complete: bool,
}

// === impl Plan ===

impl Plan {
    /// What has to be done so that `owner` owns `apply`, in order, and what `prune` leaves.
    pub(crate) fn new(world: &World, owner: &Owner, apply: Vec<Object>, prune: &Prune) -> Self {
        let wanted: Vec<_> = apply
            .into_iter()
            .map(|object| Wanted::new(world, owner, object))
            .collect();
        let kept: BTreeSet<_> = wanted.iter().map(|wanted| &wanted.object).collect();
        let is_surplus = |object: &ObjectRef| match prune {
            Prune::Owned => !kept.contains(object),
            Prune::Only(these) => these.contains(object) && !kept.contains(object),
            Prune::Keep => false,
        };
        let children = world.children(&owner.uid).into_iter();
        let surplus = children
            .filter(|(object, live)| is_surplus(object) && owned::surplus(live, IGNORE_ANNOTATION))
            .map(|(object, live)| Doomed::new(object, &live))
            .collect();
        Self { wanted, surplus }
    }
}

// === impl Wanted ===

impl Wanted {
    fn new(world: &World, owner: &Owner, object: Object) -> Self {
        let name = ObjectRef::of(&object);
        let mut body = object.body;
        body["apiVersion"] = name.kind.api_version().into();
        body["kind"] = name.kind.kind.into();
        complete(&mut body);
        owned::label(&mut body, MANAGED_BY, MANAGER);
        owned::label(&mut body, MANAGED_BY_SAIL, SAIL);
        owner.adopt(&mut body);
        let live = world.live(&name);
        let step = Self::step(&body, live.as_deref());
        Self {
            object: name,
            step,
            known: live.is_some(),
            body,
        }
    }

    /// What is to be done about it, as it now turns out to be.
    pub(crate) fn step(body: &Value, live: Option<&Value>) -> Step {
        owned::step(body, live, &Manager::owner(MANAGER), IGNORE_ANNOTATION)
    }
}

/// Says what the API server would say by itself in references that are owned as a whole, and quantities as
/// it stores them. Without it such a value would never be as it is wanted, and be applied again and again.
fn complete(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                match name.as_str() {
                    "fieldRef" => default(field, "apiVersion", "v1"),
                    "resourceFieldRef" => default(field, "divisor", "0"),
                    "limits" | "requests" | "hard" => {
                        let amounts = field.as_object_mut().into_iter().flatten();
                        amounts.for_each(|(_, amount)| store_quantity(amount));
                    }
                    "sizeLimit" | "divisor" | "averageValue" => store_quantity(field),
                    _ => {}
                }
                complete(field);
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(complete),
        _ => {}
    }
}

fn default(reference: &mut Value, name: &str, value: &str) {
    if let Value::Object(fields) = reference {
        let entry = fields.entry(name);
        entry.or_insert_with(|| value.into());
    }
}

fn store_quantity(amount: &mut Value) {
    let stored = amount.as_str().and_then(quantity::canonical);
    if let Some(stored) = stored {
        *amount = stored.into();
    }
}

// === impl Doomed ===

impl Doomed {
    fn new(object: ObjectRef, live: &Value) -> Self {
        let uid = live.pointer("/metadata/uid").and_then(Value::as_str);
        Self {
            object,
            uid: uid.unwrap_or_default().to_owned(),
        }
    }
}

// === impl Removal ===

impl Removal {
    /// What can go of what the owner of this uid owns: in the given order, the rest afterwards. A
    /// workload has to be gone, with its pods, before what comes after it: a pod that ends needs its
    /// account and its rights until then. What lies neither in `namespace` nor in the order is none of ours,
    /// whatever it says.
    pub(crate) fn new(world: &World, uid: &str, order: &[ObjectRef], namespace: &str) -> Self {
        let mut children = world.children(uid);
        let place = |object: &ObjectRef| {
            let place = order.iter().position(|other| other == object);
            place.unwrap_or(order.len())
        };
        let is_ours = |object: &ObjectRef| {
            let of = object.namespace.as_deref();
            of.is_none_or(|of| of == namespace) || order.contains(object)
        };
        children.retain(|(object, _)| is_ours(object));
        children.sort_by_key(|(object, _)| place(object));
        let mut removal = Self {
            doomed: Vec::new(),
            is_complete: children.is_empty(),
        };
        for (object, live) in children {
            let blocks = object.is_workload();
            if !owned::is_deleting(&live) {
                removal.doomed.push(Doomed::new(object, &live));
            }
            if blocks {
                break;
            }
        }
        removal
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_say_what_the_server_would_say() {
        let mut body = json!({"env": [
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}}},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
        ]});
        complete(&mut body);
        let expected = json!({"env": [
            {"name": "NODE", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}}},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "0"}}},
        ]});
        assert_eq!(body, expected);
    }
    #[test]
    fn quantities_are_wanted_as_the_server_stores_them() {
        let mut body = json!({
            "resources": {"requests": {"cpu": "0.5", "memory": "2048Mi"}, "limits": {"memory": "x"}},
            "emptyDir": {"sizeLimit": "1024Ki"},
            "data": {"memory": "2048Mi"},
        });
        complete(&mut body);
        let expected = json!({
            "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"memory": "x"}},
            "emptyDir": {"sizeLimit": "1Mi"},
            "data": {"memory": "2048Mi"},
        });
        assert_eq!(body, expected);
    }
}
