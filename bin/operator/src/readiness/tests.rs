use mesh_render::object::{DAEMON_SET, DEPLOYMENT};
use serde_json::json;

use super::*;

fn rollout(uniform: bool, pending: impl Into<Option<Pending>>) -> Rollout {
    Rollout {
        uniform,
        pending: pending.into(),
    }
}

fn deployment(generation: i64, replicas: u64, status: &Value) -> Rollout {
    let live = json!({"metadata": {"generation": generation}, "spec": {"replicas": replicas}, "status": status});
    of_deployment(Some(&live))
}

fn daemon_set(generation: i64, status: &Value) -> Rollout {
    of_daemon_set(Some(
        &json!({"metadata": {"generation": generation}, "status": status}),
    ))
}

#[test]
fn a_deployment_is_rolled_out_when_all_pods_are_new_and_ready() {
    let status = |observed: i64, replicas: u64, updated: u64, ready: u64| json!({"observedGeneration": observed, "replicas": replicas, "updatedReplicas": updated, "readyReplicas": ready});
    let cases = [
        ("done", 2, 2, status(2, 2, 2, 2), rollout(true, None)),
        (
            "old pods are ready",
            2,
            2,
            status(1, 2, 2, 2),
            rollout(false, Pending::Unobserved),
        ),
        (
            "surge",
            2,
            2,
            status(2, 3, 1, 2),
            rollout(
                false,
                Pending::Updating {
                    updated: 1,
                    wanted: 3,
                },
            ),
        ),
        (
            "old ones left",
            2,
            2,
            status(2, 3, 2, 3),
            rollout(
                false,
                Pending::Updating {
                    updated: 2,
                    wanted: 3,
                },
            ),
        ),
        (
            "new ones start",
            2,
            2,
            status(2, 2, 2, 1),
            rollout(
                true,
                Pending::NotReady {
                    ready: 1,
                    wanted: 2,
                },
            ),
        ),
        (
            "scaled up",
            2,
            5,
            status(2, 2, 2, 2),
            rollout(
                true,
                Pending::Updating {
                    updated: 2,
                    wanted: 5,
                },
            ),
        ),
        (
            "scaled to zero",
            2,
            0,
            status(2, 0, 0, 0),
            rollout(true, Pending::ScaledToZero),
        ),
        ("fresh", 1, 1, json!({}), rollout(true, Pending::NoPods)),
    ];
    for (case, generation, replicas, status, expected) in cases {
        assert_eq!(
            deployment(generation, replicas, &status),
            expected,
            "{case}"
        );
    }
    assert_eq!(of_deployment(None), rollout(true, Pending::Missing));
}

#[test]
fn a_deployment_that_cannot_go_on_says_why() {
    let status = |conditions: Value| json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "conditions": conditions});
    let deadline = json!({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
        "message": "ReplicaSet \"istiod-5\" has timed out progressing."});
    let refused = json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
        "message": "pods \"istiod-5-\" is forbidden: unable to validate against any security context constraint"});
    let progressing =
        json!({"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"});
    let pending = |conditions: Value| deployment(1, 1, &status(conditions)).pending;
    assert_eq!(
        pending(json!([deadline])),
        Some(Pending::Failed(
            "ProgressDeadlineExceeded: ReplicaSet \"istiod-5\" has timed out progressing."
                .to_owned()
        ))
    );
    assert_eq!(
        pending(json!([deadline, refused])),
        Some(Pending::Failed(
            "FailedCreate: pods \"istiod-5-\" is forbidden: unable to validate against any \
             security context constraint"
                .to_owned()
        ))
    );
    assert_eq!(
        pending(json!([progressing])),
        Some(Pending::NotReady {
            ready: 0,
            wanted: 1
        })
    );
}

