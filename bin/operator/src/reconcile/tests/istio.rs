//! An Istio: the revision that it makes, and those that it prunes.

use std::time::Duration;

use mesh_api::sail::{
    Istio, IstioRevision, IstioStatus, RevisionSummary, condition::StatusCondition,
};
use serde_json::{Value, json};

use super::fixture::Cluster;
use crate::{
    outcome::{Outcome, Prune},
    reconcile::reconcilers,
};

fn spec(version: &str, strategy: &str) -> Value {
    json!({"version": version, "namespace": "istio-system", "profile": "ambient",
        "updateStrategy": {"type": strategy, "inactiveRevisionDeletionGracePeriodSeconds": 30}})
}

#[test]
fn an_istio_is_healthy_when_its_control_plane_runs() {
    let mut cluster = Cluster::new();
    cluster.apply::<Istio>("default", json!({
        "version": "v1.24.0", "namespace": "istio-system", "updateStrategy": {"type": "InPlace"}, "profile": "ambient",
        "values": {"pilot": {"trustedZtunnelNamespace": "ztunnel"},
            "meshConfig": {"discoverySelectors": [{"matchLabels": {"istio-discovery": "enabled"}}]}},
    }));
    cluster.settle();
    assert_eq!(cluster.state::<Istio>("default"), "IstiodNotReady");
    cluster.run();
    let revision = cluster.get::<IstioRevision>("default");
    assert_eq!(revision.spec.version, "v1.24.0");
    assert_eq!(
        Value::Object(revision.spec.values.clone()),
        json!({"profile": "ambient", "revision": "", "global": {"istioNamespace": "istio-system"},
            "pilot": {"trustedZtunnelNamespace": "ztunnel"},
            "meshConfig": {"discoverySelectors": [{"matchLabels": {"istio-discovery": "enabled"}}]}})
    );
    let at = "2001-09-09T01:46:40Z";
    let entry = |type_: &str, status: &str, reason: &str, message: &str| StatusCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: Some(1),
        last_transition_time: Some(at.to_owned()),
    };
    let status = cluster.status::<Istio>("default");
    let platform = status
        .conditions
        .iter()
        .filter(|known| known.type_ == "PlatformSupported")
        .cloned();
    let mut conditions = vec![
        entry("Reconciled", "True", "Reconciled", ""),
        entry("Ready", "True", "Ready", ""),
        // The rest of the mesh is installed after the control plane.
        entry(
            "DependenciesHealthy",
            "False",
            "IstioCNINotFound",
            "there is no IstioCNI named \"default\": create it, the mesh does not work without it",
        ),
        entry("ValuesRecognized", "True", "ValuesRecognized", ""),
    ];
    conditions.extend(platform);
    assert_eq!(
        status,
        IstioStatus {
            observed_generation: Some(1),
            conditions,
            state: "Healthy".to_owned(),
            active_revision_name: "default".to_owned(),
            revisions: Some(RevisionSummary {
                total: 1,
                ready: 1,
                in_use: 0
            }),
        }
    );
}

#[test]
fn a_revision_is_named_after_the_version_as_it_is_written() {
    for (version, strategy, name, release) in [
        ("v1.30.2", "InPlace", "default", "v1.30.2"),
        ("v1.30.2", "RevisionBased", "default-v1-30-2", "v1.30.2"),
        (
            "v1.30-latest",
            "RevisionBased",
            "default-v1-30-latest",
            "v1.30.3",
        ),
        ("v1.30-latest", "InPlace", "default", "v1.30.3"),
    ] {
        let mut cluster = Cluster::new();
        cluster.apply::<Istio>("default", spec(version, strategy));
        cluster.settle();
        assert_eq!(
            cluster.status::<Istio>("default").active_revision_name,
            name
        );
        assert_eq!(
            cluster.get::<IstioRevision>(name).spec.version,
            release,
            "{version} {strategy}"
        );
    }
}

#[test]
fn the_profile_of_the_values_comes_first() {
    for (spec, expected) in [
        (json!({"profile": "ambient"}), "ambient"),
        (
            json!({"profile": "ambient", "values": {"profile": "preview"}}),
            "preview",
        ),
        (json!({"values": {"profile": ""}}), "default"),
    ] {
        let mut cluster = Cluster::new();
        let mut whole = json!({"version": "v1.30.3", "namespace": "istio-system"});
        whole
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        cluster.apply::<Istio>("default", whole);
        cluster.settle();
        assert_eq!(
            cluster.get::<IstioRevision>("default").spec.values["profile"],
            expected
        );
    }
}

