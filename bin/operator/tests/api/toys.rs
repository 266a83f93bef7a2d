//! Small reconcilers that ask the engine for everything that it can do.

use std::time::Duration;

use mesh_api::sail::{
    ComponentStatus, Istio, IstioCNI, IstioRevision, IstioStatus,
    condition::{self, READY, RECONCILED, StatusCondition, reason},
};
use mesh_render::{
    Kind, Object,
    object::{CLUSTER_ROLE, CONFIG_MAP, DAEMON_SET, DEPLOYMENT, SERVICE_ACCOUNT},
};
use operator::{
    key::{Managed, ObjectRef},
    outcome::{Finalize, Happening, Outcome, Prune, Reconciler, Reconcilers},
    reconcile,
    world::View,
};
use serde_json::{Value, json};

/// The annotation by which a test keeps an IstioCNI from going.
pub(crate) const NEEDED: &str = "test.example/needed";

/// Istio makes an IstioRevision of its name; that makes an account, a role, a ConfigMap and a Deployment.
/// IstioCNI makes an account, a ConfigMap of its version and a DaemonSet.
pub(crate) fn reconcilers() -> Reconcilers {
    Reconcilers {
        istio: Reconciler {
            reconcile: istio,
            finalize: None,
        },
        revision: Reconciler {
            reconcile: revision,
            finalize: Some(|_, revision| {
                let namespace = &revision.spec.namespace;
                Finalize::Remove {
                    order: vec![
                        ObjectRef::namespaced(DEPLOYMENT, namespace, "istiod"),
                        ObjectRef::global(CLUSTER_ROLE, "istiod"),
                    ],
                    namespace: namespace.clone(),
                }
            }),
        },
        cni: Reconciler {
            reconcile: cni,
            finalize: Some(remove_cni),
        },
        ..reconcile::reconcilers()
    }
}

fn object(kind: Kind, namespace: Option<&str>, name: &str, content: Value) -> Object {
    let mut body = content;
    body["metadata"] = json!({"name": name});
    if let Some(namespace) = namespace {
        body["metadata"]["namespace"] = namespace.into();
    }
    Object {
        kind,
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        body,
    }
}

fn workload(kind: Kind, namespace: &str, name: &str, image: &str) -> Object {
    let labels = json!({"app": name});
    let pods = json!({"containers": [{"name": "main", "image": image}]});
    let template = json!({"metadata": {"labels": labels}, "spec": pods});
    let spec = json!({"selector": {"matchLabels": labels}, "template": template});
    object(kind, Some(namespace), name, json!({"spec": spec}))
}

fn istio(view: &View<'_>, istio: &Istio) -> Outcome<IstioStatus> {
    let name = istio.metadata.name.clone().unwrap_or_default();
    let spec = json!({
        "version": istio.spec.version,
        "namespace": istio.spec.namespace,
        "values": {"global": {"istioNamespace": istio.spec.namespace}},
    });
    let kind = Managed::IstioRevision.kind();
    let active = view.get::<IstioRevision>(&name);
    let status = active.and_then(|revision| revision.status.clone());
    let status = status.unwrap_or_else(|| ComponentStatus {
        conditions: vec![StatusCondition::fails(
            READY,
            reason::ACTIVE_REVISION_NOT_FOUND,
            "",
        )],
        ..ComponentStatus::default()
    });
    Outcome {
        apply: vec![object(kind, None, &name, json!({"spec": spec}))],
        prune: Prune::Keep,
        status: IstioStatus {
            state: condition::state(&status.conditions, condition::STATE_OF_REVISION).to_owned(),
            conditions: status.conditions,
            active_revision_name: name,
            ..IstioStatus::default()
        },
        again: None,
        events: Vec::new(),
    }
}

