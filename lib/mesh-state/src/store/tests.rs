//! Batches, waiting, certificates and policies; `history` holds the properties over all histories.

use mesh_core::{
    policy::Authorization,
    policy::{Action, PolicyScope},
    rbac::{Denial, Verdict},
    workload::TunnelProtocol,
};

use super::*;
use crate::fixtures::{
    backing, identity_of, mk_config, mk_connection, mk_pod, mk_policy, mk_service,
};

mod history;

fn mk_store() -> Store {
    Store::new(mk_config())
}

fn naming(pod: &Workload, policies: &[&str]) -> Change {
    let authorization_policies = policies.iter().map(|key| Arc::from(*key)).collect();
    Change::Workload(Workload {
        authorization_policies,
        ..pod.clone()
    })
}

fn pod_info(pod: &Workload) -> PodInfo {
    PodInfo {
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        service_account: pod.service_account.clone(),
    }
}

/// The verdict on a connection to port 8080, as for a caller that knows the pod from long ago.
fn verdict(store: &Store, pod: &Workload) -> Verdict {
    store
        .load()
        .authorize(pod, &mk_connection("10.0.0.1:8080"))
        .verdict
}

#[test]
fn batch_is_published_as_one_snapshot() {
    let store = mk_store();
    let before = store.snapshot();
    let changed = store.changed();
    let web = mk_service("web", "10.96.0.1");
    let pod = backing(mk_pod("a", "10.0.0.1"), &web, &[]);
    let applied = store.apply([Change::Workload(pod.clone()), Change::Service(web)]);
    assert_eq!(applied.generation.state, 1);
    assert_eq!(*changed.borrow(), applied.generation);
    assert_eq!(store.snapshot().generation(), applied.generation);
    assert!(before.workload_by_uid(&pod.uid).is_none());
}

#[test]
fn update_that_says_nothing_new_publishes_nothing() {
    let store = mk_store();
    let policy = mk_policy("p", PolicyScope::Namespace, Action::Deny);
    let updates = [
        Change::Workload(mk_pod("a", "10.0.0.1")),
        Change::Service(mk_service("web", "10.96.0.1")),
        Change::Policy(policy),
    ];
    store.apply(updates.clone());
    let (before, changed) = (store.snapshot(), store.changed());
    let unknown =
        ["app/p", "nobody", "app/nobody.example", "x/y/z"].map(|n| Change::RemoveAddress(n.into()));
    store.apply(
        updates
            .into_iter()
            .chain(unknown)
            .chain([Change::RemovePolicy("app/q".into())]),
    );
    assert!(Arc::ptr_eq(&before, &store.snapshot()));
    assert!(!changed.has_changed().unwrap());
}

#[test]
fn endpoint_may_arrive_before_its_service() {
    let store = mk_store();
    let web = mk_service("web", "10.96.0.1");
    let pod = backing(mk_pod("a", "10.0.0.1"), &web, &[]);
    store.apply([Change::Workload(pod.clone())]);
    assert_eq!(
        store.load().services.staged().collect::<Vec<_>>(),
        [&web.key()]
    );
    store.apply([Change::Service(web.clone())]);
    assert_eq!(store.load().services.staged().count(), 0);
    let route = store.load().route(&pod, "10.96.0.1:80".parse().unwrap());
    assert!(route.is_ok(), "{route:?}");
    store.apply([Change::RemoveAddress("app/web.example/ignored".into())]);
    assert_eq!(
        store.load().services.staged().collect::<Vec<_>>(),
        [&web.key()]
    );
}

#[test]
fn change_leaves_everything_else_shared() {
    let store = mk_store();
    let services: Vec<_> = (0..50)
        .map(|n| mk_service(&format!("web{n}"), &format!("10.96.0.{n}")))
        .collect();
    let pods: Vec<_> = services
        .iter()
        .map(|s| backing(mk_pod(&s.name, "10.0.0.1"), s, &[]))
        .collect();
    store.apply(services.iter().cloned().map(Change::Service));
    store.apply(pods.iter().cloned().map(Change::Workload));
    let before = store.snapshot();
    store.apply([Change::Workload(Workload {
        capacity: 2,
        ..pods[0].clone()
    })]);
    let after = store.snapshot();
    let shared = |service: &&Service| {
        let entries = [&before, &after].map(|s| s.services.by_key(&service.key()).unwrap());
        Arc::ptr_eq(entries[0], entries[1])
    };
    assert_eq!(services.iter().filter(shared).count(), 49);
}

