use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{Namespace, Node, PodSpec},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::api::{DeleteParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit_kube::{
    auth::User,
    server::{ApiServer, Options},
};

use super::*;

const NAMESPACE: &str = "istio-cni";
const NODE: &str = "worker-1";
const GRACE: Duration = Duration::from_secs(3);

/// What is decided about a pod that is being deleted after these answers, the last of them without time for
/// another.
fn decided(was_allowed: bool, answers: &[Answer]) -> Decision {
    let mut evidence = Evidence::new(was_allowed);
    for (index, answer) in answers.iter().enumerate() {
        if let Step::Done(decision) = evidence.weigh(*answer, index + 1 == answers.len(), true) {
            return decision;
        }
    }
    panic!("the last answer decides");
}

#[test]
fn only_an_answer_that_says_so_removes_anything() {
    use Answer::{Denied, Leaving, Missing, None};

    const STAYS: Answer = Answer::There { wants_node: true };
    const MOVES: Answer = Answer::There { wants_node: false };
    let keep = Decision::Keep;
    let clean = Decision::CleanUp;
    for (was_allowed, answers, decision) in [
        (true, vec![STAYS], keep(Kept::Upgrade)),
        (true, vec![MOVES], clean(Gone::Node)),
        (true, vec![Leaving], clean(Gone::DaemonSet)),
        (true, vec![Missing, Missing], clean(Gone::DaemonSet)),
        (false, vec![Missing, Missing], clean(Gone::DaemonSet)),
        // Replaced by force: away for a moment.
        (true, vec![Missing, STAYS], keep(Kept::Upgrade)),
        (
            true,
            vec![Missing, None, Missing, None],
            keep(Kept::Unreachable),
        ),
        (true, vec![Missing], keep(Kept::Undetermined)),
        (true, vec![None], keep(Kept::Unreachable)),
        (true, vec![None, None, None], keep(Kept::Unreachable)),
        (true, vec![None, STAYS], keep(Kept::Upgrade)),
        // Rights go with the DaemonSet.
        (true, vec![Denied, Denied, Denied], clean(Gone::Rights)),
        (true, vec![Denied, Missing, Missing], clean(Gone::DaemonSet)),
        (true, vec![Denied, Leaving], clean(Gone::DaemonSet)),
        // An API server that starts refuses too, or one that ends.
        (true, vec![None, Denied, Denied], keep(Kept::Undetermined)),
        (true, vec![Denied, None, Denied], keep(Kept::Undetermined)),
        (true, vec![Denied, STAYS], keep(Kept::Upgrade)),
        (true, vec![Denied], keep(Kept::Undetermined)),
        (false, vec![Denied, Denied], keep(Kept::NeverAllowed)),
    ] {
        assert_eq!(
            decided(was_allowed, &answers),
            decision,
            "{was_allowed} {answers:?}"
        );
    }
}

fn mk<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn mk_pod(required: &Value, selector: &Value) -> PodSpec {
    mk(json!({
        "containers": [],
        "nodeSelector": selector,
        "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": required},
        }},
    }))
}

#[test]
fn a_pod_is_wanted_where_its_selector_and_one_term_fit() {
    let node: ObjectMeta = mk(json!({
        "name": NODE,
        "labels": {"zone": "a", "cpus": "8", "kubernetes.io/os": "linux"},
    }));
    let term = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    let field = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
    let os = json!({"kubernetes.io/os": "linux"});
    for (terms, selector, admitted) in [
        (json!([term("zone", "In", json!(["a", "b"]))]), &os, true),
        (json!([term("zone", "In", json!(["b"]))]), &os, false),
        (json!([term("zone", "NotIn", json!(["a"]))]), &os, false),
        (json!([term("rack", "NotIn", json!(["a"]))]), &os, true),
        (json!([term("zone", "Exists", json!([]))]), &os, true),
        (json!([term("rack", "Exists", json!([]))]), &os, false),
        (json!([term("rack", "DoesNotExist", json!([]))]), &os, true),
        (json!([term("cpus", "Gt", json!(["7"]))]), &os, true),
        (json!([term("cpus", "Gt", json!(["8"]))]), &os, false),
        (json!([term("cpus", "Lt", json!(["9"]))]), &os, true),
        (json!([term("zone", "Lt", json!(["9"]))]), &os, false),
        (json!([term("zone", "InAnyOf", json!(["x"]))]), &os, true),
        (json!([field(NODE)]), &os, true),
        (json!([field("worker-2")]), &os, false),
        // One of the terms is enough; one without requirements fits nothing.
        (
            json!([field("worker-2"), term("zone", "Exists", json!([]))]),
            &os,
            true,
        ),
        (json!([{}]), &os, false),
        (json!([field(NODE)]), &json!({"zone": "b"}), false),
    ] {
        let pod = mk_pod(&terms, selector);
        assert!(placement::is_restricted(&pod));
        assert_eq!(
            placement::admits(&pod, &node),
            admitted,
            "{terms} {selector}"
        );
    }
    assert!(!placement::is_restricted(&mk(json!({"containers": []}))));
}

