//! IstioRevision and IstioRevisionTag: what they need, who uses them, and whose name it is.

use mesh_api::sail::{
    Istio, IstioCNI, IstioRevision, IstioRevisionTag, IstioRevisionTagStatus, ZTunnel,
};
use serde_json::{Value, json};

use super::fixture::Cluster;

fn spec(name: &str, more: &Value) -> Value {
    let revision = if name == "default" { "" } else { name };
    let mut values = json!({"revision": revision, "global": {"istioNamespace": "istio-system"}});
    values
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({"version": "v1.30.3", "namespace": "istio-system", "values": values})
}

fn cluster(name: &str, values: &Value) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.apply::<IstioRevision>(name, spec(name, values));
    cluster
}

fn dependencies(cluster: &mut Cluster) -> (String, String) {
    cluster.run();
    let condition = cluster.condition::<IstioRevision>("default", "DependenciesHealthy");
    let condition = condition.split(':').next().unwrap().to_owned();
    (condition, cluster.state::<IstioRevision>("default"))
}

fn pair(condition: &str, state: &str) -> (String, String) {
    (condition.to_owned(), state.to_owned())
}

#[test]
fn dependencies_are_the_node_agent_first_and_the_node_proxy_then() {
    let mut cluster = cluster(
        "default",
        &json!({"profile": "ambient", "pilot": {"cni": {"enabled": true}}}),
    );
    let missing = pair("False/IstioCNINotFound", "IstioCNINotFound");
    assert_eq!(dependencies(&mut cluster), missing);
    cluster.apply::<IstioCNI>(
        "default",
        json!({"version": "v1.30.3", "namespace": "istio-cni"}),
    );
    cluster.settle();
    let unhealthy = cluster.condition::<IstioRevision>("default", "DependenciesHealthy");
    assert_eq!(
        unhealthy,
        "False/IstioCNINotHealthy: IstioCNI \"default\" is not healthy, its state is DaemonSetNotReady: see its \
         conditions"
    );
    assert_eq!(
        dependencies(&mut cluster),
        pair("False/ZTunnelNotFound", "ZTunnelNotFound")
    );
    cluster.apply::<ZTunnel>(
        "default",
        json!({"version": "v1.30.3", "namespace": "ztunnel"}),
    );
    cluster.settle();
    assert_eq!(
        cluster.state::<IstioRevision>("default"),
        "ZTunnelNotHealthy"
    );
    assert_eq!(
        dependencies(&mut cluster),
        pair("True/DependenciesHealthy", "Healthy")
    );
    cluster.roll_out_of("istio-cni", 3, 1);
    cluster.settle();
    assert_eq!(
        cluster.state::<IstioRevision>("default"),
        "IstioCNINotHealthy"
    );
}

#[test]
fn what_was_not_asked_for_in_so_many_words_does_not_make_the_state() {
    let healthy = |condition| pair(condition, "Healthy");
    for (values, expected) in [
        (
            json!({"profile": "ambient"}),
            healthy("False/IstioCNINotFound"),
        ),
        (
            json!({"profile": "ambient", "pilot": {"cni": {"enabled": false}}}),
            healthy("False/ZTunnelNotFound"),
        ),
        (
            json!({"pilot": {"env": {"PILOT_ENABLE_AMBIENT": "true"}}}),
            healthy("False/IstioCNINotFound"),
        ),
        (json!({}), healthy("True/DependenciesHealthy")),
        (
            json!({"pilot": {"cni": {"enabled": true}}}),
            pair("False/IstioCNINotFound", "IstioCNINotFound"),
        ),
    ] {
        assert_eq!(
            dependencies(&mut cluster("default", &values)),
            expected,
            "{values}"
        );
    }
}

fn in_use(cluster: &mut Cluster, name: &str) -> bool {
    cluster.run();
    let condition = cluster.condition::<IstioRevision>(name, "InUse");
    match condition.split(':').next().unwrap() {
        "True/ReferencedByWorkloads" => true,
        "False/NotReferencedByAnything" => false,
        other => panic!("{other}"),
    }
}

