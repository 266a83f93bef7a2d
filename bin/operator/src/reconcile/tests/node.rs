//! IstioCNI and ZTunnel.

use std::time::Duration;

use mesh_api::sail::{Istio, IstioCNI, IstioRevision, ZTunnel};
use mesh_render::object::DAEMON_SET;
use serde_json::{Value, json};

use super::fixture::Cluster;
use crate::{key::ObjectRef, reconcile::reconcilers};

fn daemon_set(cluster: &Cluster) -> Value {
    let object = ObjectRef::namespaced(DAEMON_SET, "ztunnel", "ztunnel");
    cluster.world.owned.get(&object).unwrap().body.clone()
}

fn variable(cluster: &Cluster, name: &str) -> Value {
    let live = daemon_set(cluster);
    let all = live["spec"]["template"]["spec"]["containers"][0]["env"]
        .as_array()
        .unwrap()
        .clone();
    let found = all.into_iter().find(|variable| variable["name"] == name);
    found
        .map(|variable| variable["value"].clone())
        .unwrap_or_default()
}

#[test]
fn a_ztunnel_takes_over_what_its_target_says_and_its_own_values_win() {
    let mut cluster = Cluster::new();
    let istio = |network: &str| {
        json!({"version": "v1.30.3", "namespace": "istio-system",
        "values": {"global": {"network": network}}})
    };
    let ztunnel = |values: Value| {
        json!({"version": "v1.30.3", "namespace": "ztunnel", "values": values,
        "targetRef": {"kind": "Istio", "name": "default"}})
    };
    cluster.apply::<ZTunnel>("default", ztunnel(json!({})));
    cluster.settle();
    assert_eq!(
        cluster.condition::<ZTunnel>("default", "Reconciled"),
        "False/ReconcileError: spec.targetRef: there is no Istio \"default\": create it, or refer to another"
    );
    assert_eq!(cluster.status::<ZTunnel>("default").istio_revision, "");
    cluster.apply::<Istio>("default", istio("one"));
    cluster.run();
    assert_eq!(variable(&cluster, "NETWORK"), "one");
    assert_eq!(
        cluster.status::<ZTunnel>("default").istio_revision,
        "default"
    );
    cluster.apply::<Istio>("default", istio("two"));
    cluster.run();
    assert_eq!(variable(&cluster, "NETWORK"), "two");
    cluster.apply::<ZTunnel>("default", ztunnel(json!({"ztunnel": {"network": "own"}})));
    cluster.run();
    assert_eq!(variable(&cluster, "NETWORK"), "own");
    cluster.apply::<ZTunnel>("default", ztunnel(json!({})));
    cluster.run();
    assert_eq!(variable(&cluster, "NETWORK"), "two");
}

#[test]
fn a_namespace_that_the_control_plane_does_not_look_at_is_told() {
    let mut cluster = Cluster::new();
    cluster.mesh("v1.30.3");
    let selectors = json!([{"matchLabels": {"istio-discovery": "enabled"}}]);
    cluster.apply::<Istio>(
        "default",
        json!({"version": "v1.30.3", "namespace": "istio-system",
        "profile": "ambient", "values": {"meshConfig": {"discoverySelectors": selectors}}}),
    );
    cluster.namespace("ztunnel", &[]);
    cluster.settle();
    let note = "namespace \"ztunnel\" is not selected by spec.values.meshConfig.discoverySelectors of \
         IstioRevision \"default\", so the root certificate does not arrive there and pods cannot start: label \
         the namespace as they ask";
    let ready = cluster.condition::<ZTunnel>("default", "Ready");
    assert!(ready.ends_with(note), "{ready}");
    let events = cluster.reconcile("default", &reconcilers().ztunnel).events;
    assert_eq!(
        (events[0].reason, events[0].message.as_str()),
        ("NamespaceNotDiscovered", note)
    );
    cluster.namespace("ztunnel", &[("istio-discovery", "enabled")]);
    cluster.settle();
    assert_eq!(
        cluster.reconcile("default", &reconcilers().ztunnel).events,
        []
    );
}

#[test]
fn a_rollout_that_does_not_come_to_its_end_is_told_after_a_while() {
    let mut cluster = Cluster::new();
    cluster.mesh("v1.30.3");
    cluster.settle();
    cluster.roll_out_of("ztunnel", 2, 2);
    cluster.settle();
    let outcome = cluster.reconcile("default", &reconcilers().ztunnel);
    assert_eq!(
        (outcome.again, outcome.events),
        (Some(Duration::from_secs(600)), vec![])
    );
    cluster.pass(Duration::from_secs(600));
    let outcome = cluster.reconcile("default", &reconcilers().ztunnel);
    let message =
        "DaemonSet ztunnel/ztunnel: 2 of 3 pods are updated; not ready since 2001-09-09T01:46:40Z";
    assert_eq!(outcome.status.conditions[1].message, message);
    assert_eq!(
        (outcome.events[0].reason, outcome.events[0].message.as_str()),
        ("RolloutStalled", message)
    );
}

#[test]
fn values_without_effect_are_named_and_do_no_harm() {
    let mut cluster = Cluster::new();
    cluster.mesh("v1.30.3");
    cluster.apply::<IstioCNI>(
        "default",
        json!({"version": "v1.30.3", "namespace": "istio-cni",
        "values": {"cni": {"loging": {"level": "debug"}}}}),
    );
    cluster.run();
    assert_eq!(
        cluster.condition::<IstioCNI>("default", "ValuesRecognized"),
        "False/UnknownValues: spec.values.cni.loging is not known and has no effect"
    );
    assert_eq!(cluster.state::<IstioCNI>("default"), "Healthy");
}

#[test]
fn the_control_plane_trusts_the_namespace_of_the_ztunnel() {
    let mut cluster = Cluster::new();
    cluster.namespace("mesh-nodes", &[]);
    cluster.apply::<IstioRevision>(
        "default",
        json!({"version": "v1.30.3", "namespace": "istio-system"}),
    );
    cluster.apply::<ZTunnel>(
        "default",
        json!({"version": "v1.30.3", "namespace": "mesh-nodes"}),
    );
    cluster.run();
    let istiod = ObjectRef::namespaced(mesh_render::object::DEPLOYMENT, "istio-system", "istiod");
    let istiod = cluster.world.owned.get(&istiod).unwrap().body.to_string();
    assert!(istiod.contains("mesh-nodes/ztunnel"), "{istiod}");
}
