//! Installations, upgrades, ways back and removals of a whole mesh.

use std::time::Duration;

use mesh_api::sail::{Istio, IstioCNI, IstioRevision, ZTunnel};
use serde_json::json;

use super::fixture::Cluster;
use crate::{key::ObjectRef, outcome::Finalize, reconcile::reconcilers, world::Stuck};

const ENROLLED: &[(&str, &str)] = &[("ambient.istio.io/redirection", "enabled")];

fn healthy(cluster: &Cluster) -> [String; 3] {
    [
        cluster.state::<Istio>("default"),
        cluster.state::<IstioCNI>("default"),
        cluster.state::<ZTunnel>("default"),
    ]
}

#[test]
fn a_mesh_is_installed_at_once() {
    let mut cluster = Cluster::new();
    cluster.mesh("v1.30.3");
    cluster.settle();
    assert_eq!(
        cluster.changes,
        ["istiod 1.30.3", "istio-cni-node 1.30.3", "ztunnel 1.30.3"]
    );
    assert_eq!(
        healthy(&cluster),
        ["IstiodNotReady", "DaemonSetNotReady", "DaemonSetNotReady"]
    );
    cluster.run();
    assert_eq!(healthy(&cluster), ["Healthy"; 3]);
}

#[test]
fn an_upgrade_goes_through_the_components_one_after_the_other() {
    let mut cluster = Cluster::new();
    cluster.mesh("v1.29.6");
    cluster.run();
    cluster.changes.clear();
    cluster.mesh("v1.30.3");
    cluster.settle();
    assert_eq!(
        cluster.running(),
        ["istio-cni-node 1.29.6", "istiod 1.30.3", "ztunnel 1.29.6"]
    );
    assert_eq!(
        cluster.condition::<ZTunnel>("default", "Reconciled"),
        "False/WaitingForControlPlane: waiting for the control plane to be rolled out at v1.30.3"
    );
    // Half of the pods are not enough.
    cluster.roll_out_of("istiod", 3, 2);
    cluster.settle();
    assert_eq!(
        healthy(&cluster),
        [
            "IstiodNotReady",
            "WaitingForControlPlane",
            "WaitingForControlPlane"
        ]
    );
    cluster.roll_out_of("istiod", 3, 3);
    cluster.settle();
    assert_eq!(
        cluster.running(),
        ["istio-cni-node 1.30.3", "istiod 1.30.3", "ztunnel 1.29.6"]
    );
    assert_eq!(cluster.state::<ZTunnel>("default"), "WaitingForCNI");
    cluster.roll_out_of("istio-cni", 3, 3);
    cluster.settle();
    assert_eq!(
        cluster.changes,
        ["istiod 1.30.3", "istio-cni-node 1.30.3", "ztunnel 1.30.3"]
    );
    cluster.run();
    assert_eq!(healthy(&cluster), ["Healthy"; 3]);
}

#[test]
fn going_back_goes_the_other_way() {
    let mut cluster = Cluster::new();
    cluster.mesh("v1.30.3");
    cluster.run();
    cluster.changes.clear();
    cluster.mesh("v1.29.6");
    cluster.settle();
    assert_eq!(
        cluster.state::<IstioRevision>("default"),
        "WaitingForZTunnel"
    );
    cluster.run();
    assert_eq!(
        cluster.changes,
        ["ztunnel 1.29.6", "istio-cni-node 1.29.6", "istiod 1.29.6"]
    );
    assert_eq!(healthy(&cluster), ["Healthy"; 3]);
}

#[test]
fn a_failed_rollout_stops_the_upgrade_says_why_and_can_be_taken_back() {
    let mut cluster = Cluster::new();
    cluster.mesh("v1.29.6");
    cluster.run();
    cluster.mesh("v1.30.3");
    cluster.settle();
    cluster.roll_out_of("istiod", 3, 3);
    cluster.settle();
    cluster.roll_out_of("istio-cni", 1, 2);
    let pod = Stuck {
        controller: "istio-cni-node".to_owned(),
        node: Some("worker-2".to_owned()),
        reason: "ImagePullBackOff".to_owned(),
        message: "no such image".to_owned(),
        ..Stuck::default()
    };
    let key = ("istio-cni".to_owned(), "istio-cni-node-x".to_owned());
    cluster.world.stuck.insert(key.clone(), pod);
    cluster.settle();
    assert_eq!(
        cluster.running(),
        ["istio-cni-node 1.30.3", "istiod 1.30.3", "ztunnel 1.29.6"]
    );
    assert_eq!(
        cluster.condition::<IstioCNI>("default", "Ready"),
        "False/DaemonSetNotReady: DaemonSet istio-cni/istio-cni-node: 1 of 3 pods are updated; pod \
         istio-cni-node-x on node worker-2: ImagePullBackOff: no such image - check the image in spec.values, \
         the registry, and global.imagePullSecrets"
    );
    assert_eq!(
        cluster.condition::<ZTunnel>("default", "Reconciled"),
        "False/WaitingForCNI: waiting for the CNI agent to be rolled out at v1.30.3"
    );
    cluster.world.stuck.remove(&key);
    cluster.changes.clear();
    cluster.mesh("v1.29.6");
    cluster.run();
    assert_eq!(cluster.changes, ["istio-cni-node 1.29.6", "istiod 1.29.6"]);
    assert_eq!(healthy(&cluster), ["Healthy"; 3]);
}