#[tokio::test(start_paused = true)]
async fn own_pod_is_waited_for() {
    let store = mk_store();
    let pod = mk_pod("a", "10.0.0.1");
    let info = pod_info(&pod);
    assert_eq!(
        store.wait_for_pod(&info, Duration::from_secs(5)).await,
        None
    );
    let waiting = store.wait_for_pod(&info, Duration::from_secs(5));
    let discovery = async {
        store.apply([Change::Workload(mk_pod("other", "10.0.0.2"))]);
        tokio::task::yield_now().await;
        store.apply([Change::Workload(pod.clone())]);
    };
    let (found, ()) = tokio::join!(waiting, discovery);
    assert_eq!(found.as_deref(), Some(&pod));
}

#[test]
fn pod_of_another_node_is_not_ours_and_our_cluster_goes_first() {
    let store = mk_store();
    let ours = mk_pod("a", "10.0.0.1");
    let elsewhere = Workload {
        node: "node2".into(),
        ..mk_pod("b", "10.0.0.2")
    };
    let other_cluster = Workload {
        uid: "A-cluster//Pod/app/a".into(),
        cluster_id: "A-cluster".into(),
        ..mk_pod("a", "10.0.0.3")
    };
    store.apply([&ours, &elsewhere, &other_cluster].map(|w| Change::Workload(w.clone())));
    let snapshot = store.snapshot();
    assert!(snapshot.workload_for_pod(&pod_info(&elsewhere)).is_none());
    assert_eq!(
        snapshot.workload_for_pod(&pod_info(&ours)).map(|w| &w.uid),
        Some(&ours.uid)
    );
}

#[test]
fn certificate_is_needed_from_the_first_enrolled_pod_of_an_identity_to_the_last() {
    let store = mk_store();
    let first = mk_pod("a", "10.0.0.1");
    let identity = identity_of(&first);
    let second = Workload {
        uid: "second".into(),
        ..first.clone()
    };
    let plain = Workload {
        protocol: TunnelProtocol::None,
        ..mk_pod("plain", "10.0.0.2")
    };
    let elsewhere = Workload {
        node: "node2".into(),
        ..mk_pod("far", "10.0.0.3")
    };
    let add = |workload: &Workload| store.apply([Change::Workload(workload.clone())]);
    let remove = |workload: &Workload| store.apply([Change::RemoveAddress(workload.uid.clone())]);
    let edges = |applied: Applied| (applied.identities_added, applied.identities_removed);

    assert_eq!(edges(add(&plain)), (vec![], vec![]));
    assert_eq!(edges(add(&elsewhere)), (vec![], vec![]));
    assert_eq!(edges(add(&first)), (vec![identity.clone()], vec![]));
    assert_eq!(edges(add(&second)), (vec![], vec![]));
    assert_eq!(
        edges(add(&Workload {
            capacity: 9,
            ..first.clone()
        })),
        (vec![], vec![])
    );
    assert_eq!(edges(remove(&first)), (vec![], vec![]));
    assert_eq!(edges(remove(&second)), (vec![], vec![identity]));
    assert_eq!(store.snapshot().node_local_identities().count(), 0);
}