/// A cluster with the agent's DaemonSet, node and rights.
struct Cluster {
    server: ApiServer,
    admin: Client,
    question: Question,
}

impl Cluster {
    async fn start() -> Self {
        let server = ApiServer::start(Options::default()).await.unwrap();
        let admin = server.admin_client().await.unwrap();
        let user = User::service_account(NAMESPACE, "istio-cni");
        let agent = server.client(&user).await.unwrap();
        let cluster = Self {
            server,
            question: Question::new(agent, NAMESPACE, NODE),
            admin,
        };
        let all = || Api::<Namespace>::all(cluster.admin.clone());
        cluster
            .create(&all(), json!({"metadata": {"name": NAMESPACE}}))
            .await;
        let nodes = Api::<Node>::all(cluster.admin.clone());
        let labels = json!({"zone": "a"});
        cluster
            .create(
                &nodes,
                json!({"metadata": {"name": NODE, "labels": labels}}),
            )
            .await;
        cluster.grant().await;
        cluster
            .create(&cluster.sets(), Self::daemon_set(&json!({})))
            .await;
        cluster
    }

    fn daemon_set(pod: &Value) -> Value {
        let labels = json!({"k8s-app": DAEMON_SET});
        let mut spec = json!({"containers": [{"name": "install-cni", "image": "i"}]});
        for (key, value) in pod.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        json!({
            "metadata": {"name": DAEMON_SET, "namespace": NAMESPACE},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        })
    }