#[test]
fn a_skew_is_refused_and_what_runs_stays() {
    let mut cluster = Cluster::new();
    cluster.mesh("v1.29.6");
    cluster.run();
    cluster.changes.clear();
    cluster.nodes("v1.30.3");
    cluster.run();
    assert_eq!(cluster.changes, [""; 0]);
    assert_eq!(
        cluster.condition::<ZTunnel>("default", "Reconciled"),
        "False/VersionSkew: v1.30.3 of ztunnel does not go with v1.29.6 of the control plane: what runs on the \
         nodes is of the control plane's minor version or the one before; set spec.version of Istio to v1.30 \
         first"
    );
    assert_eq!(
        cluster.condition::<ZTunnel>("default", "Ready"),
        "True/Ready"
    );
    let outcome = cluster.reconcile("default", &reconcilers().ztunnel);
    assert_eq!(outcome.events[0].reason, "VersionSkew");
    // The control plane comes after, as it should have come before.
    cluster.mesh("v1.30.3");
    cluster.run();
    assert_eq!(
        cluster.changes,
        ["istiod 1.30.3", "istio-cni-node 1.30.3", "ztunnel 1.30.3"]
    );
}

#[test]
fn a_new_revision_takes_the_nodes_over_when_it_is_ready() {
    let mut cluster = Cluster::new();
    let istio = |version: &str| {
        json!({"version": version, "namespace": "istio-system", "profile": "ambient",
        "updateStrategy": {"type": "RevisionBased"}})
    };
    cluster.apply::<Istio>("default", istio("v1.30.2"));
    cluster.nodes("v1.30.2");
    let ztunnel = json!({"version": "v1.30.2", "namespace": "ztunnel", "targetRef": {"kind": "Istio", "name": "default"}});
    cluster.apply::<ZTunnel>("default", ztunnel);
    cluster.namespace("shop", &[("istio.io/dataplane-mode", "ambient")]);
    cluster.run();
    assert_eq!(
        cluster.status::<ZTunnel>("default").istio_revision,
        "default-v1-30-2"
    );
    cluster.apply::<Istio>("default", istio("v1.30.3"));
    cluster.settle();
    assert_eq!(
        cluster.status::<ZTunnel>("default").istio_revision,
        "default-v1-30-2"
    );
    assert_eq!(
        cluster.condition::<ZTunnel>("default", "Reconciled"),
        "False/WaitingForControlPlane: ztunnel stays with revision default-v1-30-2 until revision \
         default-v1-30-3 is ready: Deployment istio-system/istiod-default-v1-30-3: there are no pods yet"
    );
    // However long that takes, the old one stays; also while some nodes still use it.
    let hour = Duration::from_secs(3600);
    cluster.pass(hour);
    cluster.settle();
    cluster.roll_out_of("istiod", 3, 3);
    cluster.settle();
    cluster.roll_out_of("ztunnel", 1, 3);
    cluster.settle();
    cluster.pass(hour);
    cluster.settle();
    assert_eq!(cluster.world.revisions.len(), 2);
    cluster.run();
    assert_eq!(
        cluster.status::<ZTunnel>("default").istio_revision,
        "default-v1-30-3"
    );
    assert_eq!(
        cluster.condition::<IstioRevision>("default-v1-30-3", "InUse"),
        "True/ReferencedByWorkloads"
    );
}

#[test]
fn node_components_stay_while_pods_are_in_the_mesh() {
    let all = reconcilers();
    let mut cluster = Cluster::new();
    cluster.mesh("v1.30.3");
    cluster.run();
    cluster.pod("bookinfo", "details", ENROLLED);
    cluster.delete::<ZTunnel>("default");
    cluster.delete::<IstioCNI>("default");
    let Finalize::Blocked { status, events, .. } = cluster.finalize("default", &all.ztunnel) else {
        panic!("removed");
    };
    let message = "1 pod is in the mesh, in namespace bookinfo (1), such as bookinfo/details; take them out with \
         kubectl label namespace NAME istio.io/dataplane-mode-, or annotate this resource with \
         lateen.io/uninstall=force, after which they have no network until they are restarted";
    assert_eq!(status.state, "UninstallBlocked");
    assert_eq!(status.conditions.last().unwrap().message, message);
    assert_eq!(
        (events[0].reason, events[0].message.as_str()),
        ("UninstallBlocked", message)
    );
    assert!(matches!(
        cluster.finalize("default", &all.cni),
        Finalize::Blocked { .. }
    ));

    let mut forced = Cluster::new();
    std::mem::swap(&mut forced.world, &mut cluster.world);
    forced.edit::<ZTunnel>("default", |meta| {
        let force = ("lateen.io/uninstall".to_owned(), "force".to_owned());
        meta.annotations = Some([force].into());
    });
    let removal = |name: &str| {
        let object = ObjectRef::namespaced(mesh_render::object::DAEMON_SET, name, name);
        Finalize::Remove {
            order: vec![object],
            namespace: name.to_owned(),
        }
    };
    assert_eq!(forced.finalize("default", &all.ztunnel), removal("ztunnel"));
    assert!(matches!(
        forced.finalize("default", &all.cni),
        Finalize::Blocked { .. }
    ));
    forced.world.usage.delete_pod("bookinfo", "details");
    assert!(matches!(
        forced.finalize("default", &all.cni),
        Finalize::Remove { .. }
    ));
}

#[test]
fn what_never_ran_is_removed_although_pods_are_in_somebody_elses_mesh() {
    let mut cluster = Cluster::new();
    cluster.pod("bookinfo", "details", ENROLLED);
    cluster.nodes("v1.20.0");
    cluster.settle();
    cluster.delete::<ZTunnel>("default");
    let removal = cluster.finalize("default", &reconcilers().ztunnel);
    assert!(matches!(removal, Finalize::Remove { .. }), "{removal:?}");
}