#[test]
fn an_inactive_revision_goes_when_nobody_has_used_it_for_the_time_of_grace() {
    let mut cluster = Cluster::new();
    cluster.apply::<Istio>("default", spec("v1.29.6", "RevisionBased"));
    cluster.namespace("shop", &[("istio.io/rev", "default-v1-29-6")]);
    cluster.run();
    cluster.apply::<Istio>("default", spec("v1.30.3", "RevisionBased"));
    cluster.run();
    cluster.pass(Duration::from_secs(3600));
    cluster.run();
    assert_eq!(
        cluster.running(),
        [
            "istiod-default-v1-29-6 1.29.6",
            "istiod-default-v1-30-3 1.30.3"
        ]
    );
    assert_eq!(
        cluster.status::<Istio>("default").revisions,
        Some(RevisionSummary {
            total: 2,
            ready: 2,
            in_use: 1
        })
    );

    cluster.namespace("shop", &[("istio.io/rev", "default-v1-30-3")]);
    cluster.settle();
    let wait = cluster.reconcile("default", &reconcilers().istio);
    assert_eq!(
        (wait.prune, wait.again),
        (Prune::Only(Vec::new()), Some(Duration::from_secs(30)))
    );
    cluster.pass(Duration::from_secs(29));
    cluster.run();
    assert_eq!(cluster.world.revisions.len(), 2);
    // Somebody comes back at the last moment.
    cluster.namespace("web", &[("istio.io/rev", "default-v1-29-6")]);
    cluster.pass(Duration::from_secs(1));
    cluster.run();
    assert_eq!(cluster.world.revisions.len(), 2);
    cluster.namespace("web", &[]);
    cluster.settle();
    cluster.pass(Duration::from_secs(30));
    cluster.run();
    assert_eq!(
        cluster.world.revisions.keys().collect::<Vec<_>>(),
        ["default-v1-30-3"]
    );
}

#[test]
fn a_revision_of_which_nobody_knows_whether_it_is_used_stays() {
    let mut cluster = Cluster::new();
    cluster.apply::<Istio>("default", spec("v1.29.6", "RevisionBased"));
    cluster.run();
    cluster.apply::<Istio>("default", spec("v1.30.3", "RevisionBased"));
    cluster.settle();
    cluster.pass(Duration::from_secs(3600));
    let mut old = (*cluster.world.revisions["default-v1-29-6"]).clone();
    for condition in &mut old.status.as_mut().unwrap().conditions {
        if condition.type_ == "InUse" {
            condition.status = "Unknown".to_owned();
        }
    }
    cluster
        .world
        .revisions
        .insert("default-v1-29-6".to_owned(), old.into());
    let Outcome { prune, again, .. } = cluster.reconcile("default", &reconcilers().istio);
    assert_eq!((prune, again), (Prune::Only(Vec::new()), None));
}

#[test]
fn revisions_of_an_external_control_plane_are_not_pruned() {
    let external = json!({"pilot": {"env": {"EXTERNAL_ISTIOD": "true"}}});
    let with = |version: &str| {
        let mut spec = spec(version, "RevisionBased");
        spec["values"] = external.clone();
        spec
    };
    let mut cluster = Cluster::new();
    cluster.apply::<Istio>("default", with("v1.29.6"));
    cluster.run();
    cluster.apply::<Istio>("default", with("v1.30.3"));
    cluster.run();
    cluster.pass(Duration::from_secs(3600));
    cluster.settle();
    assert_eq!(cluster.world.revisions.len(), 2);
}

#[test]
fn a_change_that_the_revision_has_not_taken_over_is_not_reported_as_done() {
    let mut cluster = Cluster::new();
    cluster.apply::<Istio>("default", spec("v1.30.2", "InPlace"));
    cluster.run();
    assert_eq!(cluster.state::<Istio>("default"), "Healthy");
    cluster.apply::<Istio>("default", spec("v1.30.3", "InPlace"));
    let outcome = cluster.reconcile("default", &reconcilers().istio);
    assert_eq!(outcome.status.state, "IstiodNotReady");
    assert_eq!(
        outcome.status.conditions[1].message,
        "IstioRevision \"default\" has not taken over the last change yet"
    );
}
