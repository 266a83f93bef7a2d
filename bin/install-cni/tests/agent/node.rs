//! A node for the agent: an API server, a kernel that can be told to fail, network namespaces that are real,
//! and ztunnels.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    future::Future,
    net::IpAddr,
    os::unix::fs::{MetadataExt as _, symlink},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use install_cni::{
    agent::{Agent, Config, Handle, Parts, Paths, Patience, Phase, PodView, proxies::Ztunnels},
    parts::{Attach, PodUid, Probes, Rules},
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
use mesh_core::workload::PodInfo;
use mesh_kube::events;
use mesh_net::netns::{NetNs, NetNsId};
use mesh_redirect::{Options, Verdict};
use mesh_zds::proxy::{Client as Proxy, WorkloadManager};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit_kube::{
    auth::{User, group},
    server::ApiServer,
};
use testkit_net::{Namespace, wait};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

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

/// A kernel without rules in it.
#[derive(Clone, Default)]
pub(crate) struct Kernel(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rules: BTreeMap<NetNsId, Options>,
    probes: BTreeMap<IpAddr, PodUid>,
    /// Changes so far.
    writes: usize,
    /// From now on everything fails.
    fails: bool,
    /// The change after which nothing is answered any more.
    freezes_after: Option<usize>,
    /// Rules that were compared so far.
    looks: usize,
    /// How often the probe set was asked for.
    ensured: usize,
    /// The namespace in which everything takes for ever.
    slow: Option<NetNsId>,
}

#[derive(Debug, thiserror::Error)]
#[error("the kernel is out of order")]
pub(crate) struct OutOfOrder;

/// A ztunnel that only takes notes.
pub(crate) struct Ztunnel {
    pub(crate) served: watch::Receiver<BTreeMap<PodUid, NetNsId>>,
    synced: watch::Receiver<mesh_zds::proxy::Status>,
    refuses: Arc<Mutex<bool>>,
    /// Whether it answers.
    answers: watch::Sender<bool>,
    /// How often it was asked to serve a pod.
    asked: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

struct Notes {
    served: watch::Sender<BTreeMap<PodUid, NetNsId>>,
    refuses: Arc<Mutex<bool>>,
    answers: watch::Receiver<bool>,
    asked: watch::Sender<usize>,
}

#[derive(Debug, thiserror::Error)]
#[error("no room")]
pub(crate) struct NoRoom;

// === impl Node ===

impl Node {
    /// A node with a running agent, a ztunnel and the namespace `demo`, which is not in the mesh.
    pub(crate) async fn start() -> (Self, Ztunnel) {
        let mut node = Self::prepare().await;
        node.run().await;
        let ztunnel = node.ztunnel();
        node.synced(&ztunnel).await;
        (node, ztunnel)
    }

    /// The same without ztunnel, and with an agent that is not run yet.
    pub(crate) async fn prepare() -> Self {
        Self::with(Kernel::default()).await
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

    /// Waits until the ztunnel knows all pods.
    pub(crate) async fn synced(&self, ztunnel: &Ztunnel) {
        let mut synced = ztunnel.synced.clone();
        let waited = timeout(DEADLINE, synced.wait_for(|status| status.synced)).await;
        drop(waited.expect("ztunnel is told of all pods").unwrap());
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
        let waited = wait::eventually(what, DEADLINE, seen).await;
        waited.unwrap_or_else(|late| panic!("{late}: {:#?}", self.handle.view()));
    }

    pub(crate) async fn reaches(&self, uid: &str, phase: Phase) {
        self.until(uid, &format!("{phase:?}"), |view| view.phase == phase)
            .await;
    }

    /// Waits until the API server shows this annotation.
    pub(crate) async fn shows(&self, name: &str, value: Option<&str>) {
        let shown = || async {
            let pod = self.pods().get(name).await.unwrap();
            pod.annotations().get(REDIRECTION).cloned()
        };
        eventually("the annotation", shown, |shown| shown.as_deref() == value).await;
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

/// Waits until asking gives what is wanted. Asks again as soon as it has been answered.
pub(crate) async fn eventually<T, F>(
    what: &str,
    ask: impl Fn() -> F,
    wanted: impl Fn(&T) -> bool,
) -> T
where
    F: Future<Output = T>,
{
    let waiting = async {
        loop {
            let answer = ask().await;
            if wanted(&answer) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    let waited = timeout(DEADLINE, waiting).await;
    waited.unwrap_or_else(|_| panic!("it does not come to this: {what}"))
}

/// A pod's network.
pub(crate) struct Net {
    pub(crate) namespace: Namespace,
    pub(crate) address: IpAddr,
}

// === impl Net ===

impl Net {
    /// A network namespace with this address.
    pub(crate) fn new(address: &str) -> Self {
        let namespace = Namespace::new("pod").unwrap();
        namespace
            .ip(&format!("addr add {address}/32 dev lo"))
            .unwrap();
        Self {
            namespace,
            address: address.parse().unwrap(),
        }
    }

    pub(crate) fn id(&self) -> NetNsId {
        self.namespace.handle().id()
    }

    /// How many descriptors of this process hold it open. One of them is this value's.
    pub(crate) fn descriptors(&self) -> usize {
        let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
        // Others come and go meanwhile.
        let files = open.filter_map(|entry| fs::metadata(entry.path()).ok());
        let ids = files.map(|file| NetNsId {
            dev: file.dev(),
            ino: file.ino(),
        });
        ids.filter(|id| *id == self.id()).count()
    }

    /// What the plugin says of it.
    pub(crate) fn attachment(&self, name: &str, uid: &str) -> Attachment {
        Attachment {
            network: "cluster".to_owned(),
            container_id: format!("c{}", self.id().ino),
            interface: "eth0".to_owned(),
            netns: self.namespace.path().to_str().unwrap().to_owned(),
            pod_name: name.to_owned(),
            pod_namespace: "demo".to_owned(),
            pod_uid: uid.to_owned(),
            addresses: vec![self.address],
        }
    }
}

// === impl Kernel ===

impl Kernel {
    pub(crate) fn holds_rules(&self, net: &Net) -> bool {
        self.0.lock().rules.contains_key(&net.id())
    }

    pub(crate) fn rules(&self, net: &Net) -> Option<Options> {
        self.0.lock().rules.get(&net.id()).cloned()
    }

    pub(crate) fn damage(&self, net: &Net) {
        let mut state = self.0.lock();
        let rules = state.rules.get_mut(&net.id()).expect("there are rules");
        rules.dns_capture = !rules.dns_capture;
    }

    pub(crate) fn probes(&self) -> BTreeMap<IpAddr, PodUid> {
        self.0.lock().probes.clone()
    }

    /// Holds nothing, as after the node's start.
    pub(crate) fn reset(&self) {
        let mut state = self.0.lock();
        state.rules.clear();
        state.probes.clear();
    }

    pub(crate) fn set_probe(&self, address: &str, uid: Option<&str>) {
        let (mut state, address) = (self.0.lock(), address.parse().unwrap());
        match uid {
            Some(uid) => drop(state.probes.insert(address, uid.into())),
            None => drop(state.probes.remove(&address)),
        }
    }

    pub(crate) fn writes(&self) -> usize {
        self.0.lock().writes
    }

    pub(crate) fn ensured(&self) -> usize {
        self.0.lock().ensured
    }

    pub(crate) fn looks(&self) -> usize {
        self.0.lock().looks
    }

    pub(crate) fn fail(&self, fails: bool) {
        self.0.lock().fails = fails;
    }

    /// Nothing is answered any more after so many changes; or all is again.
    pub(crate) fn freeze_after(&self, writes: Option<usize>) {
        let mut state = self.0.lock();
        state.freezes_after = writes.map(|writes| state.writes + writes);
    }

    pub(crate) fn slow(&self, net: Option<&Net>) {
        self.0.lock().slow = net.map(Net::id);
    }

    pub(crate) fn is_frozen(&self) -> bool {
        let state = self.0.lock();
        state
            .freezes_after
            .is_some_and(|after| state.writes >= after)
    }

    async fn look<T>(&self, look: impl FnOnce(&mut State) -> T) -> Result<T, OutOfOrder> {
        tokio::task::yield_now().await;
        let mut state = self.0.lock();
        if state.fails {
            Err(OutOfOrder)
        } else {
            Ok(look(&mut state))
        }
    }

    async fn write(&self, change: impl FnOnce(&mut State)) -> Result<(), OutOfOrder> {
        let freezes = {
            let mut state = self.0.lock();
            if state.fails {
                return Err(OutOfOrder);
            }
            if state.freezes_after.is_none_or(|after| state.writes < after) {
                change(&mut state);
                state.writes += 1;
            }
            state
                .freezes_after
                .is_some_and(|after| state.writes >= after)
        };
        if freezes {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

impl Rules for Kernel {
    type Error = OutOfOrder;

    async fn verify(&self, netns: &Arc<NetNs>, wanted: &Options) -> Result<Verdict, OutOfOrder> {
        self.look(|state| {
            state.looks += 1;
            match state.rules.get(&netns.id()) {
                None => Verdict::Absent,
                Some(held) if held == wanted => Verdict::Same,
                Some(_) => Verdict::Differs(Vec::new()),
            }
        })
        .await
    }

    async fn apply(&self, netns: &Arc<NetNs>, wanted: &Options) -> Result<(), OutOfOrder> {
        let slow = || self.0.lock().slow == Some(netns.id());
        while slow() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.write(|state| drop(state.rules.insert(netns.id(), wanted.clone())))
            .await
    }

    async fn remove(&self, netns: &Arc<NetNs>) -> Result<(), OutOfOrder> {
        self.write(|state| drop(state.rules.remove(&netns.id())))
            .await
    }
}

impl Probes for Kernel {
    type Error = OutOfOrder;

    async fn ensure(&self) -> Result<(), OutOfOrder> {
        self.look(|state| state.ensured += 1).await
    }

    async fn list(&self) -> Result<BTreeMap<IpAddr, PodUid>, OutOfOrder> {
        self.look(|state| state.probes.clone()).await
    }

    async fn insert(&self, address: IpAddr, pod: &PodUid) -> Result<(), OutOfOrder> {
        self.write(|state| drop(state.probes.insert(address, pod.clone())))
            .await
    }

    async fn remove(&self, address: IpAddr, pod: &PodUid) -> Result<(), OutOfOrder> {
        self.write(|state| {
            if state.probes.get(&address) == Some(pod) {
                state.probes.remove(&address);
            }
        })
        .await
    }

    async fn clear(&self) -> Result<(), OutOfOrder> {
        self.write(|state| state.probes.clear()).await
    }
}

// === impl Ztunnel ===

impl Ztunnel {
    fn start(socket: PathBuf, refuses: bool) -> Self {
        let (sender, served) = watch::channel(BTreeMap::new());
        let refuses = Arc::new(Mutex::new(refuses));
        let answers = watch::Sender::new(true);
        let (asking, asked) = watch::channel(0);
        let notes = Notes {
            served: sender,
            refuses: refuses.clone(),
            answers: answers.subscribe(),
            asked: asking,
        };
        let mut proxy = Proxy::new(socket, notes);
        let synced = proxy.status();
        let task = tokio::spawn(async move { match proxy.run().await {} });
        Self {
            served,
            synced,
            refuses,
            answers,
            asked,
            task,
        }
    }

    /// From now on it serves no pod that is new, or does again.
    pub(crate) fn refuse(&self, refuses: bool) {
        *self.refuses.lock() = refuses;
    }

    /// From now on it takes its time, or answers again.
    pub(crate) fn answer(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    /// Waits until it has been asked to serve a pod.
    pub(crate) async fn is_asked(&mut self) {
        let waited = timeout(DEADLINE, self.asked.wait_for(|asked| *asked > 0)).await;
        drop(waited.expect("ztunnel is asked").unwrap());
    }

    pub(crate) async fn serves(&mut self, uid: &PodUid, net: Option<&Net>) {
        let wanted = net.map(Net::id);
        let waited = self
            .served
            .wait_for(|served| served.get(uid).copied() == wanted);
        let waited = timeout(DEADLINE, waited).await.map(|found| found.is_ok());
        assert_eq!(waited, Ok(true), "it serves {:?}", *self.served.borrow());
    }

    /// Ends it, as a signal would.
    pub(crate) async fn kill(mut self) {
        self.task.abort();
        drop((&mut self.task).await);
    }
}

impl Drop for Ztunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl WorkloadManager for Notes {
    type Error = NoRoom;

    async fn add(
        &mut self,
        uid: &Arc<str>,
        _pod: &PodInfo,
        netns: Arc<NetNs>,
    ) -> Result<(), NoRoom> {
        self.asked.send_modify(|asked| *asked += 1);
        drop(self.answers.wait_for(|answers| *answers).await);
        if *self.refuses.lock() {
            return Err(NoRoom);
        }
        let id = netns.id();
        self.served.send_modify(|served| {
            served.insert(uid.clone(), id);
        });
        Ok(())
    }

    async fn delete(&mut self, uid: &Arc<str>) {
        self.served.send_modify(|served| {
            served.remove(uid);
        });
    }
}
