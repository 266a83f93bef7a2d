//! Plans and removals, with toy worlds.

use mesh_render::object::{
    CLUSTER_ROLE, CONFIG_MAP, DAEMON_SET, NETWORK_ATTACHMENT_DEFINITION, SERVICE_ACCOUNT,
};
use serde_json::{Value, json};

use super::*;
use crate::{engine::plan::Doomed, key::ObjectRef, outcome::Prune, world::Live};

const UID: &str = "u1";

fn mk_owner() -> Owner {
    Owner {
        api_version: "sailoperator.io/v1".into(),
        kind: "IstioCNI".into(),
        name: "default".into(),
        uid: UID.into(),
    }
}

fn mk_object(kind: mesh_render::Kind, name: &str) -> mesh_render::Object {
    mesh_render::Object {
        kind,
        namespace: Some("n".into()),
        name: name.into(),
        body: json!({"metadata": {"name": name, "namespace": "n"}}),
    }
}

/// The world in which these objects live, owned by ours.
fn mk_world(objects: &[&mesh_render::Object], change: impl Fn(&mut Value)) -> World {
    let mut world = World::default();
    for object in objects {
        let mut body = object.body.clone();
        mk_owner().adopt(&mut body);
        body["metadata"]["uid"] = object.name.clone().into();
        change(&mut body);
        world.owned.insert(ObjectRef::of(object), Live { body });
    }
    world
}

fn names(doomed: &[Doomed]) -> Vec<&str> {
    doomed
        .iter()
        .map(|doomed| doomed.object.name.as_str())
        .collect()
}

fn removal_of(world: &World, order: &[ObjectRef]) -> Removal {
    Removal::new(world, UID, order, "n")
}

#[test]
fn what_is_owned_and_not_wanted_is_surplus_unless_it_is_kept() {
    let (old, new) = (mk_object(CONFIG_MAP, "old"), mk_object(CONFIG_MAP, "new"));
    let world = mk_world(&[&old, &new], |_| {});
    let surplus = |prune: Prune| {
        let plan = Plan::new(&world, &mk_owner(), vec![new.clone()], &prune);
        plan.surplus
            .iter()
            .map(|doomed| doomed.uid.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(surplus(Prune::Owned), ["old"]);
    assert_eq!(surplus(Prune::Keep), Vec::<String>::new());
    assert_eq!(surplus(Prune::Only(vec![ObjectRef::of(&old)])), ["old"]);
    assert_eq!(
        surplus(Prune::Only(vec![ObjectRef::of(&new)])),
        Vec::<String>::new()
    );
}

#[test]
fn what_is_applied_carries_our_labels_and_its_owner() {
    let plan = Plan::new(
        &World::default(),
        &mk_owner(),
        vec![mk_object(CONFIG_MAP, "x")],
        &Prune::Owned,
    );
    let body = &plan.wanted[0].body;
    let labels = json!({
        "app.kubernetes.io/managed-by": "lateen-operator",
        "managed-by": "sail-operator",
    });
    assert_eq!(body["metadata"]["labels"], labels);
    assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], UID);
    assert_eq!(
        (&body["apiVersion"], &body["kind"]),
        (&json!("v1"), &json!("ConfigMap"))
    );
    assert!(!plan.wanted[0].known);
}

#[test]
fn a_workload_is_gone_before_what_its_pods_need() {
    let (set, account) = (
        mk_object(DAEMON_SET, "set"),
        mk_object(SERVICE_ACCOUNT, "account"),
    );
    let order = [ObjectRef::of(&set)];
    let world = mk_world(&[&set, &account], |_| {});
    let removal = removal_of(&world, &order);
    assert_eq!(
        (names(&removal.doomed), removal.is_complete),
        (vec!["set"], false)
    );
    // Its pods are ending.
    let world = mk_world(&[&set, &account], |body| {
        if body["metadata"]["name"] == "set" {
            body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
    });
    let removal = removal_of(&world, &order);
    assert_eq!(
        (names(&removal.doomed), removal.is_complete),
        (vec![], false)
    );
    let world = mk_world(&[&account], |_| {});
    let removal = removal_of(&world, &order);
    assert_eq!(
        (names(&removal.doomed), removal.is_complete),
        (vec!["account"], false)
    );
    assert!(removal_of(&World::default(), &order).is_complete);
}

#[test]
fn what_others_claim_of_their_objects_holds_no_removal_up() {
    let mut forged = mk_object(DAEMON_SET, "forged");
    forged.namespace = Some("theirs".into());
    let mut attachment = mk_object(NETWORK_ATTACHMENT_DEFINITION, "attachment");
    attachment.namespace = Some("default".into());
    let mut role = mk_object(CLUSTER_ROLE, "role");
    role.namespace = None;
    let order = [ObjectRef::of(&attachment)];
    let world = mk_world(&[&forged, &attachment, &role], |_| {});
    let removal = removal_of(&world, &order);
    assert_eq!(
        (names(&removal.doomed), removal.is_complete),
        (vec!["attachment", "role"], false)
    );
    let world = mk_world(&[&forged], |_| {});
    let removal = removal_of(&world, &order);
    assert_eq!(
        (names(&removal.doomed), removal.is_complete),
        (vec![], true)
    );
}