#[test]
fn the_ambient_mesh_uses_the_revision_that_serves_it() {
    let mut cluster = cluster("default", &json!({}));
    assert!(!in_use(&mut cluster, "default"));
    cluster.namespace("shop", &[("istio.io/dataplane-mode", "ambient")]);
    assert!(in_use(&mut cluster, "default"));
    // The default revision serves, unless the ZTunnel refers to another one.
    cluster.apply::<IstioRevision>("canary", spec("canary", &json!({})));
    assert!(in_use(&mut cluster, "default") && !in_use(&mut cluster, "canary"));
    let target = json!({"kind": "IstioRevision", "name": "canary"});
    cluster.apply::<ZTunnel>(
        "default",
        json!({"version": "v1.30.3", "namespace": "ztunnel", "targetRef": target}),
    );
    assert!(!in_use(&mut cluster, "default") && in_use(&mut cluster, "canary"));
    cluster.namespace("shop", &[]);
    assert!(
        in_use(&mut cluster, "canary"),
        "the ZTunnel itself refers to it"
    );
}

#[test]
fn a_tag_uses_its_revision_and_is_used_by_name() {
    let mut cluster = cluster("canary", &json!({}));
    cluster.tag("prod", "IstioRevision", "canary");
    assert!(in_use(&mut cluster, "canary"));
    let status = cluster.status::<IstioRevisionTag>("prod");
    assert_eq!(status.state, "NotReferencedByAnything");
    cluster.namespace("shop", &[("istio.io/rev", "prod")]);
    cluster.settle();
    let status = cluster.status::<IstioRevisionTag>("prod");
    let expected = IstioRevisionTagStatus {
        state: "Healthy".to_owned(),
        istiod_namespace: "istio-system".to_owned(),
        istio_revision: "canary".to_owned(),
        ..status.clone()
    };
    assert_eq!(status, expected);
}

#[test]
fn a_tag_follows_the_active_revision_of_an_istio() {
    let mut cluster = Cluster::new();
    let istio = |version: &str| {
        json!({"version": version, "namespace": "istio-system",
        "updateStrategy": {"type": "RevisionBased"}})
    };
    cluster.tag("prod", "Istio", "default");
    cluster.settle();
    assert_eq!(
        cluster.condition::<IstioRevisionTag>("prod", "Reconciled"),
        "False/RefNotFound: spec.targetRef: there is no Istio \"default\": create it, or refer to another"
    );
    for (version, revision) in [
        ("v1.30.2", "default-v1-30-2"),
        ("v1.30.3", "default-v1-30-3"),
    ] {
        cluster.apply::<Istio>("default", istio(version));
        cluster.run();
        assert_eq!(
            cluster.status::<IstioRevisionTag>("prod").istio_revision,
            revision
        );
    }
    cluster.tag("prod", "IstioRevision", "gone");
    cluster.settle();
    assert_eq!(cluster.state::<IstioRevisionTag>("prod"), "RefNotFound");
    assert_eq!(
        cluster.status::<IstioRevisionTag>("prod").istio_revision,
        "default-v1-30-3"
    );
}

#[test]
fn of_a_revision_and_a_tag_the_older_one_has_the_name() {
    let mut cluster = cluster("prod", &json!({}));
    cluster.apply::<IstioRevision>("other", spec("other", &json!({})));
    cluster.pass(std::time::Duration::from_secs(1));
    cluster.tag("prod", "IstioRevision", "other");
    cluster.settle();
    assert_eq!(
        cluster.condition::<IstioRevisionTag>("prod", "Reconciled"),
        "False/NameAlreadyExists: an IstioRevision named \"prod\" exists already: rename or delete one of the two"
    );
    assert_eq!(
        cluster.condition::<IstioRevision>("prod", "Reconciled"),
        "True/Reconciled"
    );

    let mut cluster = self::cluster("other", &json!({}));
    cluster.tag("prod", "IstioRevision", "other");
    cluster.pass(std::time::Duration::from_secs(1));
    cluster.apply::<IstioRevision>("prod", spec("prod", &json!({})));
    cluster.settle();
    assert_eq!(cluster.state::<IstioRevision>("prod"), "NameAlreadyExists");
    assert_eq!(
        cluster.condition::<IstioRevisionTag>("prod", "Reconciled"),
        "True/Reconciled"
    );
}
