//! What the operator finds out about a cluster, under exactly the rights that it asks for.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Client;
use mesh_kube::watch::Metrics;
use mesh_render::PlatformKind;
use operator::{
    images::Component,
    platform::{
        Detected, Reason,
        facts::{Facts, Role},
        read::{Reader, rights},
        run,
    },
};
use serde_json::{Value, json};
use testkit_kube::{
    auth::User,
    server::{ApiServer, Options},
    store::GroupResource,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

const OPERATOR: &str = "lateen-operator";
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster, and the account of an operator with these rights.
struct Cluster {
    server: ApiServer,
}

impl Cluster {
    async fn with(rules: &[PolicyRule]) -> Self {
        let server = ApiServer::start(Options::default()).await.unwrap();
        let cluster = Self { server };
        let rbac = |plural| GroupResource::named("rbac.authorization.k8s.io", plural);
        cluster.put(
            &rbac("clusterroles"),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": OPERATOR}, "rules": rules,
            }),
        );
        cluster.put(
            &rbac("clusterrolebindings"),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": {"name": OPERATOR},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": OPERATOR,
                },
                "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": OPERATOR}],
            }),
        );
        cluster
    }

    fn put(&self, resource: &GroupResource, object: Value) {
        self.server.store().put(resource, object);
    }

    async fn client(&self) -> Client {
        let user = User::service_account(OPERATOR, OPERATOR);
        self.server.client(&user).await.unwrap()
    }

    async fn reader(&self) -> Reader {
        Reader::new(self.client().await, OPERATOR).with_fips_from("/nonexistent")
    }

    async fn facts(&self) -> Facts {
        self.reader().await.read().await.unwrap()
    }

    /// Makes it an OpenShift with OVN-Kubernetes in this mode.
    fn become_openshift(&self, routing_via_host: bool) {
        let stand_ins = mesh_api::openshift::stand_ins();
        self.server.install_crds(stand_ins).unwrap();
        self.put_network(routing_via_host);
        self.put_openshift(
            "config.openshift.io",
            "clusterversions",
            "ClusterVersion",
            json!({
                "metadata": {"name": "version"}, "spec": {"clusterID": "x"},
                "status": {"desired": {"version": "4.22.1"}, "history": []},
            }),
        );
        self.put_openshift(
            "config.openshift.io",
            "infrastructures",
            "Infrastructure",
            json!({
                "metadata": {"name": "cluster"}, "spec": {},
                "status": {"controlPlaneTopology": "External"},
            }),
        );
        self.put_tls("");
    }

    fn put_network(&self, routing_via_host: bool) {
        self.put_openshift(
            "operator.openshift.io",
            "networks",
            "Network",
            json!({
                "metadata": {"name": "cluster"},
                "spec": {"defaultNetwork": {
                    "type": "OVNKubernetes",
                    "ovnKubernetesConfig": {
                        "mtu": 8901, "gatewayConfig": {"routingViaHost": routing_via_host},
                    },
                }},
            }),
        );
    }

    fn put_tls(&self, adherence: &str) {
        self.put_openshift(
            "config.openshift.io",
            "apiservers",
            "APIServer",
            json!({
                "metadata": {"name": "cluster"},
                "spec": {
                    "tlsAdherence": adherence, "tlsSecurityProfile": {"type": "Modern", "modern": {}},
                },
            }),
        );
    }

    fn put_openshift(&self, group: &str, plural: &str, kind: &str, mut object: Value) {
        object["apiVersion"] = format!("{group}/v1").into();
        object["kind"] = kind.into();
        self.put(&GroupResource::named(group, plural), object);
    }

    fn put_program(&self, plural: &str, namespace: &str, name: &str, labels: &Value) {
        let kind = if plural == "deployments" {
            "Deployment"
        } else {
            "DaemonSet"
        };
        let object = json!({
            "apiVersion": "apps/v1", "kind": kind,
            "metadata": {"namespace": namespace, "name": name, "labels": labels},
            "spec": {"selector": {}, "template": {}},
        });
        self.put(&GroupResource::named("apps", plural), object);
    }

    fn put_node(&self, name: &str, labels: &Value, runtime: &str) {
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "status": {"nodeInfo": {
                "architecture": "amd64", "osImage": "Linux of the tests",
                "containerRuntimeVersion": runtime,
            }},
        });
        self.put(&GroupResource::named("", "nodes"), object);
    }
}

/// A detection that runs, and what it says.
struct Running {
    detected: watch::Receiver<Option<Arc<Detected>>>,
    task: JoinHandle<std::convert::Infallible>,
}

impl Running {
    fn start(reader: Reader) -> Self {
        let (sender, detected) = watch::channel(None);
        let task = tokio::spawn(run::run(reader, Metrics::default(), sender));
        Self { detected, task }
    }