#[test]
fn a_daemon_set_is_rolled_out_when_all_nodes_have_a_new_ready_pod() {
    let status = |observed: i64, wanted: u64, updated: u64, ready: u64| {
        json!({"observedGeneration": observed, "desiredNumberScheduled": wanted, "currentNumberScheduled": wanted,
            "updatedNumberScheduled": updated, "numberReady": ready})
    };
    let cases = [
        ("done", 2, status(2, 3, 3, 3), rollout(true, None)),
        (
            "all old and ready",
            2,
            status(1, 3, 3, 3),
            rollout(false, Pending::Unobserved),
        ),
        (
            "old and ready, seen",
            2,
            status(2, 3, 0, 3),
            rollout(
                false,
                Pending::Updating {
                    updated: 0,
                    wanted: 3,
                },
            ),
        ),
        (
            "one after the other",
            2,
            status(2, 3, 2, 3),
            rollout(
                false,
                Pending::Updating {
                    updated: 2,
                    wanted: 3,
                },
            ),
        ),
        (
            "a dead node",
            2,
            status(2, 3, 3, 2),
            rollout(
                true,
                Pending::NotReady {
                    ready: 2,
                    wanted: 3,
                },
            ),
        ),
        (
            "no node matches",
            2,
            status(2, 0, 0, 0),
            rollout(true, Pending::NoNodes),
        ),
        ("fresh", 1, json!({}), rollout(true, Pending::NoPods)),
    ];
    for (case, generation, status, expected) in cases {
        assert_eq!(daemon_set(generation, &status), expected, "{case}");
    }
    assert_eq!(of_daemon_set(None), rollout(true, Pending::Missing));
}

#[test]
fn a_status_without_observed_generation_is_judged_by_its_counts() {
    let counts = |current: u64, ready: u64| {
        daemon_set(
            5,
            &json!({"desiredNumberScheduled": 0, "currentNumberScheduled": current, "numberReady": ready}),
        )
    };
    assert_eq!(counts(3, 3), rollout(true, None));
    assert_eq!(
        counts(3, 1),
        rollout(
            true,
            Pending::NotReady {
                ready: 1,
                wanted: 3
            }
        )
    );
    let counts = |replicas: u64, ready: u64| {
        deployment(5, 1, &json!({"replicas": replicas, "readyReplicas": ready}))
    };
    assert_eq!(counts(1, 1), rollout(true, None));
    assert_eq!(
        counts(2, 1),
        rollout(
            true,
            Pending::NotReady {
                ready: 1,
                wanted: 2
            }
        )
    );
}

#[test]
fn an_explanation_holds_what_a_pod_of_the_workload_complains_about() {
    let stuck = |controller: &str, reason: &str, message: &str| Stuck {
        controller: controller.to_owned(),
        node: Some("worker-1".to_owned()),
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..Stuck::default()
    };
    let pull = stuck(
        "ztunnel",
        "ImagePullBackOff",
        "Back-off pulling image \"quay.io/x/ztunnel:1\"",
    );
    let crash = stuck("istiod-6f9b55c5db", "CrashLoopBackOff", "");
    let canary = stuck(
        "istiod-canary-6f9b55c5db",
        "Unschedulable",
        "0/3 nodes are available",
    );
    let pods = [
        ("istiod-a", &crash),
        ("istiod-b", &canary),
        ("ztunnel-x", &pull),
        ("ztunnel-y", &pull),
    ];
    let ztunnel = ObjectRef::namespaced(DAEMON_SET, "ztunnel", "ztunnel");
    let updating = Pending::Updating {
        updated: 1,
        wanted: 3,
    };
    assert_eq!(
        explain(&ztunnel, &updating, pods.into_iter()),
        "DaemonSet ztunnel/ztunnel: 1 of 3 pods are updated; pod ztunnel-x on node worker-1: ImagePullBackOff: \
         Back-off pulling image \"quay.io/x/ztunnel:1\" - check the image in spec.values, the registry, and \
         global.imagePullSecrets (1 more pods do not come up)"
    );
    let istiod = ObjectRef::namespaced(DEPLOYMENT, "istio-system", "istiod");
    let not_ready = Pending::NotReady {
        ready: 0,
        wanted: 1,
    };
    assert_eq!(
        explain(&istiod, &not_ready, pods.into_iter()),
        "Deployment istio-system/istiod: 0 of 1 pods are ready; pod istiod-a on node worker-1: CrashLoopBackOff - \
         see kubectl logs -n istio-system istiod-a --previous"
    );
    let cni = ObjectRef::namespaced(DAEMON_SET, "istio-cni", "istio-cni-node");
    assert_eq!(
        explain(&cni, &Pending::NoNodes, pods.into_iter()),
        "DaemonSet istio-cni/istio-cni-node: no pods are scheduled: no node matches its node selector and tolerations"
    );
}