#[test]
fn named_policy_that_is_not_known_denies_until_it_arrives() {
    let store = mk_store();
    let pod = mk_pod("a", "10.0.0.1");
    store.apply([naming(&pod, &["app/p"])]);
    let unknown = Verdict::Deny(Denial::UnknownPolicy("app/p".into()));
    assert_eq!(verdict(&store, &pod), unknown);
    let policy = mk_policy("p", PolicyScope::WorkloadSelector, Action::Allow);
    store.apply([Change::Policy(policy)]);
    assert_eq!(verdict(&store, &pod), Verdict::Allow);
    store.apply([Change::RemovePolicy("app/p".into())]);
    assert_eq!(verdict(&store, &pod), unknown);
    store.apply([naming(&pod, &[])]);
    assert_eq!(verdict(&store, &pod), Verdict::Allow);
}

#[test]
fn verdict_follows_the_workload_s_list_of_now() {
    let store = mk_store();
    let pod = mk_pod("a", "10.0.0.1");
    store.apply([Change::Workload(pod.clone())]);
    let policy = mk_policy("p", PolicyScope::WorkloadSelector, Action::Deny);
    store.apply([Change::Policy(policy)]);
    assert_eq!(verdict(&store, &pod), Verdict::Allow);
    let mut changes = store.policy_changes();
    store.apply([naming(&pod, &["app/p"])]);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(
        verdict(&store, &pod),
        Verdict::Deny(Denial::Policy("app/p".into()))
    );
    store.apply([naming(&pod, &[])]);
    assert!(changes.has_changed().unwrap());
    assert_eq!(verdict(&store, &pod), Verdict::Allow);
}

#[test]
fn policies_of_the_namespace_and_of_the_mesh_concern_every_pod() {
    let deny = |scope| Change::Policy(mk_policy("p", scope, Action::Deny));
    let pod = mk_pod("a", "10.0.0.1");
    let stranger = mk_pod("other/b", "10.0.0.2");
    let denied = Verdict::Deny(Denial::Policy("app/p".into()));
    for (scope, expected) in [
        (
            PolicyScope::WorkloadSelector,
            [Verdict::Allow, Verdict::Allow],
        ),
        (PolicyScope::Namespace, [denied.clone(), Verdict::Allow]),
        (PolicyScope::Global, [denied.clone(), denied]),
    ] {
        let pods = [&pod, &stranger].map(|pod| Change::Workload(pod.clone()));
        let before = mk_store();
        before.apply(pods.clone());
        before.apply([deny(PolicyScope::Global)]);
        before.apply([deny(scope)]);
        let after = mk_store();
        after.apply([deny(scope)]);
        after.apply(pods);
        for store in [&before, &after] {
            assert_eq!(
                [&pod, &stranger].map(|pod| verdict(store, pod)),
                expected,
                "{scope:?}"
            );
        }
    }
}

#[test]
fn only_what_can_change_a_verdict_here_is_a_policy_change() {
    let store = mk_store();
    store.apply([Change::Workload(mk_pod("a", "10.0.0.1"))]);
    let changes = store.policy_changes();
    let far = Workload {
        node: "node2".into(),
        ..mk_pod("far", "10.0.0.2")
    };
    let elsewhere = Authorization {
        namespace: "other".into(),
        ..mk_policy("p", PolicyScope::Namespace, Action::Deny)
    };
    let unused = mk_policy("unused", PolicyScope::WorkloadSelector, Action::Deny);
    store.apply([
        naming(&far, &["app/q"]),
        Change::Policy(elsewhere),
        Change::Policy(unused),
    ]);
    store.apply([Change::Workload(mk_pod("another", "10.0.0.3"))]);
    assert!(!changes.has_changed().unwrap());
    store.apply([Change::Policy(mk_policy(
        "p",
        PolicyScope::Namespace,
        Action::Deny,
    ))]);
    assert!(changes.has_changed().unwrap());
}

#[test]
fn verdict_on_a_workload_discovery_forgot_is_by_the_policies_it_had() {
    let store = mk_store();
    let pod = mk_pod("a", "10.0.0.1");
    store.apply([Change::Policy(mk_policy(
        "p",
        PolicyScope::Namespace,
        Action::Deny,
    ))]);
    assert_eq!(
        verdict(&store, &pod),
        Verdict::Deny(Denial::Policy("app/p".into()))
    );
    assert_eq!(store.load().policies_for(&pod).policies().count(), 1);
}