    /// The rights as the operator gives them.
    async fn grant(&self) {
        let rules = json!([
            {"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
        ]);
        let roles = Api::<ClusterRole>::all(self.admin.clone());
        let role = json!({"metadata": {"name": "istio-cni"}, "rules": rules});
        self.create(&roles, role).await;
        let binding = json!({
            "metadata": {"name": "istio-cni"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "istio-cni"},
            "subjects": [{"kind": "ServiceAccount", "name": "istio-cni", "namespace": NAMESPACE}],
        });
        self.create(&self.bindings(), binding).await;
    }

    async fn create<T>(&self, api: &Api<T>, object: Value)
    where
        T: kube::Resource + Clone + DeserializeOwned + serde::Serialize + fmt::Debug,
    {
        api.create(&PostParams::default(), &mk(object))
            .await
            .unwrap();
    }

    fn sets(&self) -> Api<DaemonSet> {
        Api::namespaced(self.admin.clone(), NAMESPACE)
    }

    fn bindings(&self) -> Api<ClusterRoleBinding> {
        Api::all(self.admin.clone())
    }

    async fn delete_set(&self) {
        self.sets()
            .delete(DAEMON_SET, &DeleteParams::default())
            .await
            .unwrap();
    }

    async fn withdraw_rights(&self) {
        self.bindings()
            .delete("istio-cni", &DeleteParams::default())
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_keeps_everything() {
    let mut cluster = Cluster::start().await;
    let there = Answer::There { wants_node: true };
    assert_eq!(cluster.question.rehearse().await, there);
    let decision = cluster.question.decide(GRACE, || true).await;
    assert_eq!(decision, Decision::Keep(Kept::Upgrade));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_that_has_gone_or_goes_is_cleaned_up_after() {
    let cluster = Cluster::start().await;
    let gone = Decision::CleanUp(Gone::DaemonSet);
    let held = json!({"metadata": {"finalizers": ["example.org/hold"]}});
    let patch = kube::api::Patch::Merge(&held);
    let sets = cluster.sets();
    sets.patch(DAEMON_SET, &kube::api::PatchParams::default(), &patch)
        .await
        .unwrap();
    cluster.delete_set().await;
    assert_eq!(
        cluster.question.decide(GRACE, || true).await,
        gone,
        "it is being deleted"
    );
    let free = json!({"metadata": {"finalizers": null}});
    let patch = kube::api::Patch::Merge(&free);
    sets.patch(DAEMON_SET, &kube::api::PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(
        cluster.question.decide(GRACE, || true).await,
        gone,
        "it has gone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_the_daemon_set_leaves_is_cleaned_up() {
    let cluster = Cluster::start().await;
    cluster.delete_set().await;
    let elsewhere = Cluster::daemon_set(&json!({"nodeSelector": {"zone": "b"}}));
    cluster.create(&cluster.sets(), elsewhere).await;
    let decision = cluster.question.decide(GRACE, || true).await;
    assert_eq!(decision, Decision::CleanUp(Gone::Node));
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_have_gone_count_only_for_who_had_them() {
    let mut cluster = Cluster::start().await;
    let stranger = cluster.question.clone();
    cluster.question.rehearse().await;
    cluster.withdraw_rights().await;
    let (known, unknown) = tokio::join!(
        cluster.question.decide(GRACE, || true),
        stranger.decide(GRACE, || true)
    );
    assert_eq!(known, Decision::CleanUp(Gone::Rights));
    assert_eq!(unknown, Decision::Keep(Kept::NeverAllowed));
}

#[test]
fn to_be_refused_says_nothing_of_a_pod_that_is_not_to_end() {
    let mut evidence = Evidence::new(true);
    assert_eq!(evidence.weigh(Answer::Denied, false, true), Step::Ask);
    // Deleted by force: its credentials are gone, and so is it.
    let kept = Step::Done(Decision::Keep(Kept::NotEnding));
    assert_eq!(evidence.weigh(Answer::Denied, true, false), kept);
    // What says that the DaemonSet has gone needs no other sign.
    let mut evidence = Evidence::new(true);
    let gone = Step::Done(Decision::CleanUp(Gone::DaemonSet));
    assert_eq!(evidence.weigh(Answer::Leaving, false, false), gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_or_refuses_removes_nothing() {
    let mut cluster = Cluster::start().await;
    cluster.question.rehearse().await;
    cluster.server.refuse_requests(true);
    let keep = Decision::Keep(Kept::Unreachable);
    assert_eq!(
        cluster.question.decide(GRACE, || true).await,
        keep,
        "it answers with errors"
    );
    cluster.server.stop().await;
    assert_eq!(
        cluster.question.decide(GRACE, || true).await,
        keep,
        "it does not answer"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_that_is_replaced_by_force_is_waited_for() {
    let cluster = Cluster::start().await;
    cluster.delete_set().await;
    let cluster = Arc::new(cluster);
    let asked = Arc::clone(&cluster);
    let decision = tokio::spawn(async move { asked.question.decide(GRACE, || true).await });
    cluster
        .create(&cluster.sets(), Cluster::daemon_set(&json!({})))
        .await;
    let decision = decision.await.unwrap();
    assert_eq!(decision, Decision::Keep(Kept::Upgrade));
}

#[test]
fn not_found_from_a_proxy_says_nothing() {
    let status = |reason: &str, name: &str| {
        let details = json!({"name": name, "group": "apps", "kind": "daemonsets"});
        let status = json!({"code": 404, "reason": reason, "message": "no", "details": details});
        kube::Error::Api(Box::new(mk(status)))
    };
    assert_eq!(refused(&status("NotFound", DAEMON_SET)), Answer::Missing);
    assert_eq!(refused(&status("NotFound", "")), Answer::None);
    assert_eq!(
        refused(&status("Failed to parse error data", "")),
        Answer::None
    );
}