    async fn until(&mut self, wanted: impl Fn(&Detected) -> bool) -> Arc<Detected> {
        let wanted = |known: &Option<Arc<Detected>>| known.as_deref().is_some_and(&wanted);
        let found = timeout(PATIENCE, self.detected.wait_for(wanted)).await;
        found.unwrap().unwrap().clone().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_plain_cluster_has_nothing_to_report() {
    let cluster = Cluster::with(&rights()).await;
    cluster.put_node(
        "one",
        &json!({"kubernetes.io/os": "linux"}),
        "containerd://2.0",
    );
    cluster.put_node(
        "two",
        &json!({"kubernetes.io/os": "windows"}),
        "containerd://1.6",
    );
    let facts = cluster.facts().await;
    assert_eq!(facts.unread, []);
    let detected = Detected::from_facts(&facts);
    assert_eq!(
        (detected.kind, &detected.findings[..]),
        (PlatformKind::Kubernetes, &[][..])
    );
    assert_eq!(
        detected.runtimes.into_iter().collect::<Vec<_>>(),
        ["containerd://2.0"]
    );
    assert!(detected.kubernetes.starts_with("v1."));
}

#[tokio::test]
async fn openshift_is_read_with_all_that_concerns_the_mesh() {
    let cluster = Cluster::with(&rights()).await;
    cluster.become_openshift(false);
    let detected = Detected::from_facts(&cluster.facts().await);
    assert_eq!(detected.openshift.as_deref(), Some("4.22.1"));
    assert!(detected.hosted);
    assert_eq!(detected.routing_via_host, Some(false));
    assert_eq!(detected.tls, None);
    let condition = detected.condition(Component::Cni);
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("False", "SharedGatewayMode")
    );
}

#[tokio::test]
async fn nodes_are_read_page_by_page() {
    let cluster = Cluster::with(&rights()).await;
    for number in 0..205 {
        cluster.put_node(
            &format!("k3d-{number:03}"),
            &json!({}),
            &format!("runtime://{number}"),
        );
    }
    let facts = cluster.facts().await;
    assert_eq!(facts.nodes.runtimes.len(), 205);
    assert_eq!(facts.nodes.operating_systems.len(), 1);
}

#[tokio::test]
async fn meshes_of_others_are_found_and_our_own_are_not() {
    let cluster = Cluster::with(&rights()).await;
    let ours = json!({"app": "istiod", "app.kubernetes.io/managed-by": "lateen-operator"});
    cluster.put_program("deployments", "istio-system", "istiod", &ours);
    let gateways = json!({"app": "istiod", "managed-by": "sail-library"});
    cluster.put_program(
        "deployments",
        "openshift-ingress",
        "istiod-openshift-gateway",
        &gateways,
    );
    let theirs = json!({"app": "istiod", "app.kubernetes.io/managed-by": "Helm"});
    cluster.put_program("deployments", "mesh", "istiod", &theirs);
    let sail = json!({"control-plane": "sail-operator"});
    cluster.put_program("deployments", "sail", "sail-operator", &sail);
    cluster.put_program("deployments", OPERATOR, OPERATOR, &sail);
    let agent = json!({"k8s-app": "istio-cni-node", "managed-by": "sail-operator"});
    cluster.put_program("daemonsets", "istio-cni", "istio-cni-node", &agent);
    cluster.put_program("daemonsets", "mesh", "ztunnel", &json!({"app": "ztunnel"}));
    let found = cluster.facts().await.neighbours;
    let found: Vec<_> = found
        .iter()
        .map(|found| (found.role, found.namespace.as_str(), found.maker))
        .collect();
    assert_eq!(
        found,
        [
            (Role::Operator, "sail", None),
            (Role::ControlPlane, "mesh", Some("Helm")),
            (Role::Agent, "istio-cni", Some("the Sail operator")),
            (Role::Proxy, "mesh", None),
        ]
    );
}

#[tokio::test]
async fn what_is_denied_is_reported_with_the_permission_and_the_rest_is_read() {
    let without = |rule: &PolicyRule| {
        let resources = rule.resources.iter().flatten();
        !resources
            .into_iter()
            .any(|resource| resource == "networks" || resource == "nodes")
    };
    let rules: Vec<_> = rights().into_iter().filter(without).collect();
    let cluster = Cluster::with(&rules).await;
    cluster.become_openshift(false);
    let facts = cluster.facts().await;
    let denied: Vec<_> = facts
        .unread
        .iter()
        .filter_map(|unread| unread.permission)
        .collect();
    assert_eq!(denied, ["list nodes", "get networks.operator.openshift.io"]);
    let detected = Detected::from_facts(&facts);
    assert_eq!(detected.openshift.as_deref(), Some("4.22.1"));
    let condition = detected.condition(Component::Ztunnel);
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("Unknown", "NotReadable")
    );
}

#[tokio::test]
async fn fips_mode_is_the_kernel_s() {
    let cluster = Cluster::with(&rights()).await;
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("fips_enabled");
    let fips = async || {
        let reader = cluster.reader().await.with_fips_from(&flag);
        reader.read().await.unwrap().fips
    };
    assert!(!fips().await);
    std::fs::write(&flag, "1\n").unwrap();
    assert!(fips().await);
    std::fs::write(&flag, "0\n").unwrap();
    assert!(!fips().await);
}

#[tokio::test]
async fn changes_of_network_and_tls_settings_arrive_without_a_restart() {
    let cluster = Cluster::with(&rights()).await;
    cluster.become_openshift(false);
    let mut running = Running::start(cluster.reader().await);
    let shared = |detected: &Detected| {
        let mut findings = detected.findings.iter();
        findings.any(|finding| finding.reason == Reason::SharedGatewayMode)
    };
    running.until(shared).await;
    cluster.put_network(true);
    let detected = running.until(|detected| !shared(detected)).await;
    assert_eq!(detected.tls, None);
    cluster.put_tls("StrictAllComponents");
    let detected = running.until(|detected| detected.tls.is_some()).await;
    assert_eq!(detected.platform().tls.unwrap().min_version, "TLSV1_3");
}

#[tokio::test]
async fn what_was_found_stays_while_the_api_server_is_away() {
    let cluster = Cluster::with(&rights()).await;
    cluster.become_openshift(true);
    let mut running = Running::start(cluster.reader().await);
    running.until(|detected| detected.openshift.is_some()).await;
    cluster.server.refuse_requests(true);
    assert!(cluster.reader().await.read().await.is_err());
    cluster.put_network(false);
    assert!(running.detected.borrow().is_some());
    cluster.server.refuse_requests(false);
    running
        .until(|detected| detected.routing_via_host == Some(false))
        .await;
}