fn revision(view: &View<'_>, revision: &IstioRevision) -> Outcome<ComponentStatus> {
    let spec = &revision.spec;
    let name = revision.metadata.name.clone().unwrap_or_default();
    let rules = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    let apply = vec![
        object(SERVICE_ACCOUNT, Some(&spec.namespace), "istiod", json!({})),
        object(CLUSTER_ROLE, None, &format!("istiod-{name}"), rules),
        object(
            CONFIG_MAP,
            Some(&spec.namespace),
            &format!("istio-{}", spec.version),
            json!({"data": {"version": spec.version}}),
        ),
        workload(DEPLOYMENT, &spec.namespace, "istiod", &spec.version),
    ];
    outcome(view, &spec.namespace, apply)
}

fn cni(view: &View<'_>, cni: &IstioCNI) -> Outcome<ComponentStatus> {
    let spec = &cni.spec;
    let data = json!({"data": {"version": spec.version}});
    let apply = vec![
        object(
            SERVICE_ACCOUNT,
            Some(&spec.namespace),
            "istio-cni",
            json!({}),
        ),
        object(CONFIG_MAP, Some(&spec.namespace), "istio-cni-config", data),
        workload(DAEMON_SET, &spec.namespace, "istio-cni-node", &spec.version),
    ];
    outcome(view, &spec.namespace, apply)
}

fn remove_cni(_view: &View<'_>, cni: &IstioCNI) -> Finalize<ComponentStatus> {
    let annotations = cni.metadata.annotations.iter().flatten();
    if annotations.into_iter().any(|(name, _)| name == NEEDED) {
        let message = "somebody needs it";
        return Finalize::Blocked {
            status: status(vec![StatusCondition::fails(
                RECONCILED,
                reason::UNINSTALL_BLOCKED,
                message,
            )]),
            events: vec![Happening::warning(reason::UNINSTALL_BLOCKED, message)],
            again: None,
        };
    }
    let namespace = &cni.spec.namespace;
    Finalize::Remove {
        order: vec![
            ObjectRef::namespaced(DAEMON_SET, namespace, "istio-cni-node"),
            ObjectRef::namespaced(SERVICE_ACCOUNT, namespace, "istio-cni"),
        ],
        namespace: namespace.clone(),
    }
}

fn outcome(view: &View<'_>, namespace: &str, apply: Vec<Object>) -> Outcome<ComponentStatus> {
    let problem = match view.namespace(namespace) {
        None => Some(format!("namespace {namespace:?} doesn't exist")),
        Some(found) if found.terminating => {
            Some(format!("namespace {namespace:?} is being deleted"))
        }
        Some(_) => None,
    };
    if let Some(problem) = problem {
        let failed = StatusCondition::fails(RECONCILED, reason::RECONCILE_ERROR, problem.clone());
        let mut outcome = Outcome::held(status(vec![failed]));
        outcome.events = vec![Happening::warning(reason::RECONCILE_ERROR, problem)];
        return outcome;
    }
    let rolled = apply.last().is_some_and(|object| is_rolled(view, object));
    let ready = if rolled {
        StatusCondition::holds(READY)
    } else {
        StatusCondition::fails(READY, reason::ISTIOD_NOT_READY, "not rolled out")
    };
    Outcome {
        apply,
        prune: Prune::Owned,
        status: status(vec![StatusCondition::holds(RECONCILED), ready]),
        again: Some(Duration::from_secs(600)),
        events: if rolled {
            vec![Happening::normal("RolledOut", "all is there")]
        } else {
            Vec::new()
        },
    }
}

fn is_rolled(view: &View<'_>, object: &Object) -> bool {
    let Some(live) = view.live(&ObjectRef::of(object)) else {
        return false;
    };
    live.body["status"]["observedGeneration"] == live.body["metadata"]["generation"]
}

fn status(conditions: Vec<StatusCondition>) -> ComponentStatus {
    ComponentStatus {
        state: condition::state(&conditions, condition::STATE_OF_NODE).to_owned(),
        conditions,
        observed_generation: None,
    }
}
