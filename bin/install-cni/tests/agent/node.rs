//! A node for the agent: an API server, a kernel, processes and a folder for sockets.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    time::Duration,
};

use install_cni::{
    agent::{Agent, Config, Handle, Parts, Paths, Patience, Phase, PodView, proxies::Ztunnels},
    parts::{Attach as _, PodUid, Probes, Rules},
};
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    client::Body,
};
use mesh_cni::{
    enrolment::{Policy, Selector},
    protocol::{Added, Attachment, Refusal},
};
use mesh_kube::events;
use mesh_redirect::Options;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit_kube::{
    auth::{User, group},
    server::ApiServer,
    wait,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::{fake_kernel::Kernel, fake_ztunnel::Ztunnel, pod_net::Net};

/// How long anything may take that takes no time.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The node's name.
const NODE: &str = "node-1";

/// The annotation that says whether a pod is in the mesh.
pub(crate) const REDIRECTION: &str = "ambient.istio.io/redirection";

/// The label that takes part.
pub(crate) const MODE: &str = "istio.io/dataplane-mode";

/// An agent and all that is around it.
pub(crate) struct Node<K = Kernel> {
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
    pub(crate) kernel: K,
    pub(crate) handle: Handle<K, Ztunnels>,
    run_dir: TempDir,
    pub(crate) proc: TempDir,
    patience: Patience,
    watches: Watches,
    tasks: Vec<JoinHandle<()>>,
}

/// Whether watches of the agent may begin, and how many may not.
#[derive(Clone)]
struct Watches {
    may_begin: watch::Sender<bool>,
    held: watch::Sender<usize>,
}

// === impl Node ===

impl Node {
    /// A node with a running agent, a ztunnel and the namespace `demo`, which is not in the mesh.
    pub(crate) async fn start() -> (Self, Ztunnel) {
        let mut node = Self::prepare().await;
        node.run().await;
        let ztunnel = node.ztunnel();
        ztunnel.synced().await;
        (node, ztunnel)
    }

    /// The same, with all pods of the namespace in the mesh.
    pub(crate) async fn ambient() -> (Self, Ztunnel) {
        let (node, ztunnel) = Self::start().await;
        node.label("demo", Some("ambient")).await;
        (node, ztunnel)
    }

    /// The same as [`Node::start`] without ztunnel, and with an agent that is not run yet.
    pub(crate) async fn prepare() -> Self {
        Self::with(Kernel::default()).await
    }

    /// A pod that the plugin has added to the mesh, with this address.
    pub(crate) async fn bring_in(
        &self,
        name: &str,
        address: &str,
        ztunnel: &mut Ztunnel,
    ) -> (PodUid, Net) {
        let (uid, net) = self.place(name, address).await;
        self.add(name, &uid, &net).await.unwrap();
        self.is_in_mesh(&uid, &net, ztunnel).await;
        (uid, net)
    }

    /// Everything of the mesh is in this pod, and the ztunnel serves it.
    pub(crate) async fn is_in_mesh(&self, uid: &PodUid, net: &Net, ztunnel: &mut Ztunnel) {
        self.is_enrolled(uid, net).await;
        assert!(self.kernel.holds_rules(net), "no rules in the pod");
        assert_eq!(self.kernel.probes().get(&net.address), Some(uid));
        ztunnel.serves(uid, Some(net)).await;
    }

    /// Nothing of the mesh is in this pod, and no ztunnel serves it.
    pub(crate) async fn is_outside(&self, uid: &PodUid, net: &Net, ztunnel: &mut Ztunnel) {
        self.reaches(uid, Phase::Outside).await;
        assert!(!self.kernel.holds_rules(net), "rules are left in the pod");
        assert_eq!(self.kernel.probes().get(&net.address), None);
        ztunnel.serves(uid, None).await;
    }
}

impl<K: Rules + Probes + Clone> Node<K> {
    /// A node with this kernel, without ztunnel, and with an agent that is not run yet.
    pub(crate) async fn with(kernel: K) -> Self {
        let options = testkit_kube::server::Options::default();
        let server = ApiServer::start(options).await.unwrap();
        let client = server.admin_client().await.unwrap();
        let (run_dir, proc) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(proc.path().join("sys/kernel/random")).unwrap();
        fs::write(proc.path().join("sys/kernel/random/boot_id"), "this-boot\n").unwrap();
        let patience = Patience {
            istio_add: Duration::from_secs(4),
            add: Duration::from_secs(10),
            verify: Duration::from_millis(300),
            ..Patience::default()
        };
        let watches = Watches {
            may_begin: watch::Sender::new(true),
            held: watch::Sender::new(0),
        };
        let from = (&server, &watches);
        let (_, handle) = agent(from, &kernel, (&run_dir, &proc), patience).await;
        let node = Self {
            server,
            client,
            kernel,
            handle,
            run_dir,
            proc,
            patience,
            watches,
            tasks: Vec::new(),
        };
        // The tests run on the node, and process 1 may not be theirs to look at.
        node.process(1, &PathBuf::from("/proc/self/ns/net"), "0::/\n", 1);
        node.namespace("demo", json!({})).await;
        node
    }

    /// What the agents of this node have asked the API server for so far, and how often.
    pub(crate) fn requests(&self) -> BTreeMap<String, u64> {
        self.server.requests(&user())
    }

    /// Ends the watches of the agent and lets none begin: what happens from now on it is not told. What it asks is
    /// answered.
    pub(crate) async fn hold_watches(&self) {
        self.watches.may_begin.send_replace(false);
        self.server.disconnect_watches();
        let mut held = self.watches.held.subscribe();
        let both = timeout(DEADLINE, held.wait_for(|held| *held == 2)).await;
        drop(both.expect("both watches ask again").unwrap());
    }

    pub(crate) fn patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// Ends the agent as a signal would, and begins another.
    pub(crate) async fn run(&mut self) {
        self.kill().await;
        let paths = (&self.run_dir, &self.proc);
        let from = (&self.server, &self.watches);
        let (agent, handle) = agent(from, &self.kernel, paths, self.patience).await;
        self.handle = handle;
        self.tasks
            .push(tokio::spawn(async move { match agent.run().await {} }));
    }

    pub(crate) async fn kill(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            drop(task.await);
        }
    }

    /// The node starts again: the agent has ended, and the boot has another number.
    pub(crate) async fn reboot(&mut self) {
        self.kill().await;
        let boot = self.proc.path().join("sys/kernel/random/boot_id");
        fs::write(boot, "next-boot\n").unwrap();
    }

    pub(crate) fn ztunnel(&self) -> Ztunnel {
        Ztunnel::start(self.socket(), false)
    }

    /// One that serves no pod before it is told otherwise.
    pub(crate) fn refusing_ztunnel(&self) -> Ztunnel {
        Ztunnel::start(self.socket(), true)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.run_dir.path().join("ztunnel.sock")
    }

    /// Makes a Kubernetes namespace.
    pub(crate) async fn namespace(&self, name: &str, labels: Value) {
        let object = json!({"metadata": {"name": name, "labels": labels}});
        let api = Api::<NamespaceObject>::all(self.client.clone());
        let object = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    /// Labels a Kubernetes namespace with the mode, or takes the label away.
    pub(crate) async fn label(&self, name: &str, mode: Option<&str>) {
        let patch = json!({"metadata": {"labels": {MODE: mode}}});
        let api = Api::<NamespaceObject>::all(self.client.clone());
        let params = PatchParams::default();
        api.patch(name, &params, &Patch::Merge(patch))
            .await
            .unwrap();
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "demo")
    }

    /// Makes a pod of the namespace `demo` on this node. Says its UID.
    pub(crate) async fn pod(&self, name: &str, more: Value) -> PodUid {
        let mut object = json!({
            "metadata": {"name": name, "namespace": "demo"},
            "spec": {
                "nodeName": NODE,
                "containers": [{"name": "app", "image": "app"}],
            },
        });
        json_patch::merge(&mut object, &more);
        let object = serde_json::from_value(object).unwrap();
        let created = self.pods().create(&PostParams::default(), &object).await;
        created.unwrap().uid().unwrap().into()
    }

    /// Makes a pod as [`Node::pod`] does, and a network with this address for it.
    pub(crate) async fn place(&self, name: &str, address: &str) -> (PodUid, Net) {
        (self.pod(name, json!({})).await, Net::new(address))
    }

    /// Writes a pod's status, as the kubelet does.
    pub(crate) async fn status(&self, name: &str, phase: &str, address: &str) {
        let patch = json!({"status": {
            "phase": phase, "podIP": address, "podIPs": [{"ip": address}],
        }});
        let params = PatchParams::default();
        let patched = self
            .pods()
            .patch_status(name, &params, &Patch::Merge(patch))
            .await;
        patched.unwrap();
    }

    /// Changes a pod's metadata, as a user does.
    pub(crate) async fn annotate(&self, name: &str, annotation: &str, value: Option<&str>) {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        let params = PatchParams::default();
        let patched = self.pods().patch(name, &params, &Patch::Merge(patch)).await;
        patched.unwrap();
    }

    pub(crate) async fn delete(&self, name: &str) {
        let params = DeleteParams::default().grace_period(0);
        drop(self.pods().delete(name, &params).await.unwrap());
    }

    /// The plugin's call for a pod that has this network.
    pub(crate) async fn add(&self, name: &str, uid: &str, net: &Net) -> Result<Added, Refusal> {
        self.handle.add(net.attachment(name, uid)).await
    }

    /// Where the agent notes what the runtime told it.
    pub(crate) fn note(&self, attachment: &Attachment) -> PathBuf {
        let name = format!("{}.{}.json", attachment.container_id, attachment.interface);
        self.run_dir.path().join("sandboxes").join(name)
    }

    /// A process, as `/proc` shows it.
    pub(crate) fn process(&self, pid: u32, netns: &std::path::Path, cgroup: &str, started: u64) {
        let directory = self.proc.path().join(pid.to_string());
        fs::create_dir_all(directory.join("ns")).unwrap();
        symlink(netns, directory.join("ns/net")).unwrap();
        fs::write(directory.join("cgroup"), cgroup).unwrap();
        let zeros = "0 ".repeat(18);
        let stat = format!("{pid} (a (strange) name) S {zeros}{started} 0 0\n");
        fs::write(directory.join("stat"), stat).unwrap();
    }

    /// What the agent knows of a pod.
    pub(crate) fn view(&self, uid: &str) -> Option<PodView> {
        self.handle.view().pods.remove(uid)
    }

    /// Waits until something holds of what the agent knows of a pod.
    pub(crate) async fn until(&self, uid: &str, what: &str, holds: impl Fn(&PodView) -> bool) {
        let seen = || self.view(uid).is_some_and(|view| holds(&view));
        let waited = testkit_net::eventually(what, DEADLINE, seen).await;
        waited.unwrap_or_else(|late| panic!("{late}: {:#?}", self.handle.view()));
    }

    pub(crate) async fn reaches(&self, uid: &str, phase: Phase) {
        self.until(uid, &format!("{phase:?}"), |view| view.phase == phase)
            .await;
    }

    /// Waits until the API server shows this annotation.
    pub(crate) async fn shows(&self, name: &str, value: Option<&str>) {
        let shown = |pod: Option<&Value>| {
            let annotations = &pod.expect("there is the pod")["metadata"]["annotations"];
            annotations[REDIRECTION].as_str() == value
        };
        let store = self.server.store();
        let waited = store.until::<Pod>("demo", name, DEADLINE, shown).await;
        drop(waited.unwrap_or_else(|late| panic!("{late}")));
    }

    /// Waits until the agent says that the pod is in the mesh with this network.
    pub(crate) async fn is_enrolled(&self, uid: &PodUid, net: &Net) {
        let netns = Some(net.id().ino);
        let there = |view: &PodView| view.phase == Phase::Enrolled && view.netns == netns;
        self.until(uid, "the pod's enrolment", there).await;
    }
}

