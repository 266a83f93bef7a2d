//! Bad input: what a user sees, and that nothing is done.

use mesh_api::sail::{Istio, IstioCNI, IstioRevision, ZTunnel};
use serde_json::{Value, json};

use super::fixture::Cluster;
use crate::{
    outcome::{Happening, Outcome, Prune},
    reconcile::reconcilers,
    world::Custom,
};

/// What is said of the resource; and that nothing else is done, and an Event says the same.
fn refused<K: Custom>(
    cluster: &mut Cluster,
    name: &str,
    spec: Value,
    reconciler: &crate::outcome::Reconciler<K>,
) -> String {
    cluster.apply::<K>(name, spec);
    let Outcome {
        apply,
        prune,
        events,
        ..
    } = cluster.reconcile(name, reconciler);
    assert_eq!((apply, prune), (vec![], Prune::Keep));
    cluster.settle();
    let condition = cluster.condition::<K>(name, "Reconciled");
    let (reason, message) = condition.split_once(": ").unwrap();
    let reason = reason.strip_prefix("False/").unwrap();
    assert_eq!(cluster.state::<K>(name), reason);
    let Happening {
        reason: said,
        message: told,
        ..
    } = &events[0];
    assert_eq!((*said, told.as_str()), (reason, message));
    condition
}

#[test]
fn versions_that_cannot_be_had_are_refused() {
    let all = reconcilers();
    let mut cluster = Cluster::new();
    let old = json!({"version": "v1.23.2", "namespace": "istio-system"});
    let said = "False/ReconcileError: version v1.23.2 is end-of-life and cannot be installed: use v1.24 or \
         later, such as v1.30.3";
    assert_eq!(
        refused::<Istio>(&mut cluster, "default", old.clone(), &all.istio),
        said
    );
    assert_eq!(
        cluster.condition::<Istio>("default", "Ready"),
        "Unknown/ReconcileError: see the condition Reconciled"
    );
    assert!(cluster.world.revisions.is_empty());
    assert_eq!(
        refused::<IstioCNI>(&mut cluster, "default", old.clone(), &all.cni),
        said
    );
    assert_eq!(
        refused::<IstioRevision>(&mut cluster, "old", old, &all.revision),
        said
    );
    let unknown = json!({"version": "v9.9.9", "namespace": "ztunnel"});
    let said = refused::<ZTunnel>(&mut cluster, "default", unknown, &all.ztunnel);
    assert!(
        said.starts_with("False/ReconcileError: version v9.9.9 is not known"),
        "{said}"
    );
}

#[test]
fn what_was_installed_survives_a_bad_change() {
    let all = reconcilers();
    let mut cluster = Cluster::new();
    cluster.mesh("v1.30.3");
    cluster.run();
    let running = cluster.running();
    let bad = json!({"version": "v1.23.2", "namespace": "istio-system"});
    refused::<Istio>(&mut cluster, "default", bad, &all.istio);
    cluster.run();
    assert_eq!(cluster.running(), running);
    assert_eq!(
        cluster.status::<Istio>("default").active_revision_name,
        "default"
    );
}

#[test]
fn profiles_that_do_not_exist_or_cannot_be_had_are_refused_with_those_that_can() {
    let all = reconcilers();
    for profile in ["ambiant", "remote", "external"] {
        let mut cluster = Cluster::new();
        let spec = json!({"version": "v1.30.3", "namespace": "istio-system", "profile": profile});
        let said = refused::<Istio>(&mut cluster, "default", spec, &all.istio);
        assert!(
            said.contains(&format!("`{profile}`")) && said.contains("ambient"),
            "{said}"
        );
        let spec = json!({"version": "v1.30.3", "namespace": "istio-cni", "profile": profile});
        let said = refused::<IstioCNI>(&mut cluster, "default", spec, &all.cni);
        assert!(said.contains(&format!("`{profile}`")), "{said}");
    }
}

#[test]
fn values_of_a_wrong_kind_are_refused_with_their_path() {
    let all = reconcilers();
    let mut cluster = Cluster::new();
    let spec = json!({"version": "v1.30.3", "namespace": "ztunnel",
        "values": {"ztunnel": {"terminationGracePeriodSeconds": "soon"}}});
    let said = refused::<ZTunnel>(&mut cluster, "default", spec, &all.ztunnel);
    assert!(
        said.starts_with(
            "False/ReconcileError: spec.values.ztunnel.terminationGracePeriodSeconds: "
        ),
        "{said}"
    );
}

#[test]
fn a_namespace_has_to_exist_and_to_stay() {
    let all = reconcilers();
    let mut cluster = Cluster::new();
    let spec = json!({"version": "v1.30.3", "namespace": "mesh"});
    let missing = "False/ReconcileError: namespace \"mesh\" doesn't exist: create it with kubectl create \
         namespace mesh";
    assert_eq!(
        refused::<ZTunnel>(&mut cluster, "default", spec.clone(), &all.ztunnel),
        missing
    );
    assert_eq!(
        refused::<IstioCNI>(&mut cluster, "default", spec.clone(), &all.cni),
        missing
    );
    assert_eq!(
        refused::<IstioRevision>(&mut cluster, "default", spec.clone(), &all.revision),
        missing
    );
    cluster.namespace("mesh", &[]);
    cluster
        .world
        .namespaces
        .get_mut("mesh")
        .unwrap()
        .terminating = true;
    assert_eq!(
        refused::<ZTunnel>(&mut cluster, "default", spec, &all.ztunnel),
        "False/ReconcileError: namespace \"mesh\" is being deleted: wait until it is gone and create it again"
    );
    cluster
        .world
        .namespaces
        .get_mut("mesh")
        .unwrap()
        .terminating = false;
    cluster.run();
    assert_eq!(cluster.state::<ZTunnel>("default"), "Healthy");
}

#[test]
fn an_istio_says_what_its_revision_says() {
    let mut cluster = Cluster::new();
    cluster.apply::<Istio>(
        "default",
        json!({"version": "v1.30.3", "namespace": "mesh"}),
    );
    cluster.settle();
    assert_eq!(
        cluster.condition::<Istio>("default", "Reconciled"),
        "False/ReconcileError: namespace \"mesh\" doesn't exist: create it with kubectl create namespace mesh"
    );
    assert_eq!(cluster.state::<Istio>("default"), "ReconcileError");
    cluster.tag("taken", "Istio", "default");
    cluster.pass(std::time::Duration::from_secs(1));
    cluster.apply::<Istio>(
        "taken",
        json!({"version": "v1.30.3", "namespace": "istio-system"}),
    );
    cluster.settle();
    assert_eq!(cluster.state::<Istio>("taken"), "NameAlreadyExists");
}

#[test]
fn a_revision_agrees_with_its_values() {
    let all = reconcilers();
    let mut cluster = Cluster::new();
    let spec = |values: Value| json!({"version": "v1.30.3", "namespace": "istio-system", "values": values});
    assert_eq!(
        refused::<IstioRevision>(&mut cluster, "canary", spec(json!({})), &all.revision),
        "False/ReconcileError: spec.values.revision: is \"\" and has to be \"canary\" in an IstioRevision named \
         \"canary\""
    );
    let elsewhere = json!({"global": {"istioNamespace": "elsewhere"}});
    assert_eq!(
        refused::<IstioRevision>(&mut cluster, "default", spec(elsewhere), &all.revision),
        "False/ReconcileError: spec.values.global.istioNamespace: is \"elsewhere\" and has to be \
         spec.namespace, \"istio-system\""
    );
}
