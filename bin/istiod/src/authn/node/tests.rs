//! Which proxies may act for which node.

use k8s_openapi::api::core::v1::{Pod as PodObject, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::authn::Pod;

struct World {
    placement: Arc<RwLock<Placement>>,
    news: watch::Sender<u64>,
}

fn mk_world() -> (World, Nodes) {
    let world = World {
        placement: Arc::default(),
        news: watch::Sender::new(0),
    };
    world.change(|placement| placement.configure(vec!["cluster.local".into()]));
    let placements = Placements::new(world.placement.clone(), world.news.subscribe());
    let nodes = Nodes::new(NodeAccounts::default_in("istio-system"), placements);
    (world, nodes)
}

impl World {
    fn change(&self, change: impl FnOnce(&mut Placement)) {
        change(&mut self.placement.write());
        self.news.send_modify(|count| *count += 1);
    }

    fn runs(&self, namespace: &str, account: &str, node: &str) {
        let name = format!("{account}-{node}");
        let pod = PodObject {
            metadata: ObjectMeta {
                namespace: Some(namespace.into()),
                uid: Some(format!("uid-{name}")),
                name: Some(name),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                node_name: Some(node.into()),
                service_account_name: Some(account.into()),
                ..PodSpec::default()
            }),
            status: Some(PodStatus {
                phase: Some("Running".into()),
                ..PodStatus::default()
            }),
        };
        self.change(|placement| placement.apply(&pod));
    }
}

fn mk_identity(namespace: &str, account: &str) -> Identity {
    Identity::try_new("cluster.local", namespace, account).unwrap()
}

fn mk_ztunnel(node: &str) -> Caller {
    let name = format!("ztunnel-{node}");
    Caller {
        identity: mk_identity("istio-system", "ztunnel"),
        pod: Some(Pod {
            uid: format!("uid-{name}"),
            name,
        }),
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_acts_for_what_runs_on_its_node_and_for_nothing_else() {
    let (world, nodes) = mk_world();
    world.runs("istio-system", "ztunnel", "n1");
    world.runs("shop", "cart", "n1");
    world.runs("shop", "bank", "n2");
    let proxy = mk_ztunnel("n1");
    nodes
        .may_impersonate(&proxy, &mk_identity("shop", "cart"))
        .await
        .unwrap();
    let denied = nodes
        .may_impersonate(&proxy, &mk_identity("shop", "bank"))
        .await;
    assert!(
        matches!(denied, Err(Refusal::Placement(Denial::NotHere { .. }))),
        "{denied:?}"
    );
    assert_eq!(nodes.node(&proxy).await.as_deref(), Ok("n1"));
}

#[tokio::test(start_paused = true)]
async fn only_named_accounts_with_a_pod_are_proxies() {
    let (world, nodes) = mk_world();
    world.runs("istio-system", "ztunnel", "n1");
    world.runs("shop", "cart", "n1");
    let wanted = mk_identity("shop", "cart");
    let mut impostor = mk_ztunnel("n1");
    impostor.identity = mk_identity("shop", "ztunnel");
    let denied = nodes.may_impersonate(&impostor, &wanted).await;
    assert!(
        matches!(denied, Err(Refusal::NotANodeProxy(_))),
        "{denied:?}"
    );
    let mut podless = mk_ztunnel("n1");
    podless.pod = None;
    let denied = nodes.may_impersonate(&podless, &wanted).await;
    assert!(matches!(denied, Err(Refusal::NoPod(_))), "{denied:?}");
    let mut former = mk_ztunnel("n1");
    former.pod.as_mut().unwrap().uid = "another".into();
    let denied = nodes.may_impersonate(&former, &wanted).await;
    assert!(
        matches!(denied, Err(Refusal::Placement(Denial::OtherCaller(_)))),
        "{denied:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_heard_of_a_moment_later_is_waited_for() {
    let (world, nodes) = mk_world();
    world.runs("istio-system", "ztunnel", "n1");
    let (proxy, wanted) = (mk_ztunnel("n1"), mk_identity("shop", "cart"));
    let asked = nodes.may_impersonate(&proxy, &wanted);
    let told = async {
        tokio::time::sleep(PATIENCE / 2).await;
        world.runs("other", "pod", "n1");
        world.runs("shop", "cart", "n1");
    };
    let (allowed, ()) = tokio::join!(asked, told);
    allowed.unwrap();
}

#[tokio::test(start_paused = true)]
async fn news_of_others_does_not_prolong_the_wait() {
    let (world, nodes) = mk_world();
    world.runs("istio-system", "ztunnel", "n1");
    let (proxy, wanted) = (mk_ztunnel("n1"), mk_identity("shop", "cart"));
    let begun = tokio::time::Instant::now();
    let chatter = async {
        loop {
            tokio::time::sleep(PATIENCE / 10).await;
            world.runs("other", "pod", "n1");
        }
    };
    tokio::select! {
        denied = nodes.may_impersonate(&proxy, &wanted) => assert!(denied.is_err()),
        () = chatter => {}
    }
    assert!(begun.elapsed() <= PATIENCE + Duration::from_millis(10));
}

#[test]
fn accounts_are_written_as_the_variable_has_them() {
    let accounts: NodeAccounts = " a/b,istio-system/ztunnel ,".parse().unwrap();
    let names: Vec<_> = accounts.0.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a/b", "istio-system/ztunnel"]);
    assert_eq!("".parse(), Ok(NodeAccounts::default()));
    for bad in ["ztunnel", "/b", "a/", "a/b/c"] {
        assert_eq!(bad.parse::<NodeAccounts>(), Err(NotAnAccount(bad.into())));
    }
}