impl<K> Drop for Node<K> {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

// === impl Watches ===

impl Watches {
    /// The same client, as far as watches may begin.
    fn within(&self, client: Client) -> Client {
        let watches = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (client, watches) = (client.clone(), watches.clone());
            async move {
                let query = request.uri().query().unwrap_or_default();
                if query.contains("watch=true") && !*watches.may_begin.borrow() {
                    watches.held.send_modify(|held| *held += 1);
                    let mut may_begin = watches.may_begin.subscribe();
                    drop(may_begin.wait_for(|may| *may).await);
                }
                client.send(request).await
            }
        });
        Client::new(service, "default")
    }
}

/// As whom the agent speaks to the API server.
fn user() -> User {
    User::service_account("istio-system", "istio-cni").member_of(group::MASTERS)
}

async fn agent<K: Rules + Probes + Clone>(
    (server, watches): (&ApiServer, &Watches),
    kernel: &K,
    (run_dir, proc): (&TempDir, &TempDir),
    patience: Patience,
) -> (Agent<K, Ztunnels>, Handle<K, Ztunnels>) {
    let client = watches.within(server.client(&user()).await.unwrap());
    let reporter = events::Reporter {
        controller: "install-cni".to_owned(),
        instance: "test".to_owned(),
    };
    let (recorder, publisher) = events::channel(client.clone(), reporter);
    drop(tokio::spawn(publisher.run(std::future::pending())));
    let config = Config {
        node: NODE.to_owned(),
        policy: Policy {
            selectors: Selector::defaults(),
            excluded_namespaces: BTreeSet::from(["kube-system".to_owned()]),
        },
        options: Options::default(),
        system_namespace: "istio-system".to_owned(),
        paths: Paths {
            run_dir: run_dir.path().to_owned(),
            host: "/".into(),
            proc: proc.path().to_owned(),
        },
        patience,
    };
    let parts = Parts {
        client,
        kernel: kernel.clone(),
        proxies: Ztunnels::new(run_dir.path().join("ztunnel.sock")),
        events: recorder,
        watches: mesh_kube::watch::Metrics::default(),
    };
    Agent::new(config, parts).unwrap()
}

/// Waits until asking gives what is wanted.
pub(crate) async fn eventually<T>(
    what: &str,
    ask: impl AsyncFn() -> T,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let waited = wait::eventually(what, DEADLINE, ask, wanted).await;
    waited.unwrap_or_else(|late| panic!("{late}"))
}
